//! Mounts without paths: trees taken and put by descriptor, in another mount namespace if need be.

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A mount of its own of the directory `dir` (with what is mounted below it, if `deep`), nowhere yet; gone with the descriptor.
pub(crate) fn clone_tree(dir: BorrowedFd<'_>, deep: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if deep {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(dir, "", flags)?)
}

/// Puts a tree on the directory `on`.
pub(crate) fn put_tree(tree: BorrowedFd<'_>, on: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_mount(tree, "", on, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)?)
}

/// When a mount is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakeOff {
    /// Only if nothing of it is in use; EBUSY else.
    Unused,
    /// Whatever is in use: no name leads there any more, and who is there stays there.
    Always,
}

/// Takes off, at once for all names, the topmost mount on `name` in `dir`. The root of the mount itself is not asked: its daemon may be dead. Must run on a
/// thread whose working directory is its own: it changes it.
pub(crate) fn take_off(dir: BorrowedFd<'_>, name: &OsStr, when: TakeOff) -> io::Result<()> {
    use nix::mount::MntFlags;
    rustix::process::fchdir(dir)?;
    let how = match when {
        TakeOff::Unused => MntFlags::UMOUNT_NOFOLLOW,
        TakeOff::Always => MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
    };
    let done = nix::mount::umount2(name, how);
    nix::unistd::chdir("/")?;
    Ok(done?)
}

/// Which links a path may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// None: ELOOP else.
    None,
    /// Any, all of them read as a process would whose root directory it is.
    Inside,
}

/// Opens a directory below `root` as a process whose root directory it is would find it: links lead nowhere else, and no mount is crossed. EAGAIN when it
/// was raced too often.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, links: Links) -> io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    if links == Links::None {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed on the way: the kernel cannot say for certain that it is still inside.
            Err(rustix::io::Errno::AGAIN) if tries < 128 => tries += 1,
            r => return Ok(r?),
        }
    }
}

/// The same from the root directory of this thread, along no link at all.
pub(crate) fn open_plain(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)?)
}

/// The id of the mount that a descriptor is on.
pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // Nothing is asked of the file system, whose daemon may be dead; nor of /proc, which in a container is the container's.
    let flags = rustix::fs::AtFlags::EMPTY_PATH | rustix::fs::AtFlags::STATX_DONT_SYNC;
    Ok(rustix::fs::statx(fd, "", flags, rustix::fs::StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Whether something is mounted on exactly this place; nothing is asked of it, for its daemon may be dead.
pub(crate) fn is_mounted(at: &Path) -> bool {
    let Ok(at) = std::path::absolute(at) else { return false };
    let parent = at.parent().and_then(|p| p.canonicalize().ok());
    let at = match (parent, at.file_name()) {
        (Some(p), Some(n)) => p.join(n),
        _ => at,
    };
    super::mountinfo::topmost(&at).is_ok_and(|m| m.is_some())
}

/// What a cloned tree may not be used for, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restrict {
    pub read_only: bool,
    pub shared: bool,
}

/// No devices and no set-user-id bits for what is mounted from `tree`, and no writing if so asked. `shared`: what is mounted below it later appears in
/// the namespaces that were cloned from its own.
pub(crate) fn restrict(tree: BorrowedFd<'_>, how: Restrict) -> io::Result<()> {
    let mut attr_set = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
    if how.read_only {
        attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation: if how.shared { libc::MS_SHARED } else { 0 }, userns_fd: 0 };
    // SAFETY: `attr` has the layout of struct mount_attr, its size is given, and it outlives the call, which only reads it; the path is an empty C string.
    #[allow(unsafe_code)]
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(rc)?;
    Ok(())
}

/// Runs `f` in the mount namespace `ns`, on a thread of its own: root and working directory are those of the namespace.
pub(crate) fn in_namespace<T: Send>(ns: BorrowedFd<'_>, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_FS)?;
        setns(ns, CloneFlags::CLONE_NEWNS)?;
        f()
    })
}

/// Runs `f` in a mount namespace of its own, a copy of ours that receives what is mounted here later and gives nothing back. It ends with its last process.
pub(crate) fn in_private_namespace<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        nix::mount::mount(None::<&str>, "/", None::<&str>, nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SLAVE, None::<&str>)?;
        Ok(f())
    })
}

fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|s| {
        let thread = std::thread::Builder::new().name("mounts".into()).spawn_scoped(s, f)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended badly")))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_tree_is_put_restricted_and_taken_off_in_a_namespace_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        for d in ["from", "on"] {
            std::fs::create_dir(dir.path().join(d)).unwrap();
        }
        std::fs::write(dir.path().join("from/f"), "x").unwrap();
        let (from, on) = (dir.path().join("from"), dir.path().join("on"));
        let tree = clone_tree(File::open(&from).unwrap().as_fd(), false).unwrap();
        restrict(tree.as_fd(), Restrict { read_only: true, shared: false }).unwrap();
        in_private_namespace(|| {
            put_tree(tree.as_fd(), open_plain(&on).unwrap().as_fd()).unwrap();
            assert_eq!(std::fs::read_to_string(on.join("f")).unwrap(), "x");
            assert_eq!(std::fs::write(on.join("f"), "y").unwrap_err().raw_os_error(), Some(libc::EROFS));
            let root = open_plain(&on).unwrap();
            assert_ne!(mount_id(root.as_fd()).unwrap(), mount_id(open_plain(dir.path()).unwrap().as_fd()).unwrap());
            let held = File::open(on.join("f")).unwrap();
            let off = |when| take_off(open_plain(dir.path()).unwrap().as_fd(), OsStr::new("on"), when);
            assert_eq!(off(TakeOff::Unused).unwrap_err().raw_os_error(), Some(libc::EBUSY), "the root is held, and a file");
            off(TakeOff::Always).unwrap();
            assert!(!on.join("f").exists());
            drop(held);
        })
        .unwrap();
        assert!(!on.join("f").exists(), "nothing of it is seen here");
    }

    #[test]
    fn links_lead_nowhere_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("root/link")).unwrap();
        std::os::unix::fs::symlink("../../..", dir.path().join("root/up")).unwrap();
        let root = File::open(dir.path().join("root")).unwrap();
        let at = |p: &str| {
            let fd = open_in_root(root.as_fd(), Path::new(p), Links::Inside).unwrap();
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
        };
        let real = dir.path().join("root").canonicalize().unwrap();
        assert_eq!(at("/link"), real.join("etc"));
        assert_eq!(at("/up"), real);
        assert_eq!(at("../../.."), real);
        assert_eq!(open_in_root(root.as_fd(), Path::new("link"), Links::None).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert!(open_plain(&dir.path().join("root/link")).is_err());
    }
}
