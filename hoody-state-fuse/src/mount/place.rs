//! The mountpoint: checks before a mount, and the removal of a dead mount.

use super::MountError;
use hoody_state::mountinfo;
use std::path::{Path, PathBuf};

/// The prefix of the source of this program's mounts in `/proc/self/mountinfo`.
pub(super) const SOURCE: &str = "hoody-state:";

/// How long an existing mount on the mountpoint may take to answer.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn detach(at: &Path) -> std::io::Result<()> {
    nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).map_err(Into::into)
}

/// Refuses a mountpoint with files in it: the mount would hide them.
pub(super) fn refuse_full(mountpoint: &Path) -> Result<(), MountError> {
    let mut entries = std::fs::read_dir(mountpoint).map_err(|source| MountError::Mountpoint { path: mountpoint.to_owned(), source })?;
    if entries.next().is_some() { Err(MountError::NotEmpty(mountpoint.to_owned())) } else { Ok(()) }
}

/// Checks what a mount needs, and removes the mount that a dead daemon left on the mountpoint. Returns the mountpoint without symbolic links.
pub(super) fn prepare(mountpoint: &Path) -> Result<PathBuf, MountError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(MountError::NotRoot);
    }
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(MountError::NoFuse)?;
    let unusable = |source| MountError::Mountpoint { path: mountpoint.to_owned(), source };
    // A dead mount cannot be resolved, so only the absolute path can be used.
    let absolute = std::path::absolute(mountpoint).map_err(unusable)?;
    // A directory mounted over itself may have several dead mounts.
    while is_dead(&absolute).map_err(unusable)? {
        if !mounted_from(&absolute).is_some_and(|s| s.starts_with(SOURCE)) {
            return Err(MountError::InUse(absolute));
        }
        tracing::info!("removing a mount whose daemon has died from {}", absolute.display());
        detach(&absolute).map_err(unusable)?;
    }
    if !std::fs::metadata(mountpoint).map_err(unusable)?.is_dir() {
        return Err(unusable(std::io::Error::from_raw_os_error(nix::libc::ENOTDIR)));
    }
    let real = mountpoint.canonicalize().map_err(unusable)?;
    if mounted_from(&real).is_some_and(|s| s.starts_with(SOURCE)) {
        return Err(MountError::InUse(real));
    }
    Ok(real)
}

/// Whether the daemon of the mount there is dead. Attributes may still be cached, so `statfs` is used, which only the daemon can answer. A daemon that is
/// stopped by a signal does not answer: the call then hangs, on a thread of its own.
fn is_dead(at: &Path) -> std::io::Result<bool> {
    use rustix::io::Errno;
    let (sender, answer) = std::sync::mpsc::channel();
    let path = at.to_owned();
    std::thread::Builder::new().name("is-dead".into()).spawn(move || {
        let _ = sender.send(matches!(rustix::fs::statfs(&path), Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED)));
    })?;
    answer.recv_timeout(ANSWER).map_err(|_| {
        let m = format!("the mount there has not answered for {ANSWER:?}; is its daemon stopped? Continue it, or end it");
        std::io::Error::new(std::io::ErrorKind::TimedOut, m)
    })
}

/// The source of the mount on exactly this path.
fn mounted_from(at: &Path) -> Option<String> {
    Some(mountinfo::topmost(at).ok()??.source.to_string_lossy().into_owned())
}

/// Raises the limit of open files as far as the kernel allows, because each node has a descriptor. Returns the limit.
pub(super) fn raise_open_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(1 << 20);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok();
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    if !raised {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    usize::try_from(hard).unwrap_or(usize::MAX)
}
