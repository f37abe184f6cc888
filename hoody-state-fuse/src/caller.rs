//! Creates inodes as the caller. The kernel has checked the permissions already (`default_permissions`). The owner, the umask and, in the backing file
//! system, the rules of setgid directories and default ACLs must be those of the caller.

use crate::threads::task_status;
use nix::libc::mode_t;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, capabilities, set_capabilities, set_capabilities_secure_bits};
use std::cell::Cell;

thread_local! {
    static READY: Cell<bool> = const { Cell::new(false) };
}

/// While this guard lives, this thread creates files as the caller.
pub(crate) struct AsCaller(());

impl AsCaller {
    pub fn new(uid: u32, gid: u32, mask: u32) -> Self {
        READY.with(|ready| {
            if !ready.replace(true) {
                // This thread gets its own umask, and capabilities that survive a change of ids.
                if let Err(e) = unshare(CloneFlags::CLONE_FS) {
                    tracing::warn!("this thread has no umask of its own ({e}): files created at the same time may get the wrong one");
                }
                if let Err(e) = set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP) {
                    tracing::warn!("capabilities will not survive a change of ids ({e}): callers that rely on their groups may be refused");
                }
            }
        });
        setfsgid(Gid::from_raw(gid));
        setfsuid(Uid::from_raw(uid));
        umask(Mode::from_bits_truncate(mask as mode_t));
        AsCaller(())
    }
}

impl Drop for AsCaller {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        umask(Mode::empty());
    }
}

/// Whether a change by this thread must clear the set-group-id bit of a file of group `of`: the thread is not in that group, and has no `CAP_FSETID`.
pub(crate) fn may_not_keep_setgid(tid: u32, gid: u32, of: u32) -> bool {
    gid != of && !task_status(tid).is_some_and(|status| is_in_group_or_privileged(&status, of))
}

fn is_in_group_or_privileged(status: &str, group: u32) -> bool {
    const FSETID: u64 = 1 << 4;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    let capable = u64::from_str_radix(field("CapEff:").trim(), 16).is_ok_and(|c| c & FSETID != 0);
    capable || field("Groups:").split_whitespace().any(|g| g.parse() == Ok(group))
}

/// Runs `f` without CAP_FSETID, so that its writes clear set-user-id and set-group-id bits, as those of ordinary users do.
pub(crate) fn without_fsetid<T>(f: impl FnOnce() -> T) -> T {
    let Ok(before) = capabilities(None) else { return f() };
    let mut less = before;
    less.effective.remove(CapabilitySet::FSETID);
    let dropped = set_capabilities(None, less).is_ok();
    let value = f();
    if dropped && let Err(e) = set_capabilities(None, before) {
        tracing::error!("CAP_FSETID could not be restored: {e}");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::is_in_group_or_privileged;

    #[test]
    fn a_group_or_the_capability_keeps_the_bit() {
        let status = "Name:\tx\nGroups:\t4 1000 \nCapEff:\t0000000000000000\n";
        assert!(is_in_group_or_privileged(status, 1000));
        assert!(!is_in_group_or_privileged(status, 100));
        assert!(is_in_group_or_privileged("Groups:\t\nCapEff:\t0000000000000010\n", 100));
        assert!(!is_in_group_or_privileged("", 0));
    }
}
