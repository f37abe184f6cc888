//! Sorts records by path in bounded memory: what does not fit is kept as sorted runs in a temporary file without a name.

use super::{Field, FileType, Inode, Kind, Record};
use crate::error::{Code, Error, IoContext, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What is kept in memory before a run is written.
const RUN_BYTES: usize = 16 << 20;
/// The most that is written to a temporary file.
const MOST_SPILLED: u64 = 2 << 30;
/// What is read of a run at a time.
const READ_BYTES: usize = 64 << 10;

/// A record, and the volume that its inode is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// It.
    pub record: Record,
    /// The volume's number.
    pub volume: u64,
    /// The directory that `path` is in; zeros where it does not matter.
    pub parent: Dir,
    /// The same for `from` of a renamed object, in the old tree.
    pub from_parent: Dir,
}

/// A directory: its volume's number and its inode number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dir {
    /// The volume.
    pub volume: u64,
    /// The inode.
    pub ino: u64,
}

impl Entry {
    fn key(&self) -> (&[u8], bool) {
        (&self.record.path, self.record.kind != Kind::Deleted)
    }

    fn size(&self) -> usize {
        let from = if let Kind::Renamed { from } = &self.record.kind { from.len() } else { 0 };
        size_of::<Entry>() + self.record.path.len() + from + self.record.link_of.as_ref().map_or(0, Vec::len) + self.record.fields.len() * 48
    }
}

/// Takes records in any order.
#[derive(Default)]
pub struct Sorter {
    entries: Vec<Entry>,
    bytes: usize,
    run_bytes: Option<usize>,
    spilled: Option<File>,
    written: u64,
    /// Where each run begins and ends in the file.
    runs: Vec<(u64, u64)>,
}

impl Sorter {
    /// One that keeps less in memory.
    #[must_use]
    pub fn with_run_bytes(bytes: usize) -> Self {
        Sorter { run_bytes: Some(bytes), ..Sorter::default() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        self.bytes += entry.size();
        self.entries.push(entry);
        if self.bytes > self.run_bytes.unwrap_or(RUN_BYTES) {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        if self.written > MOST_SPILLED {
            return Err(Error::new(Code::DiffTooLarge, "the names that differ take more than 2 GiB: ask for a path"));
        }
        let what = || format!("write records of a diff to {}", std::env::temp_dir().display());
        self.entries.sort_by(|x, y| x.key().cmp(&y.key()));
        if self.spilled.is_none() {
            let file = File::options().read(true).write(true).custom_flags(nix::libc::O_TMPFILE).mode(0o600).open(std::env::temp_dir());
            self.spilled = Some(file.io(what)?);
        }
        let Some(file) = &mut self.spilled else { return Ok(()) };
        let start = self.written;
        let mut out = std::io::BufWriter::with_capacity(READ_BYTES, file);
        let mut text = Vec::new();
        for entry in self.entries.drain(..) {
            text.clear();
            encode(&entry, &mut text);
            let len = u32::try_from(text.len()).map_err(|_| Error::internal("a record of a diff is too long"))?;
            out.write_all(&len.to_le_bytes()).and_then(|()| out.write_all(&text)).io(what)?;
            self.written += 4 + text.len() as u64;
        }
        out.flush().io(what)?;
        self.runs.push((start, self.written));
        self.bytes = 0;
        Ok(())
    }

    /// All of them, sorted by path; of one path `Deleted` first.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn sorted(mut self) -> Result<Sorted> {
        self.entries.sort_by(|x, y| x.key().cmp(&y.key()));
        let mut runs: Vec<Run> = self.runs.iter().map(|(start, end)| Run { at: *start, end: *end, buffer: Vec::new(), used: 0 }).collect();
        let mut heads = BinaryHeap::new();
        for (i, run) in runs.iter_mut().enumerate() {
            if let (Some(file), true) = (&self.spilled, true) {
                heads.extend(run.next(file)?.map(|e| Reverse(Head(e, i))));
            }
        }
        let mut memory = self.entries.into_iter();
        heads.extend(memory.next().map(|e| Reverse(Head(e, usize::MAX))));
        Ok(Sorted { memory, file: self.spilled, runs, heads })
    }
}

struct Head(Entry, usize);

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.key(), self.1).cmp(&(other.0.key(), other.1))
    }
}

