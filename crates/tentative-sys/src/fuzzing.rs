//! Properties of what this crate reads from the kernel, each for any bytes.
//!
//! Compiled into tests and fuzzers only. Never asks the kernel anything. Invariant: a property panics exactly when it
//! does not hold.

use tentative_testkit::input::Input;

use crate::memory::maps::{Kind, parse_line};

/// Takes the bytes for a line of `/proc/PID/maps`, and for what one is made from.
///
/// # Panics
/// When a line that the kernel could have written is not understood.
pub fn maps(bytes: &[u8]) {
    let _any = parse_line(bytes);
    let mut input = Input::new(bytes);
    let (start, end) = (input.number(), input.number());
    let (offset, inode) = (input.number(), if input.chance() { input.number() } else { 0 });
    let (major, minor) = (u64::from(input.byte()), u64::from(u32::from_le_bytes(input.array())) & 0xf_ffff);
    let bits: [bool; 4] = std::array::from_fn(|_| input.chance());
    let flag = |index: usize, letter: char| if bits[index] { letter } else { '-' };
    let flags: String =
        [flag(0, 'r'), flag(1, 'w'), flag(2, 'x'), if bits[3] { 's' } else { 'p' }].iter().collect();
    let mut line =
        format!("{start:08x}-{end:08x} {flags} {offset:08x} {major:02x}:{minor:02x} {inode} ").into_bytes();
    let path = path(&mut input);
    if !path.is_empty() {
        // The kernel pads to where the path begins, and leaves one space after long numbers.
        line.resize(line.len().max(73), b' ');
        line.extend_from_slice(&path);
    }
    let (vma, found) = parse_line(&line).expect("a line of the kernel's");
    assert_eq!(found, path);
    assert_eq!((vma.start as u64, vma.end as u64, vma.offset), (start, end, offset));
    assert_eq!((vma.device, vma.inode), (major << 32 | minor, inode));
    let has = |bit: i32| vma.protection & bit != 0;
    assert_eq!([has(libc::PROT_READ), has(libc::PROT_WRITE), has(libc::PROT_EXEC), vma.shared], bits);
    assert!(vma.kind != Kind::File || inode != 0);
}

/// A file's path, in which the kernel escapes line ends and nothing else, or a name of its own, or none.
fn path(input: &mut Input<'_>) -> Vec<u8> {
    match input.below(4) {
        0 => Vec::new(),
        1 => input
            .one_of(&[&b"[heap]"[..], b"[stack]", b"[vdso]", b"[anon: x y]", b"anon_inode:[perf]"])
            .to_vec(),
        _ => [b"/", input.bytes(60)].concat().into_iter().filter(|byte| !matches!(byte, b'\n' | 0)).collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_the_kernel_are_understood() {
        tentative_testkit::input::each("maps", super::maps);
    }
}
