//! Using a sandbox again in which code has run that left nothing.
//!
//! Only an ordinary user's, inside of which nobody has a capability: no mount, no setting and no interface of it can have been
//! changed. What can have been is looked at here, from inside, and what cannot be looked at is replaced: the namespace of
//! System V and POSIX objects. The overlays' uppers are the builder's to look at. One doubt and the sandbox is not used again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{FsPickFlags, fsconfig_reconfigure, fspick},
};
use tentative_sys::kin::{Namespaces, unshare};

use super::init::{Building, Failure};
use crate::{
    files::{
        plan::CoverKind,
        seal::{self, Sealed},
    },
    layer::Layer,
};

/// What init remembers of a sandbox that nobody has used.
#[derive(Debug)]
pub(super) struct Unused {
    /// The directories that are the sandbox's own and can be written: `/dev/pts` and what hides the transactions' places.
    own: Vec<Sealed>,
}

impl Unused {
    /// Looks at a sandbox that was just built. One that can never be renewed costs nothing.
    pub(super) fn look(building: &Building<'_>) -> Option<Unused> {
        may_be_renewed(building).then(|| own(building).ok().map(|own| Unused { own }))?
    }

    /// Makes the sandbox as it was, or says what is in the way.
    pub(super) fn renew(&self, building: &Building<'_>) -> Result<(), Failure> {
        if own(building).map_err(|error| Failure::io(&error, "/dev"))? != self.own {
            return Err(Failure::new(Errno::NOTEMPTY, "/dev"));
        }
        nobody_used_the_network().map_err(|error| Failure::io(&error, "/proc/self/net"))?;
        unshare(Namespaces::IPC)?;
        for overlay in overlays(building) {
            // The kernel forgets what it has looked up: files of the outside may be others by now.
            let failed = |errno| Failure::new(errno, overlay.display().to_string());
            let context = fspick(CWD, overlay, FsPickFlags::FSPICK_CLOEXEC).map_err(failed)?;
            fsconfig_reconfigure(&context).map_err(failed)?;
        }
        Ok(())
    }
}

fn may_be_renewed(building: &Building<'_>) -> bool {
    let contained = [Layer::Files, Layer::Kin, Layer::World].map(|layer| building.blueprint.contains(layer));
    let wanted = building.blueprint.renewable && building.blueprint.is_without_power();
    wanted && contained == [true; 3] && building.blueprint.devices.is_empty()
}

fn overlays<'a>(building: &'a Building<'_>) -> impl Iterator<Item = &'a Path> {
    let covers = building.blueprint.plan.into_iter().flat_map(|plan| &plan.covers);
    covers.filter(|cover| matches!(cover.kind, CoverKind::Overlay { .. })).map(|cover| cover.path.as_path())
}

fn own(building: &Building<'_>) -> io::Result<Vec<Sealed>> {
    let hidden = building.blueprint.plan.into_iter().flat_map(|plan| &plan.covers);
    let hidden = hidden.filter(|cover| cover.kind == CoverKind::Hidden).map(|cover| cover.path.clone());
    let all = [PathBuf::from("/dev/pts")].into_iter().chain(hidden);
    // One that is not there has nothing that it could be mounted on.
    all.filter(|path| path.exists()).map(|path| seal::directory(&path)).collect()
}

/// Neither a socket is left nor has a packet passed the loopback: a connection that has just ended would keep its port.
fn nobody_used_the_network() -> io::Result<()> {
    let devices = fs::read_to_string("/proc/self/net/dev")?;
    let packets = devices
        .lines()
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(_, counts)| counts.split_whitespace());
    let sockets = fs::read_to_string("/proc/self/net/sockstat")?;
    let used = sockets.lines().find_map(|line| line.strip_prefix("sockets: used "));
    match used {
        Some("0") if packets.clone().all(|count| count == "0") && packets.count() > 0 => Ok(()),
        _ => Err(io::ErrorKind::ResourceBusy.into()),
    }
}