struct Run {
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Run {
    fn next(&mut self, file: &File) -> Result<Option<Entry>> {
        if self.used == self.buffer.len() && self.at == self.end {
            return Ok(None);
        }
        let len = u32::from_le_bytes(self.take(file, 4)?.try_into().unwrap_or_default()) as usize;
        let entry = decode(self.take(file, len)?);
        entry.map(Some).ok_or_else(|| Error::internal("the temporary file of a diff was changed"))
    }

    fn take(&mut self, file: &File, len: usize) -> Result<&[u8]> {
        if self.buffer.len() - self.used < len {
            self.buffer.drain(..self.used);
            self.used = 0;
            let have = self.buffer.len();
            let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(READ_BYTES.max(len) - have);
            self.buffer.resize(have + want, 0);
            file.read_exact_at(&mut self.buffer[have..], self.at).io(|| "read the temporary file of a diff")?;
            self.at += want as u64;
        }
        let taken = self.buffer.get(self.used..self.used + len).ok_or_else(|| Error::internal("the temporary file of a diff is too short"))?;
        self.used += len;
        Ok(taken)
    }
}

/// The sorted records. Reads each run in pieces.
pub struct Sorted {
    memory: std::vec::IntoIter<Entry>,
    file: Option<File>,
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<Head>>,
}

impl Sorted {
    /// The next one.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn pop(&mut self) -> Result<Option<Entry>> {
        let Some(Reverse(Head(entry, from))) = self.heads.pop() else { return Ok(None) };
        let next = match (self.runs.get_mut(from), &self.file) {
            (Some(run), Some(file)) => run.next(file)?,
            _ => self.memory.next(),
        };
        self.heads.extend(next.map(|e| Reverse(Head(e, from))));
        Ok(Some(entry))
    }

    /// The path of the next one.
    #[must_use]
    pub fn peek(&self) -> Option<&[u8]> {
        self.heads.peek().map(|Reverse(Head(e, _))| e.record.path.as_slice())
    }
}

const TYPES: [FileType; 8] = [
    FileType::File,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::CharDevice,
    FileType::BlockDevice,
    FileType::Subvolume,
];

fn type_number(t: FileType) -> u8 {
    TYPES.iter().position(|x| *x == t).and_then(|n| u8::try_from(n).ok()).unwrap_or_default()
}

fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let r = &entry.record;
    let bytes = |out: &mut Vec<u8>, b: &[u8]| {
        out.extend((b.len() as u64).to_le_bytes());
        out.extend(b);
    };
    let (to, from) = (entry.parent, entry.from_parent);
    for n in [entry.volume, to.volume, to.ino, from.volume, from.ino, r.inode.ino, r.inode.generation, r.bytes] {
        out.extend(n.to_le_bytes());
    }
    out.extend([type_number(r.file_type), u8::from(r.content), r.replaces.map_or(u8::MAX, type_number)]);
    let (kind, from, types): (u8, &[u8], [u8; 2]) = match &r.kind {
        Kind::Deleted => (0, b"", [0, 0]),
        Kind::Added => (1, b"", [0, 0]),
        Kind::Modified => (2, b"", [0, 0]),
        Kind::Metadata => (3, b"", [0, 0]),
        Kind::Renamed { from } => (4, from, [0, 0]),
        Kind::TypeChanged { from, to } => (5, b"", [type_number(*from), type_number(*to)]),
    };
    out.extend([kind, types[0], types[1]]);
    out.push(u8::from(r.link_of.is_some()));
    bytes(out, &r.path);
    bytes(out, from);
    bytes(out, r.link_of.as_deref().unwrap_or_default());
    for field in &r.fields {
        let (number, name): (u8, &[u8]) = match field {
            Field::Mode => (0, b""),
            Field::Uid => (1, b""),
            Field::Gid => (2, b""),
            Field::Mtime => (3, b""),
            Field::Atime => (4, b""),
            Field::Flags => (5, b""),
            Field::Device => (6, b""),
            Field::Acl => (7, b""),
            Field::DefaultAcl => (8, b""),
            Field::Xattr(name) => (9, name),
        };
        out.push(number);
        bytes(out, name);
    }
}

