//! Lines of `/proc` and of resolv.conf: any text can be looked at, and what the kernel writes is understood.
//!
//! Never looks at this machine's.

use std::net::IpAddr;

use tentative_testkit::input::Input;

use crate::{files::conflict::parse_lock, monitor::parse_stat, world::hosts};

/// Takes the bytes for a text, and for what a text is made from.
///
/// # Panics
/// When a line that the kernel could have written is not understood.
pub fn proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _any = (parse_stat(&text), hosts::parse(&text), text.lines().map(parse_lock).count());
    let mut input = Input::new(bytes);
    match input.below(3) {
        0 => stat(&mut input),
        1 => lock(&mut input),
        _ => name_servers(&mut input),
    }
}

/// `/proc/PID/stat`: a program's name may hold brackets, spaces and line ends.
fn stat(input: &mut Input<'_>) {
    let name = input.text(15);
    let fields = input.list(6, |input| input.number().cast_signed());
    let words: Vec<String> = fields.iter().map(i64::to_string).collect();
    let line = format!("{} ({name}) S {}\n", input.byte(), words.join(" "));
    let parsed = parse_stat(&line).expect("a line of the kernel's");
    // The state is a letter.
    assert_eq!((parsed[0], &parsed[1..]), (0, &fields[..]), "{line:?}");
}

/// `/proc/locks`: only locks of whole files are taken note of, and not those that somebody waits for.
fn lock(input: &mut Input<'_>) {
    let (major, minor) = (u32::from_le_bytes(input.array()), u32::from(input.byte()));
    let (inode, pid) = (input.number(), u32::from_le_bytes(input.array()).cast_signed());
    let kind = input.one_of(&["FLOCK", "POSIX", "LEASE", "OFDLCK"]);
    let waits = if input.chance() { "-> " } else { "" };
    let line = format!("7: {waits}{kind}  ADVISORY  WRITE {pid} {major:02x}:{minor:02x}:{inode} 0 EOF");
    let held = (kind == "FLOCK" && waits.is_empty()).then_some((major, minor, inode, pid));
    assert_eq!(parse_lock(&line), held, "{line:?}");
}

/// resolv.conf(5): every server is found, in its order.
fn name_servers(input: &mut Input<'_>) {
    let servers = input.list(4, |input| {
        if input.chance() { IpAddr::from(input.array::<4>()) } else { IpAddr::from(input.array::<16>()) }
    });
    let mut text = String::from("# nameserver 192.0.2.1\nsearch example.org\n");
    for server in &servers {
        let space = input.one_of(&[" ", "\t", "  "]);
        let behind = if server.is_ipv6() { input.one_of(&["", "%eth0", " "]) } else { "" };
        text.push_str(&format!("nameserver{space}{server}{behind}\noptions ndots:2\n"));
    }
    assert_eq!(hosts::parse(&text), servers, "{text:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_the_kernel_are_understood() {
        tentative_testkit::input::each("proc", super::proc);
    }
}
