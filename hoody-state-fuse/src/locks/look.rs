//! What the broker can look up about a file. Each look-up is one positional read, at most once in a decision.

use super::{Class, FileId, LockedFile};
use crate::recognise::{Content, content};
use hoody_state::locked_db::broker::{LockKind, Range, Stamp, View, rules};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, PoisonError, Weak};

/// Reads up to `buf.len()` bytes at `at` and returns how many there were.
fn read_at(file: &LockedFile, buf: &mut [u8], at: u64) -> usize {
    rustix::io::pread(&file.fd, buf, at).unwrap_or(0)
}

/// A plain file that is locked in the way of SQLite is a database, if it is empty or has the header.
pub(super) fn notice_database(file: &LockedFile, range: Range) {
    if file.class() == Class::Plain && range.within(rules::DATABASE) && content(&file.fd) != Content::Other {
        file.set_class(Class::Database);
    }
}

/// Moves a read mark to the end of the WAL after a commit. Otherwise the next reader would lock a mark exclusively for that, with two round trips. A mark that
/// nobody holds is used: `take` locks it, also against processes that use the backing directory. The caller has locked the table, so nobody can take it
/// meanwhile. Layout: `wal.c`, `WalIndexHdr` twice, then `WalCkptInfo`.
pub(super) fn move_read_mark(file: &LockedFile, take: impl Fn(Range) -> bool) {
    let mut index = [0; 120];
    if read_at(file, &mut index, 0) != index.len() || index[..48] != index[48..96] || index[12] != 1 {
        return;
    }
    let word = |at: usize| index.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let end = word(16);
    let mark = |i: usize| word(100 + 4 * i);
    if end == 0 || (1..5).any(|i| mark(i) == end) {
        return;
    }
    let lock = |i: usize| Range::byte(rules::READ.start + i as u64);
    if let Some(i) = (1..5).find(|i| take(lock(*i))) {
        // If this fails, the next reader moves a mark itself.
        let _ = rustix::io::pwrite(&file.fd, &end.to_ne_bytes(), 100 + 4 * i as u64);
        file.allow_others(lock(i), &[]);
    }
}

/// The view of the files in one decision.
pub(super) struct Look<'a> {
    files: &'a HashMap<FileId, Weak<LockedFile>>,
    wal: RefCell<Vec<(FileId, bool)>>,
    stamps: RefCell<Vec<(FileId, Stamp)>>,
}

impl<'a> Look<'a> {
    pub fn new(files: &'a HashMap<FileId, Weak<LockedFile>>) -> Self {
        Look { files, wal: RefCell::default(), stamps: RefCell::default() }
    }

    fn file(&self, id: FileId) -> Option<Arc<LockedFile>> {
        self.files.get(&id)?.upgrade()
    }
}

/// The remembered value for `id`; else it is looked up.
fn once<T: Copy>(memo: &RefCell<Vec<(FileId, T)>>, id: FileId, look: impl FnOnce() -> T) -> T {
    let known = memo.borrow().iter().find(|(i, _)| *i == id).map(|(_, v)| *v);
    known.unwrap_or_else(|| {
        let value = look();
        memo.borrow_mut().push((id, value));
        value
    })
}

impl View for Look<'_> {
    fn keep_others_out(&self, id: FileId, range: Range, kind: LockKind) -> bool {
        self.file(id).is_none_or(|file| file.keep_others_out(range, kind))
    }

    fn others_hold(&self, id: FileId, range: Range) -> bool {
        self.file(id).is_some_and(|file| file.in_the_way(range, LockKind::Write).is_some())
    }

    fn allow_others(&self, id: FileId, range: Range, left: &[(Range, LockKind)]) {
        if let Some(file) = self.file(id) {
            file.allow_others(range, left);
        }
    }

    fn is_wal(&self, id: FileId) -> bool {
        once(&self.wal, id, || {
            let Some(file) = self.file(id) else { return false };
            let mut versions = [0; 2];
            read_at(&file, &mut versions, 18) == 2 && versions == [2, 2]
        })
    }

    fn has_hot_journal(&self, id: FileId) -> bool {
        let Some(file) = self.file(id) else { return false };
        let place = file.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((directory, mut name)) = place else { return false };
        name.push("-journal");
        let Ok(meta) = rustix::fs::statat(directory.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        if meta.st_size == 0 || rustix::fs::FileType::from_raw_mode(meta.st_mode) != rustix::fs::FileType::RegularFile {
            return false;
        }
        let Ok(journal) = rustix::fs::openat(directory.as_fd(), &name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        else {
            return true;
        };
        let mut first = [0; 1];
        rustix::io::pread(&journal, &mut first, 0).unwrap_or(0) == 1 && first[0] != 0
    }

    fn stamp(&self, id: FileId) -> Stamp {
        once(&self.stamps, id, || {
            let Some(file) = self.file(id) else { return 0 };
            let mut header = [0; 48];
            let n = read_at(&file, &mut header, 0);
            let mut hash = DefaultHasher::new();
            hash.write(header.get(..n).unwrap_or_default());
            hash.finish()
        })
    }
}