fn decode(data: &[u8]) -> Option<Entry> {
    struct In<'a>(&'a [u8]);
    impl<'a> In<'a> {
        fn some(&mut self, n: usize) -> Option<&'a [u8]> {
            let (head, rest) = self.0.split_at_checked(n)?;
            self.0 = rest;
            Some(head)
        }
        fn byte(&mut self) -> Option<u8> {
            self.some(1).map(|b| b[0])
        }
        fn word(&mut self) -> Option<u64> {
            Some(u64::from_le_bytes(self.some(8)?.try_into().ok()?))
        }
        fn bytes(&mut self) -> Option<Vec<u8>> {
            let n = usize::try_from(self.word()?).ok()?;
            self.some(n).map(<[u8]>::to_vec)
        }
    }
    let mut d = In(data);
    let volume = d.word()?;
    let mut dir = || Some(Dir { volume: d.word()?, ino: d.word()? });
    let (parent, from_parent) = (dir()?, dir()?);
    let (ino, generation, bytes) = (d.word()?, d.word()?, d.word()?);
    let of = |n: u8| TYPES.get(usize::from(n)).copied();
    let (file_type, content, replaces) = (of(d.byte()?)?, d.byte()? == 1, of(d.byte()?));
    let (kind, old, new, linked) = (d.byte()?, of(d.byte()?)?, of(d.byte()?)?, d.byte()? == 1);
    let (path, from, link_of) = (d.bytes()?, d.bytes()?, d.bytes()?);
    let kind = match kind {
        0 => Kind::Deleted,
        1 => Kind::Added,
        2 => Kind::Modified,
        3 => Kind::Metadata,
        4 => Kind::Renamed { from },
        _ => Kind::TypeChanged { from: old, to: new },
    };
    let mut fields = Vec::new();
    while let Some(number) = d.byte() {
        let name = d.bytes()?;
        fields.push(match number {
            0 => Field::Mode,
            1 => Field::Uid,
            2 => Field::Gid,
            3 => Field::Mtime,
            4 => Field::Atime,
            5 => Field::Flags,
            6 => Field::Device,
            7 => Field::Acl,
            8 => Field::DefaultAcl,
            _ => Field::Xattr(name),
        });
    }
    let record = Record { path, kind, file_type, inode: Inode { ino, generation }, bytes, content, fields, link_of: linked.then_some(link_of), replaces };
    Some(Entry { record, volume, parent, from_parent })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let path = || proptest::collection::vec(any::<u8>(), 0..20);
        let types = || (0usize..8).prop_map(|n| TYPES[n]);
        let kind = prop_oneof![
            Just(Kind::Deleted),
            Just(Kind::Added),
            Just(Kind::Modified),
            Just(Kind::Metadata),
            path().prop_map(|from| Kind::Renamed { from }),
            (types(), types()).prop_map(|(from, to)| Kind::TypeChanged { from, to }),
        ];
        let field = prop_oneof![Just(Field::Mode), Just(Field::Atime), Just(Field::DefaultAcl), path().prop_map(Field::Xattr)];
        let rest = (types(), any::<bool>(), proptest::collection::vec(field, 0..4), proptest::option::of(path()), proptest::option::of(types()));
        (path(), kind, rest, any::<[u64; 8]>()).prop_map(|(path, kind, (file_type, content, fields, link_of, replaces), n)| Entry {
            volume: n[0],
            parent: Dir { volume: n[4], ino: n[5] },
            from_parent: Dir { volume: n[6], ino: n[7] },
            record: Record { path, kind, file_type, inode: Inode { ino: n[1], generation: n[2] }, bytes: n[3], content, fields, link_of, replaces },
        })
    }

    proptest! {
        #[test]
        fn what_is_spilled_comes_back_sorted(entries in proptest::collection::vec(entry(), 0..80), run in 0usize..6000) {
            let mut sorter = Sorter::with_run_bytes(run);
            for e in &entries {
                sorter.push(e.clone()).unwrap();
            }
            let mut sorted = sorter.sorted().unwrap();
            let mut out = Vec::new();
            while let Some(path) = sorted.peek().map(<[u8]>::to_vec) {
                let next = sorted.pop().unwrap().unwrap();
                prop_assert_eq!(&path, &next.record.path);
                out.push(next);
            }
            let keys = |all: &[Entry]| all.iter().map(|e| (e.record.path.clone(), e.record.kind != Kind::Deleted)).collect::<Vec<_>>();
            let mut expected = entries.clone();
            expected.sort_by(|x, y| x.key().cmp(&y.key()));
            prop_assert_eq!(keys(&out), keys(&expected));
            prop_assert!(out.iter().all(|e| entries.contains(e)) && out.len() == entries.len());
        }
    }
}
