//! The seven layers of state, and sets of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One of the seven kinds of state; every change and every effect belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Private pages and mappings.
    Memory,
    /// Threads, registers, signal handlers and masks, timers.
    Threads,
    /// The interpreter's object space.
    Objects,
    /// Environment, working directory, umask, limits, descriptors and offsets, shared mappings.
    Process,
    /// The file system.
    Files,
    /// Other processes, signals, IPC objects and terminals of this host.
    Kin,
    /// Network, devices, clocks and settings of the host, other hosts.
    World,
}

impl Layer {
    /// All layers, lowest first.
    pub const ALL: [Layer; 7] = [
        Layer::Memory,
        Layer::Threads,
        Layer::Objects,
        Layer::Process,
        Layer::Files,
        Layer::Kin,
        Layer::World,
    ];

    /// The layer's name as users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Memory => "memory",
            Layer::Threads => "threads",
            Layer::Objects => "objects",
            Layer::Process => "process",
            Layer::Files => "files",
            Layer::Kin => "kin",
            Layer::World => "world",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown layer '{0}' (layers: memory, threads, objects, process, files, kin, world)")]
pub struct UnknownLayer(pub String);

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Layer::ALL.into_iter().find(|layer| layer.name() == word).ok_or_else(|| UnknownLayer(word.to_owned()))
    }
}

/// A set of layers, as `--without` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSet(u8);

impl LayerSet {
    /// The set without any layer.
    pub const EMPTY: LayerSet = LayerSet(0);

    /// Adds a layer.
    pub const fn insert(&mut self, layer: Layer) {
        self.0 |= 1 << layer as u8;
    }

    /// Says whether the layer is in the set.
    #[must_use]
    pub const fn contains(self, layer: Layer) -> bool {
        self.0 & (1 << layer as u8) != 0
    }

    /// Says whether no layer is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The layers of the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(move |layer| self.contains(*layer))
    }
}

impl FromIterator<Layer> for LayerSet {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        let mut set = LayerSet::EMPTY;
        for layer in layers {
            set.insert(layer);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse::<Layer>(), Ok(layer));
        }
        assert!("file".parse::<Layer>().is_err());
    }

    #[test]
    fn set_holds_what_was_inserted() {
        let set: LayerSet = [Layer::Kin, Layer::Files].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Layer::Files, Layer::Kin]);
        assert!(!set.contains(Layer::World));
    }
}
