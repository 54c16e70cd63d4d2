//! Giving up capabilities for good: bounding set, permitted, effective, inheritable and ambient sets.
//!
//! Never gains one. See capabilities(7).

use rustix::io::Errno;

use crate::raw::syscall;

/// The capabilities that a root user's program keeps inside a sandbox, as a bit set: about what containers give.
///
/// chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
/// audit_write, setfcap. All of them count only in the sandbox's own user namespace.
pub const SANDBOX_ROOT_CAPABILITIES: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << 27
    | 1 << 29
    | 1 << 31;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<Data>() == 12);

/// Keeps at most the capabilities in `keep` (a bit set) for this thread and everything that it executes.
///
/// # Errors
/// What prctl(PR_CAPBSET_DROP), capget(2) or capset(2) say.
pub fn drop_capabilities_raw(keep: u64) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize)?;
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            // The kernel's last capability is passed.
            Err(Errno::INVAL) => break,
            // Without CAP_SETPCAP the bounding set stays; with no_new_privs it gives nothing to an ordinary user.
            Err(Errno::PERM) if keep == 0 => break,
            other => other?,
        }
    }
    let header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: capget(2) reads one header and writes two data words for version 3, which both live here.
    unsafe { syscall(libc::SYS_capget, [&raw const header as usize, (&raw mut data) as usize, 0, 0, 0, 0]) }?;
    for (index, half) in data.iter_mut().enumerate() {
        let mask = (keep >> (32 * index)) as u32;
        half.permitted &= mask;
        half.effective = half.permitted;
        half.inheritable = 0;
    }
    // SAFETY: capset(2) only reads one header and two data words for version 3, which both live here.
    unsafe {
        syscall(libc::SYS_capset, [&raw const header as usize, (&raw const data) as usize, 0, 0, 0, 0])
    }?;
    Ok(())
}

fn prctl(option: i32, argument: usize) -> Result<(), Errno> {
    // SAFETY: the two options used here take numbers only.
    unsafe { syscall(libc::SYS_prctl, [option as usize, argument, 0, 0, 0, 0]) }?;
    Ok(())
}
