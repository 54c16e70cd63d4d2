//! Plain bytes as the source of structured values, for properties that a fuzzer and a unit test both check.
//!
//! A value is read from the front, so that a small change of the bytes is a small change of the value; bytes that are
//! used up read as zero. Never random: the same bytes give the same values, and [`each`] gives the same bytes every time.

use std::{fs, path::Path};

/// How many made-up inputs [`each`] tries.
const MADE_UP: u64 = 300;
/// The longest of them, bytes.
const LONGEST: u64 = 600;

/// Characters that a terminal, a shell, a parser or a reader of text treats in its own way.
const SPECIAL: [char; 26] = [
    '\0',
    '\n',
    '\r',
    '\t',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{9b}',
    '\u{61c}',
    '\u{200e}',
    '\u{200f}',
    '\u{2028}',
    '\u{2029}',
    '\u{202a}',
    '\u{202e}',
    '\u{2066}',
    '\u{2069}',
    '\u{feff}',
    '\u{fffd}',
    '\u{e9}',
    '\u{65e5}',
    '\u{1f600}',
    '\'',
    '"',
    '\\',
    '$',
];

/// Bytes that values are made from.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Says whether every byte was used.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next bytes, as many as the array has.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number of 64 bits.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Yes or no.
    pub fn chance(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        let number =
            if end <= 256 { usize::from(self.byte()) } else { u32::from_le_bytes(self.array()) as usize };
        number % end
    }

    /// One of the values.
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// At most `most` bytes.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = self.below(most + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A text of at most `most` characters; any character can be in it, and special ones are likely.
    pub fn text(&mut self, most: usize) -> String {
        let length = self.below(most + 1);
        let mut text = String::with_capacity(length);
        while !self.is_empty() && text.chars().count() < length {
            text.push(self.character());
        }
        text
    }

    fn character(&mut self) -> char {
        match self.byte() {
            ascii @ 0..=0x7f => char::from(ascii),
            0xff => {
                let [low, middle, high] = self.array();
                let number = u32::from_le_bytes([low, middle, high, 0]);
                char::from_u32(number % 0x11_0000).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => SPECIAL[usize::from(other) % SPECIAL.len()],
        }
    }

    /// At most `most` values, as long as there are bytes for them.
    pub fn list<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.below(most + 1);
        let mut values = Vec::with_capacity(length);
        while !self.is_empty() && values.len() < length {
            values.push(one(self));
        }
        values
    }

    /// A value, or none.
    pub fn option<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance().then(|| one(self))
    }
}

/// Checks a property of the fuzzer's with its committed seeds (`fuzz/seeds/TARGET`), with those changed a little, and
/// with a few hundred made-up inputs, always the same ones.
///
/// # Panics
/// When the property does, or when it has no seed.
pub fn each(target: &str, property: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry of the seeds").path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a seed can be read")).collect();
    assert!(!seeds.is_empty(), "{target} has no seed");
    property(b"");
    for seed in &seeds {
        property(seed);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..MADE_UP {
        let bytes = match number % 3 {
            0 => random.bytes(|random| random.next().to_le_bytes()[3]),
            1 => random.bytes(|random| b' ' + random.next().to_le_bytes()[3] % 95),
            _ => random.changed(&seeds[usize::try_from(number).expect("a small number") % seeds.len()]),
        };
        property(&bytes);
    }
}

/// The generator xorshift64*: short, and good enough to make up bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn bytes(&mut self, mut one: impl FnMut(&mut Self) -> u8) -> Vec<u8> {
        (0..self.next() % LONGEST).map(|_| one(self)).collect()
    }

    /// The bytes with a few of them replaced, and a piece left out.
    fn changed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.next() % 4 {
            if bytes.is_empty() {
                break;
            }
            let at = usize::try_from(self.next()).unwrap_or(0) % bytes.len();
            bytes[at] = self.next().to_le_bytes()[3];
        }
        if self.next().is_multiple_of(4) && !bytes.is_empty() {
            let at = usize::try_from(self.next()).unwrap_or(0) % bytes.len();
            bytes.drain(at..(at + 3).min(bytes.len()));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_up_bytes_are_zero() {
        let mut input = Input::new(&[5, 1]);
        assert_eq!((input.byte(), input.chance(), input.is_empty()), (5, true, true));
        assert_eq!((input.number(), input.below(10), input.text(9)), (0, 0, String::new()));
        assert_eq!((input.bytes(7), input.rest()), (&b""[..], &b""[..]));
    }

    #[test]
    fn values_follow_the_bytes() {
        let mut input = Input::new(b"\x03abc\x02x\x80rest");
        assert_eq!(input.bytes(3), b"abc");
        assert_eq!(input.text(2).chars().count(), 2);
        assert_eq!(input.rest(), b"rest");
    }
}
