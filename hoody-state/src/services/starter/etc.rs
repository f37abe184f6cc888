//! `/etc/hosts` and `/etc/hostname`: what a container needs to find `localhost` and itself.
//!
//! Both are ordinary files of the container's volume, looked at before each start. So they are in snapshots, restores and copies, and what somebody adds in the
//! container stays. `/etc/hostname` is made the container's name. `/etc/hosts` is written where the image has none or an empty one, with a marked line for the
//! container's own name. That line follows the name, so that a copy finds itself under its own; without the mark the file is the image's own
//! and is left as it is. Links and what is no ordinary file are left alone too.

use crate::error::{IoContext, Result};
use crate::services::dirs::ContainerDirs;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Ends the line of `/etc/hosts` that the server keeps right.
const MARK: &str = "# this container; kept by the server";
/// A larger file is not looked at.
const MOST: u64 = 256 << 10;

/// What `/etc/hosts` shall say; `None`: it is right, or the image's own.
fn hosts(now: &str, hostname: &str) -> Option<String> {
    let own = format!("127.0.1.1\t{hostname}\t{MARK}");
    if now.trim().is_empty() {
        return Some(format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}\n"));
    }
    let marked = |line: &str| line.trim_end().ends_with(MARK);
    if !now.lines().any(|l| marked(l) && l != own) {
        return None;
    }
    Some(now.lines().map(|l| if marked(l) { own.as_str() } else { l }).flat_map(|l| [l, "\n"]).collect())
}

/// What `/etc/hostname` shall say; `None`: it is right.
fn hostname_file(now: &str, hostname: &str) -> Option<String> {
    (now.trim() != hostname).then(|| format!("{hostname}\n"))
}

/// Puts both files right in the volume of a container that is about to start. A start does not fail for it: a full volume, say, is no reason to.
pub(super) fn put_right(dirs: ContainerDirs, root: &Path, hostname: &str) {
    let done = dirs.open_or_make(root, &["etc"]).and_then(|etc| {
        let Some(etc) = etc else { return Ok(()) };
        rewrite(dirs, &etc, "hosts", |now| hosts(now, hostname))?;
        rewrite(dirs, &etc, "hostname", |now| hostname_file(now, hostname))
    });
    if let Err(e) = done {
        tracing::warn!(root = %root.display(), error = %e, "/etc/hosts and /etc/hostname could not be put right");
    }
}

/// Replaces the content of a file in an open directory, if `f` says so. A file that is not there is empty, and made.
fn rewrite(dirs: ContainerDirs, dir: &OwnedFd, name: &str, f: impl Fn(&str) -> Option<String>) -> Result<()> {
    let what = || format!("write /etc/{name}");
    let open = |flags| rustix::fs::openat2(dir, name, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS);
    // A pipe in its place does not hold us up.
    let found = match open(OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
        Ok(fd) => Some(File::from(fd)),
        Err(rustix::io::Errno::NOENT) => None,
        // A link, a directory, a socket, a program that runs.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO | rustix::io::Errno::TXTBSY) => return Ok(()),
        Err(e) => return Err(e).io(what),
    };
    let mut now = String::new();
    if let Some(file) = &found {
        let meta = file.metadata().io(what)?;
        // Not text: somebody's own.
        if !meta.is_file() || meta.len() > MOST || file.take(MOST).read_to_string(&mut now).is_err() {
            return Ok(());
        }
    }
    let Some(text) = f(&now) else { return Ok(()) };
    let mut file = match found {
        Some(file) => file,
        None => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).io(what)?;
            dirs.give(fd.as_fd(), 0o644).io(what)?;
            File::from(fd)
        }
    };
    file.rewind().io(what)?;
    file.write_all(text.as_bytes()).io(what)?;
    file.set_len(text.len() as u64).io(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_hosts_file_is_filled_and_the_images_own_is_kept() {
        let made = hosts("", "dev").unwrap();
        assert!(made.starts_with("127.0.0.1\tlocalhost\n") && made.contains("\n127.0.1.1\tdev\t#"), "{made}");
        assert_eq!(hosts(&made, "dev"), None, "it is right");
        assert_eq!(hosts("127.0.0.1 localhost\n", "dev"), None, "the image's own");
        let added = format!("{made}10.0.0.1 db\n");
        assert_eq!(hosts(&added, "dev"), None, "what was added stays");
        let copy = hosts(&added, "copy").unwrap();
        assert_eq!(copy, added.replace("\tdev\t", "\tcopy\t"));
    }

    #[test]
    fn the_hostname_is_the_containers() {
        assert_eq!(hostname_file("", "dev").unwrap(), "dev\n");
        assert_eq!(hostname_file("dev\n", "dev"), None);
        assert_eq!(hostname_file("debian\n", "dev").unwrap(), "dev\n");
    }
}
