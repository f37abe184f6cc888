//! A root directory of one's own, that shows only chosen directories.

use super::mount::{Restrict, clone_tree, in_private_namespace, open_plain, put_tree, restrict};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// Whether what is shown to [`in_root_of`] may be changed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Runs `f` with a root directory in which there are these directories, by name, and nothing else: whatever links it follows, they lead nowhere else.
pub(crate) fn in_root_of<T: Send>(dirs: &[(&str, &Path, Access)], f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let empty = tempfile::tempdir()?;
    let shown = |dir: &Path, access: Access| -> io::Result<OwnedFd> {
        let tree = clone_tree(std::fs::File::open(dir)?.as_fd(), false)?;
        restrict(tree.as_fd(), Restrict { read_only: access == Access::Read, shared: false })?;
        Ok(tree)
    };
    let trees = dirs.iter().map(|(_, dir, access)| shown(dir, *access)).collect::<io::Result<Vec<_>>>()?;
    in_private_namespace(|| {
        use nix::mount::MsFlags;
        nix::mount::mount(Some("hoody-root"), empty.path(), Some("tmpfs"), MsFlags::MS_NODEV | MsFlags::MS_NOSUID, Some("mode=755,size=1m"))?;
        for ((name, ..), tree) in dirs.iter().zip(&trees) {
            let at = empty.path().join(name);
            std::fs::create_dir(&at)?;
            put_tree(tree.as_fd(), open_plain(&at)?.as_fd())?;
        }
        nix::unistd::chroot(empty.path())?;
        nix::unistd::chdir("/")?;
        Ok(f())
    })?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_root_of_its_own_has_nothing_of_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        in_root_of(&[("d", dir.path(), Access::Write)], || {
            assert_eq!(std::fs::read_to_string("/d/f").unwrap(), "x");
            assert!(!Path::new("/d/out/passwd").exists());
            assert!(!Path::new("/etc").exists());
        })
        .unwrap();
        assert!(Path::new("/etc").exists());
    }
}
