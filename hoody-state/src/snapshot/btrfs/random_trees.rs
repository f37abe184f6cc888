#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]
//! Random trees for tests, and what two trees must have in common to be the same.

use nix::sys::stat::Mode;
use rustix::fs::{FallocateFlags, IFlags, SeekFrom, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Numbers from a seed (xorshift).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A place in a file: on a block's edge, beside one, or anywhere.
    pub(crate) fn place(&mut self) -> u64 {
        match self.below(3) {
            0 => self.below(48) as u64 * 4096,
            1 => (self.below(48) as u64 * 4096).saturating_add_signed(self.below(9) as i64 - 4),
            _ => self.below(200_000) as u64,
        }
    }

    pub(crate) fn data(&mut self) -> Vec<u8> {
        let (len, byte) = ([0, 3, 100, 4096, 10_000, 140_000][self.below(6)], self.below(256) as u8);
        // Half of it can be compressed.
        (0..len).map(|i| if i % 8192 < 4096 { byte } else { self.below(256) as u8 }).collect()
    }
}

/// All directories, regular files and other things of a tree.
pub(crate) fn contents(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut files, mut others) = (vec![root.to_owned()], Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let m = std::fs::symlink_metadata(&path).unwrap();
            let list = if m.is_dir() {
                &mut dirs
            } else if m.is_file() {
                &mut files
            } else {
                &mut others
            };
            list.push(path);
        }
    }
    (dirs, files, others)
}

/// One change of a tree. One that is not possible there (a name that is taken, a directory into itself) does nothing.
pub(crate) fn change(rng: &mut Rng, root: &Path) {
    let (dirs, files, others) = contents(root);
    let name = || PathBuf::from("abcdefghij");
    let new = rng.pick(&dirs).join(&name().to_str().unwrap()[rng.below(10)..][..1]);
    let any: Vec<&PathBuf> = dirs[1..].iter().chain(&files).chain(&others).collect();
    if files.is_empty() || rng.below(4) == 0 {
        let _ = match rng.below(8) {
            0 | 1 => std::fs::create_dir(&new),
            2 => std::os::unix::fs::symlink("somewhere/else", &new),
            3 => nix::unistd::mkfifo(&new, Mode::S_IRUSR).map_err(Into::into),
            4 => nix::sys::stat::mknod(&new, nix::sys::stat::SFlag::S_IFBLK, Mode::S_IRUSR, nix::sys::stat::makedev(7, 1)).map_err(Into::into),
            _ => File::create_new(&new).and_then(|f| f.write_all_at(&rng.data(), 0)),
        };
        return;
    }
    let file = rng.pick(&files).clone();
    let thing = any[rng.below(any.len())].clone();
    let open = || File::options().read(true).write(true).open(&file).unwrap();
    if File::options().write(true).open(&file).is_err() {
        // Immutable, until the next round.
        return;
    }
    let fallocate = |rng: &mut Rng, flags| rustix::fs::fallocate(open(), flags, rng.place(), 1 + rng.place()).unwrap_or_default();
    match rng.below(26) {
        0..4 => open().write_all_at(&rng.data(), rng.place()).unwrap(),
        4 => open().set_len(rng.place()).unwrap(),
        // A log that is rotated by "copy and truncate" while its writer goes on at its old place.
        5 => {
            let (f, size) = (open(), open().metadata().unwrap().len());
            f.set_len(0).unwrap();
            f.write_all_at(b"a new line\n", size).unwrap();
        }
        6 => {
            let (f, size) = (open(), open().metadata().unwrap().len());
            f.set_len(size / 2).unwrap();
            f.set_len(size + rng.place()).unwrap();
        }
        7 | 8 => fallocate(rng, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        9 => fallocate(rng, FallocateFlags::ZERO_RANGE),
        10 => fallocate(rng, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE),
        11 => fallocate(rng, FallocateFlags::empty()),
        12 => fallocate(rng, FallocateFlags::KEEP_SIZE),
        13 | 14 => drop(std::fs::rename(&thing, &new)),
        15 => {
            let other = any[rng.below(any.len())];
            let _ = rustix::fs::renameat_with(rustix::fs::CWD, &thing, rustix::fs::CWD, other, rustix::fs::RenameFlags::EXCHANGE);
        }
        16 => drop(std::fs::hard_link(&file, &new)),
        17 => drop(std::fs::remove_file(&thing).or_else(|_| std::fs::remove_dir_all(&thing))),
        18 => {
            let name = rng.pick(&["user.a", "user.b", "trusted.c"]);
            let _ = rustix::fs::lsetxattr(&thing, *name, &rng.data()[..].iter().take(2000).copied().collect::<Vec<_>>(), XattrFlags::empty());
        }
        19 => drop(rustix::fs::lremovexattr(&thing, *rng.pick(&["user.a", "user.b"]))),
        20 => {
            let directory = rng.pick(&dirs).clone();
            toggle_flag(rng, root, [file, directory]);
        }
        21 | 22 => {
            let from = File::open(rng.pick(&files)).unwrap();
            let block = |rng: &mut Rng| rng.below(30) as u64 * 4096;
            let (at, len, to) = (block(rng), block(rng), block(rng));
            let _ = btrfs_uapi::send_receive::clone_range(open().as_fd(), from.as_fd(), at, len, to);
        }
        23 => drop(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(rng.below(0o10_000) as u32))),
        24 => drop(std::os::unix::fs::lchown(&thing, Some(100_000 + rng.below(3) as u32), Some(100_000 + rng.below(3) as u32))),
        _ => {
            // Directories that change places, which the kernel sends by way of names of its own.
            let other = any[rng.below(any.len())].clone();
            let aside = root.join("aside");
            let _ = std::fs::rename(&thing, &aside).and_then(|()| std::fs::rename(&other, &thing));
            let _ = std::fs::rename(&aside, aside.with_file_name("z"));
        }
    }
}

