//! The content of files: by their extents, or byte by byte.

use super::items::Tree;
use crate::diff::extents::{Changed, Extent, compare as compare_extents};
use crate::diff::object::Object;
use crate::diff::options::Options;
use crate::error::{IoContext, Result};
use crate::snapshot::btrfs::apply::open_beneath;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// The extents of a file: those that were read with it, or all of them in pieces.
struct Extents<'a> {
    tree: Tree<'a>,
    ino: u64,
    read: std::vec::IntoIter<Extent>,
    next: Option<u64>,
}

impl<'a> Extents<'a> {
    fn of(tree: Tree<'a>, object: &Object) -> Self {
        let read = if object.more_extents { Vec::new() } else { object.extents.clone() };
        Extents { tree, ino: object.ino, read: read.into_iter(), next: object.more_extents.then_some(0) }
    }

    fn next(&mut self) -> Result<Option<Extent>> {
        loop {
            if let Some(extent) = self.read.next() {
                return Ok(Some(extent));
            }
            let Some(from) = self.next else { return Ok(None) };
            let read = self.tree.extents(self.ino, from)?;
            self.next = read.last().and_then(|e| e.start.checked_add(1));
            self.read = read.into_iter();
        }
    }
}

/// How a file in one tree differs from one in another.
pub(super) fn compare((old_tree, old): (Tree<'_>, &Object), (new_tree, new): (Tree<'_>, &Object)) -> Result<Changed> {
    let (mut a, mut b) = (Extents::of(old_tree, old), Extents::of(new_tree, new));
    compare_extents((&mut || a.next(), old.size), (&mut || b.next(), new.size))
}

/// The bytes of data in a file.
pub(super) fn compare_with_nothing(tree: Tree<'_>, object: &Object) -> Result<u64> {
    let mut b = Extents::of(tree, object);
    Ok(compare_extents((&mut || Ok(None), 0), (&mut || b.next(), object.size))?.bytes)
}

/// Whether two regular files have the same bytes. Files that cannot be opened by their paths (longer than 4,095 bytes) do not.
pub(super) fn same_bytes(old: (BorrowedFd<'_>, &[u8]), new: (BorrowedFd<'_>, &[u8]), options: &Options<'_>) -> Result<bool> {
    let open = |(root, path): (BorrowedFd<'_>, &[u8])| open_beneath(root, path, OFlags::RDONLY | OFlags::NONBLOCK).ok().map(File::from);
    let (Some(mut a), Some(mut b)) = (open(old), open(new)) else { return Ok(false) };
    let (mut x, mut y) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        options.check()?;
        let what = || "read a file that is compared";
        let n = a.read(&mut x).io(what)?;
        if n == 0 {
            return Ok(b.read(&mut y[..1]).io(what)? == 0);
        }
        if b.read_exact(&mut y[..n]).is_err() || x[..n] != y[..n] {
            return Ok(false);
        }
    }
}

/// The root of a tree, to open files beneath it.
pub(super) fn root(tree: Tree<'_>) -> Result<Option<std::os::fd::OwnedFd>> {
    crate::snapshot::btrfs::nested::open_root(tree.mount.as_fd(), tree.id)
}
