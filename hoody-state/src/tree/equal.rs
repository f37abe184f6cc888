//! Comparing what has two names.

use super::attributes::{Attributes, By};
use super::node::{Kind, Node};
use super::path::TreePath;
use super::root::{Last, Root};
use crate::error::{IoContext, Result};
use std::io::Read;
use std::os::fd::AsFd;

/// How much is compared at a time.
const PIECE: usize = 1 << 20;
/// Larger files are not read: they count as different, as nobody would wait for the answer. A sparse file costs nothing and may be of any size.
const MOST: u64 = 1 << 30;

/// Whether what stands at two paths is equal: type, owner, mode, extended attributes and content, but not times. Links are not followed. Directories are
/// compared without what is in them; of devices the numbers count. Files of more than 1 GiB are taken for different. Cost: two files of one size are read as far
/// as they are equal.
///
/// # Errors
/// `file_not_found`, `not_a_directory`, those of the system calls.
pub fn equal(a: (&Root, &TreePath), b: (&Root, &TreePath)) -> Result<bool> {
    let (x, y) = (a.0.find(a.1, Last::Keep)?, b.0.find(b.1, Last::Keep)?);
    let of = |n: &Node| (n.meta.kind, n.meta.mode, n.meta.uid, n.meta.gid, n.meta.special);
    if of(&x) != of(&y) || !Attributes::of(By::Path(x.as_fd()))?.same_named(&Attributes::of(By::Path(y.as_fd()))?) {
        return Ok(false);
    }
    match x.meta.kind {
        Kind::File if x.meta.size != y.meta.size || x.meta.size > MOST => Ok(false),
        Kind::File => same_content(x.open_file(a.1)?, y.open_file(b.1)?),
        Kind::Symlink => Ok(x.target()? == y.target()?),
        _ => Ok(true),
    }
}

fn same_content(mut a: impl Read, mut b: impl Read) -> Result<bool> {
    let (mut x, mut y) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        x.clear();
        y.clear();
        (&mut a).take(PIECE as u64).read_to_end(&mut x).io(|| "read a file that is compared")?;
        (&mut b).take(PIECE as u64).read_to_end(&mut y).io(|| "read a file that is compared")?;
        if x != y || x.is_empty() {
            return Ok(x == y);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;

    /// A sparse file takes no room, and reading it takes for ever.
    #[test]
    fn files_that_nobody_would_wait_for_are_different() {
        let dir = tempfile::tempdir().unwrap();
        let (small, huge) = (TreePath::new(b"small").unwrap(), TreePath::new(b"huge").unwrap());
        for (name, size) in [("small", 1 << 20), ("huge", i64::MAX as u64 / 4)] {
            let Ok(()) = File::create(dir.path().join(name)).unwrap().set_len(size) else {
                File::create(dir.path().join(name)).unwrap().set_len(MOST + 1).unwrap();
                continue;
            };
        }
        let root = Root::new(File::open(dir.path()).unwrap().into());
        assert!(equal((&root, &small), (&root, &small)).unwrap());
        assert!(!equal((&root, &huge), (&root, &huge)).unwrap());
        assert!(!equal((&root, &small), (&root, &huge)).unwrap());
    }
}