fn toggle_flag(rng: &mut Rng, root: &Path, paths: [PathBuf; 2]) {
    let which = *rng.pick(&[IFlags::COMPRESSED, IFlags::NODUMP, IFlags::NOATIME, IFlags::NOCOW, IFlags::IMMUTABLE, IFlags::APPEND]);
    for path in paths {
        // No volume with such a root can be deleted, which only the host's root could bring about.
        if path == root && which.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            continue;
        }
        let f = File::open(path).unwrap();
        let flags = rustix::fs::ioctl_getflags(&f).unwrap() ^ which;
        let _ = rustix::fs::ioctl_setflags(&f, flags);
    }
}

/// Immutable files forbid changes, to the random changes too; a later round may change them again.
pub(crate) fn free_all(root: &Path) {
    let (dirs, files, _) = contents(root);
    for path in dirs.iter().chain(&files) {
        let f = File::open(path).unwrap();
        let flags = rustix::fs::ioctl_getflags(&f).unwrap();
        if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            rustix::fs::ioctl_setflags(&f, flags - (IFlags::IMMUTABLE | IFlags::APPEND)).unwrap();
        }
    }
}

/// Where each regular file has data.
pub(crate) fn data_of(root: &Path) -> BTreeMap<PathBuf, Vec<(u64, u64)>> {
    let map = |path: &Path| {
        let f = File::open(path).unwrap();
        let (mut at, mut out) = (0, Vec::new());
        while let Ok(begin) = rustix::fs::seek(&f, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&f, SeekFrom::Hole(begin)).unwrap();
            out.push((begin, at));
        }
        out
    };
    contents(root).1.into_iter().map(|p| (p.strip_prefix(root).unwrap().to_owned(), map(&p))).collect()
}

/// Everything of a tree that a container could tell: by path, what it is.
pub(crate) fn tree(root: &Path) -> BTreeMap<OsString, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        let path = root.join(&rel);
        let m = std::fs::symlink_metadata(&path).unwrap();
        let content = if m.is_file() {
            format!("{} {:x}", m.len(), crc32c::crc32c(&std::fs::read(&path).unwrap()))
        } else if m.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        let mut xattrs = Vec::new();
        let mut names = vec![0u8; 4096];
        let n = rustix::fs::llistxattr(&path, &mut names).unwrap();
        for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let mut value = vec![0u8; 4096];
            let n = rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut value).unwrap();
            xattrs.push((name.to_vec(), value[..n].to_vec()));
        }
        xattrs.sort();
        let links = if m.is_dir() { 0 } else { m.nlink() };
        let said = format!("{:o} {}:{} {} {} {}.{} {content} {xattrs:?}", m.mode(), m.uid(), m.gid(), links, m.rdev(), m.mtime(), m.mtime_nsec());
        if m.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| rel.join(e.unwrap().file_name())));
        }
        out.insert(rel.into_os_string(), said);
    }
    out
}

pub(crate) fn same(a: &Path, b: &Path) {
    let (a, b) = (tree(a), tree(b));
    for (path, said) in &a {
        assert_eq!(Some(said), b.get(path), "{path:?}");
    }
    assert_eq!(a.len(), b.len(), "{:?}", b.keys().filter(|k| !a.contains_key(*k)).collect::<Vec<_>>());
}
