//! Keeps two changes of the pool in order through a power cut, without waiting for the disk.
//!
//! BTRFS writes changes in transactions, one after the other, and each is all or nothing. `fsync` is the exception: it writes the *log* of a subvolume, a part of
//! the transaction that has not ended yet, which the next mount replays. A program in a container may call `fsync` at any time. If it syncs a directory in which
//! a copy has just been given a name, the log has the name and the inode, but none of the copy's data: after a power cut the file is empty.
//!
//! The kernel writes no log in a transaction in which a subvolume was renamed: each `fsync` in it commits the transaction instead. So for a change A,
//! [`BtrfsStore::barrier`], and a change B, in this order:
//! - If A and B are in one transaction, the rename is in it too. No log has B, and the disk has both changes or neither.
//! - Otherwise A is in an earlier transaction than B. It is on the disk before anything of B.
//!
//! What programs wrote into the file system without `fsync` is not part of a transaction until the kernel has written it out. Whoever copies data rather than
//! share extents must `fsync` the copy before the barrier.
//!
//! Cost: one rename, tens of microseconds; the first time a subvolume is made, which commits a transaction. Until the transaction has ended, an `fsync` takes as
//! long as a commit, for all containers of the pool.

use super::BtrfsStore;
use crate::error::{Error, IoContext, Result};
use crate::pool::layout;
use crate::sys::fs::open_dir_at;
use btrfs_uapi::subvolume;
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use std::os::fd::AsFd;
use std::path::Path;

/// One of these is an empty subvolume, the other an empty directory. Each barrier exchanges them.
const NAMES: [&str; 2] = ["a", "b"];

impl BtrfsStore {
    /// No power cut keeps a change that is made after this call and loses one that was made before it. Neither is durable yet.
    pub(super) fn barrier(&self) -> Result<()> {
        let dir = Path::new(layout::BARRIER);
        let [a, b] = NAMES.map(|name| dir.join(name));
        let exchange = || renameat2(&self.root, &a, &self.root, &b, RenameFlags::RENAME_EXCHANGE);
        let done = match exchange() {
            Err(Errno::ENOENT) => {
                self.make_dir(dir)?;
                let open = open_dir_at(&self.root, dir).io(|| "open the directory of the barrier")?;
                // The subvolume first: if both names exist, one of them is the subvolume.
                match subvolume::subvolume_create(open.as_fd(), c"a", &[]) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(Error::io("make the subvolume of the barrier", e)),
                }
                self.make_dir(&b)?;
                exchange()
            }
            done => done,
        };
        done.map_err(|e| Error::io("put changes of the pool in order", e))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::id::{ContainerId, OperationId};
    use crate::pool::testing::LoopPool;
    use crate::snapshot::{FilesRequest, SnapshotStore, Volume};
    use crate::tree::TreePath;
    use crate::tree::staged::Options;
    use std::fs::File;
    use std::io::Write;

    const FILES: [&str; 6] = ["srv/f", "srv/t/a", "srv/t/b", "srv/d/a", "srv/d/b", "other"];

    fn write_all(live: &Path, text: &str, times: usize) {
        for file in FILES {
            std::fs::write(live.join(file), text.repeat(times)).unwrap();
        }
    }

    /// A power cut right after a program in the container has synced something near what was just placed.
    #[test]
    fn a_log_that_a_container_writes_keeps_no_name_without_its_data() {
        let mut pool = LoopPool::new();
        let c = ContainerId::generate();
        let (live, snapshot) = (Volume::Live(c.clone()), Volume::Snapshot(c.clone(), "s".parse().unwrap()));
        let mut store = pool.store();
        store.create_home(&c).unwrap();
        store.create(&live).unwrap();
        let root = store.path(&live).unwrap();
        for dir in ["srv/t", "srv/d"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        write_all(&root, "old ", 50_000);
        store.snapshot(&live, &snapshot, &OperationId::generate()).unwrap();
        for synced in ["srv", "srv/f", "srv/t", "srv/t/a", "srv/d", "srv/d/b", "", "other"] {
            write_all(&root, "new ", 60_000);
            btrfs_uapi::filesystem::sync(File::open(pool.root()).unwrap().as_fd()).unwrap();
            let ops = [OperationId::generate(), OperationId::generate()];
            for (op, (paths, delete_new)) in ops.iter().zip([(&["srv/f", "srv/t"][..], false), (&["srv/d"][..], true)]) {
                let options = Options { delete_new, ..Options::default() };
                let request = FilesRequest { from: &snapshot, into: &live, staging: op, options, allow: &|_| Ok(()), go_on: &|| Ok(()) };
                let mut staged = store.stage_files(request).unwrap();
                for path in paths {
                    let number = staged.stage(&TreePath::new(path.as_bytes()).unwrap()).unwrap();
                    staged.place(number).unwrap();
                }
            }
            File::options().append(true).open(root.join("other")).unwrap().write_all(b"more").unwrap();
            File::open(root.join(synced)).unwrap().sync_all().unwrap();
            drop(store);
            pool.cut_power();
            store = pool.store();
            ops.iter().for_each(|op| store.settle_files(&live, op).unwrap());
            let is_old = |file: &str| match std::fs::read_to_string(root.join(file)).unwrap() {
                text if text == "old ".repeat(50_000) => true,
                text if text == "new ".repeat(60_000) => false,
                text => panic!("{file} has {} bytes after {synced:?} was synced", text.len()),
            };
            is_old("srv/f");
            for dir in ["srv/t", "srv/d"] {
                assert_eq!(is_old(&format!("{dir}/a")), is_old(&format!("{dir}/b")), "{dir} is half done after {synced:?} was synced");
            }
            assert!(!std::fs::read_dir(&root).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".hoody")), "left over");
        }
    }
}
