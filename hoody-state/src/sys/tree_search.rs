//! Searches of the trees of a BTRFS file system: `BTRFS_IOC_TREE_SEARCH_V2`.
//!
//! `btrfs-uapi` has this search too. But its version 0.13 writes to freed memory after a buffer was too small for an item, it allocates and clears a buffer for
//! every search, and it ends every search with one more call of the kernel than needed.
#![allow(unsafe_code)]

use btrfs_uapi::raw::{btrfs_ioc_tree_search_v2, btrfs_ioctl_search_args_v2, btrfs_ioctl_search_header};
pub(crate) use btrfs_uapi::tree_search::{Key, SearchFilter, SearchHeader};
use nix::Result;
use nix::errno::Errno;
use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The largest item with its header fits into so many bytes: no block of a tree is larger.
const LARGEST_ITEM: usize = 64 << 10;
/// What one call of the kernel fills at most.
const BUFFER: usize = 2 * LARGEST_ITEM;
const ARGS: usize = size_of::<btrfs_ioctl_search_args_v2>();
const HEADER: usize = size_of::<btrfs_ioctl_search_header>();
/// So many items come from one call at most, if the caller does not say.
const ITEMS: u32 = 4096;

thread_local! {
    /// Kept for the next search of the thread. In words, because the arguments must be aligned.
    static KEPT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with each item of the range, in ascending order of keys, until it returns an error, which is returned. `at_most`: so many items are read ahead.
///
/// The range is one of compound keys: items of any type between its ends come too.
///
/// # Errors
/// ENOENT if the tree does not exist, and others of the kernel.
pub(crate) fn tree_search(fd: BorrowedFd<'_>, filter: &SearchFilter, at_most: Option<u32>, f: impl FnMut(&SearchHeader, &[u8]) -> Result<()>) -> Result<()> {
    // Taken, so that `f` may search too.
    let mut buffer = KEPT.take();
    buffer.resize((ARGS + BUFFER).div_ceil(size_of::<u64>()), 0);
    let done = search(fd, filter, at_most.unwrap_or(ITEMS).max(1), &mut buffer, f);
    KEPT.replace(buffer);
    done
}

fn search(fd: BorrowedFd<'_>, filter: &SearchFilter, items: u32, buffer: &mut [u64], mut f: impl FnMut(&SearchHeader, &[u8]) -> Result<()>) -> Result<()> {
    let mut from = filter.start;
    loop {
        let found = call(fd, filter, from, items, buffer)?;
        // SAFETY: the slice has `buffer`'s bytes, any of which are valid as u8, for as long as `buffer` is borrowed here.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), size_of_val(buffer)) };
        let mut rest = bytes.get(ARGS..ARGS + BUFFER).ok_or(Errno::EOVERFLOW)?;
        let mut last = None;
        for _ in 0..found {
            let (head, behind) = rest.split_at_checked(HEADER).ok_or(Errno::EOVERFLOW)?;
            // SAFETY: `head` has the length of the header, which is integers only; it need not be aligned.
            let raw = unsafe { head.as_ptr().cast::<btrfs_ioctl_search_header>().read_unaligned() };
            let header = SearchHeader { transid: raw.transid, objectid: raw.objectid, offset: raw.offset, item_type: raw.type_, len: raw.len };
            let (data, behind) = behind.split_at_checked(header.len as usize).ok_or(Errno::EOVERFLOW)?;
            f(&header, data)?;
            last = Some(Key { objectid: header.objectid, item_type: header.item_type, offset: header.offset });
            rest = behind;
        }
        // A call that had room for more items, whatever their size, has reached the end.
        let ended = found < items && rest.len() >= LARGEST_ITEM;
        match last.and_then(after) {
            Some(next) if !ended && order(next) <= order(filter.end) => from = next,
            _ => return Ok(()),
        }
    }
}

/// One call: how many items it put into the buffer.
fn call(fd: BorrowedFd<'_>, filter: &SearchFilter, from: Key, items: u32, buffer: &mut [u64]) -> Result<u32> {
    if size_of_val(buffer) < ARGS + BUFFER {
        return Err(Errno::EOVERFLOW);
    }
    let args = buffer.as_mut_ptr().cast::<btrfs_ioctl_search_args_v2>();
    // SAFETY: `buffer` is aligned for the arguments (both to 8 bytes), holds them and `buf_size` bytes behind them, and is borrowed alone during the call.
    // All fields are integers.
    unsafe {
        let key = &mut (*args).key;
        key.tree_id = filter.tree_id;
        (key.min_objectid, key.min_type, key.min_offset) = (from.objectid, from.item_type, from.offset);
        (key.max_objectid, key.max_type, key.max_offset) = (filter.end.objectid, filter.end.item_type, filter.end.offset);
        (key.min_transid, key.max_transid) = (filter.min_transid, filter.max_transid);
        key.nr_items = items;
        (*args).buf_size = BUFFER as u64;
        btrfs_ioc_tree_search_v2(fd.as_raw_fd(), args)?;
        Ok((*args).key.nr_items)
    }
}

/// The type is one byte on the disk, so `u32::MAX` means the last.
fn order(key: Key) -> (u64, u32, u64) {
    (key.objectid, key.item_type.min(255), key.offset)
}

/// The key that follows.
fn after(key: Key) -> Option<Key> {
    if let Some(offset) = key.offset.checked_add(1) {
        return Some(Key { offset, ..key });
    }
    if key.item_type < 255 {
        return Some(Key { item_type: key.item_type + 1, offset: 0, ..key });
    }
    key.objectid.checked_add(1).map(|objectid| Key { objectid, item_type: 0, offset: 0 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const FS_TREE: u64 = 5;
    const INODE_REF: u32 = 12;
    const XATTR: u32 = 24;

    /// A file system with blocks of a size, mounted.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        fn new(node: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("image");
            File::create(&image).unwrap().set_len(256 << 20).unwrap();
            run(Command::new("mkfs.btrfs").args(["-q", "-n", node]).arg(&image));
            std::fs::create_dir(dir.path().join("mnt")).unwrap();
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.path().join("mnt")));
            Mounted(dir)
        }

        fn root(&self) -> PathBuf {
            self.0.path().join("mnt")
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            run(Command::new("umount").arg(self.root()));
        }
    }

    fn run(command: &mut Command) {
        assert!(command.status().unwrap().success(), "{command:?}");
    }

    fn all(root: &Path, (start, end): (Key, Key), at_most: Option<u32>) -> Vec<(Key, Vec<u8>)> {
        let filter = SearchFilter { tree_id: FS_TREE, start, end, min_transid: 0, max_transid: u64::MAX };
        let mut found = Vec::new();
        tree_search(File::open(root).unwrap().as_fd(), &filter, at_most, |item, data| {
            assert_eq!(item.len as usize, data.len());
            found.push((Key { objectid: item.objectid, item_type: item.item_type, offset: item.offset }, data.to_vec()));
            Ok(())
        })
        .unwrap();
        found
    }

    fn everything(root: &Path, at_most: Option<u32>) -> Vec<(Key, Vec<u8>)> {
        all(root, (Key::MIN, Key::MAX), at_most)
    }

    /// Items that nearly fill a block, of each size of blocks that the kernel mounts.
    #[test]
    fn the_largest_items_of_every_size_of_blocks_are_read() {
        for (node, size) in [("4096", 4096usize), ("16384", 16384), ("32768", 32768), ("65536", 65536)] {
            let fs = Mounted::new(node);
            let root = fs.root();
            let file = root.join("file");
            std::fs::write(&file, "content").unwrap();
            // As long as the kernel takes it.
            let value = (1..=size)
                .rev()
                .map(|len| vec![7; len])
                .find(|value| rustix::fs::setxattr(&file, "user.large", value, rustix::fs::XattrFlags::empty()).is_ok());
            let value = value.unwrap();
            assert!(value.len() > size - 300, "{node}: {} bytes", value.len());
            let links = (size / 300).min(200);
            for n in 0..links {
                std::fs::hard_link(&file, root.join(format!("{n:0>250}"))).unwrap();
            }
            for n in 0..500 {
                std::fs::write(root.join(format!("small {n}")), "x").unwrap();
            }
            btrfs_uapi::filesystem::sync(File::open(&root).unwrap().as_fd()).unwrap();
            let found = everything(&root, None);
            assert!(found.is_sorted_by(|a, b| order(a.0) < order(b.0)), "{node}: an item came twice, or out of order");
            assert!(found.iter().any(|(key, data)| key.item_type == XATTR && data.ends_with(&value)), "{node}: the attribute");
            let names: usize = found.iter().filter(|(key, data)| key.item_type == INODE_REF && data.len() > links * 250).count();
            assert_eq!(names, 1, "{node}: the names of the file in one item");
            assert_eq!(found.iter().filter(|(key, _)| key.item_type == 1).count(), 502, "{node}: the inodes");
            for at_most in [1, 7, 4096] {
                assert_eq!(everything(&root, Some(at_most)), found, "{node}: {at_most} at a time");
            }
            let key = |item_type| Key { objectid: 257, item_type, offset: 0 };
            let some: Vec<_> = found.iter().filter(|(k, _)| k.objectid == 257 && k.item_type < XATTR).cloned().collect();
            assert_eq!(all(&root, (key(0), key(XATTR)), None), some, "{node}: a range ends where it ends");
        }
    }

    #[test]
    fn a_search_within_a_search_an_early_end_and_a_tree_that_does_not_exist() {
        let fs = Mounted::new("4096");
        let root = fs.root();
        for n in 0..50 {
            std::fs::write(root.join(format!("{n}")), "x").unwrap();
        }
        btrfs_uapi::filesystem::sync(File::open(&root).unwrap().as_fd()).unwrap();
        let expected = everything(&root, None);
        let open = File::open(&root).unwrap();
        let mut filter = SearchFilter { tree_id: FS_TREE, start: Key::MIN, end: Key::MAX, min_transid: 0, max_transid: u64::MAX };
        let mut seen = 0;
        let ended = tree_search(open.as_fd(), &filter, None, |_, _| {
            seen += 1;
            if seen == 3 {
                return Err(Errno::ECANCELED);
            }
            assert_eq!(everything(&root, None), expected);
            Ok(())
        });
        assert_eq!((ended, seen), (Err(Errno::ECANCELED), 3));
        filter.tree_id = 1 << 40;
        assert_eq!(tree_search(open.as_fd(), &filter, None, |_, _| Ok(())), Err(Errno::ENOENT));
    }
}
