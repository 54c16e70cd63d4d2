//! The kernel's list of mounts: any bytes can be looked at, and a line as the kernel writes it is understood.
//!
//! Never looks at this machine's mounts.

use std::os::unix::ffi::OsStrExt as _;

use tentative_testkit::input::Input;

use super::path;
use crate::files::mountinfo::{Mount, parse};

/// Takes the bytes for a list, and for what a list is made from.
///
/// # Panics
/// When a line that the kernel could have written is not understood.
pub fn mountinfo(bytes: &[u8]) {
    assert!(parse(bytes).len() <= bytes.split(|byte| *byte == b'\n').count());
    let mut input = Input::new(bytes);
    let mounts = input.list(4, |input| mount(input));
    let text: Vec<u8> = mounts.iter().flat_map(|(_, line)| line.iter().copied()).collect();
    let mounts: Vec<Mount> = mounts.into_iter().map(|(mount, _)| mount).collect();
    assert_eq!(parse(&text), mounts);
}

/// A mount and its line.
fn mount(input: &mut Input<'_>) -> (Mount, Vec<u8>) {
    let mount = Mount {
        id: input.number(),
        path: path(input, 40),
        file_system: input.one_of(&["ext4", "fuse.sshfs", "9p", "-"]).to_owned(),
        read_only: false,
        no_suid: input.chance(),
        no_exec: input.chance(),
        is_file: false,
    };
    let (read_only, read_only_inside) = (input.chance(), input.chance());
    let mut line = format!("{} 1 0:{} ", mount.id, input.byte()).into_bytes();
    // What of the file system is mounted is whatever the file system says, and so is what it is made from.
    line.extend(escaped(input.bytes(8)));
    line.push(b' ');
    line.extend(escaped(mount.path.as_os_str().as_bytes()));
    line.extend(if read_only { b" ro" } else { b" rw" });
    line.extend(if mount.no_suid { &b",nosuid"[..] } else { b"" });
    line.extend(if mount.no_exec { &b",noexec"[..] } else { b"" });
    line.extend(input.one_of(&[&b",relatime"[..], b"", b",nodev,noatime"]));
    line.extend(input.one_of(&[&b" shared:1 master:2"[..], b"", b" unbindable"]));
    line.extend(format!(" - {} ", mount.file_system).into_bytes());
    line.extend(escaped(input.bytes(8)));
    line.extend(if read_only_inside { b" ro" } else { b" rw" });
    line.extend(input.one_of(&[&b",errors=remount-ro"[..], b"", b",lowerdir=/a\\054ro\\054b"]));
    line.push(b'\n');
    (Mount { read_only: read_only || read_only_inside, ..mount }, line)
}

/// As the kernel escapes names in its lists.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in name {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => text.extend(format!("\\{byte:03o}").into_bytes()),
            0 => {}
            other => text.push(*other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_the_kernel_are_understood() {
        tentative_testkit::input::each("mountinfo", super::mountinfo);
    }
}
