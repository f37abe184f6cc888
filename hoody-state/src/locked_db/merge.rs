//! Making one tree of databases what another is, while others use it.
//!
//! **Guarantee** of [`merge`]: afterwards the tree holds what the other held: each name with its content, kind, owner, mode, extended attributes and ACLs; the
//! modification times of ordinary files, links and directories; which names are hard links of each other. Names that the other has not are removed. What is
//! already as it should be keeps its inode, so that whoever has it open notices nothing. A database is written in one transaction and keeps its open
//! connections; an ordinary file that differs is replaced by a rename. What could not be done is reported, one error a name, and is as it was.
//!
//! Whether a file differs is decided by its bytes: programs that keep size and time (`cp -p`, package managers) change files too.
//!
//! Not reverted: times of access and of change, the modification times of databases, device nodes (no container can make one) and the flags of `chattr`.

use super::attributes::{Times, give_attributes};
use super::copy_database::{DEPTH, names};
use super::restore::{BESIDE, below, copy_into, has_header, is_database, passing, with};
use crate::error::{Code, Error, IoContext, Result};
use crate::sys::private_root::{Access, in_root_of};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What becomes of names that the wanted tree has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNames {
    /// They stay.
    Keep,
    /// They are removed.
    Delete,
}

/// The trees of a [`merge`].
#[derive(Clone, Copy)]
pub(super) struct Trees<'a> {
    /// What is wanted. It may be changed: logs of databases are taken in.
    pub from: &'a Path,
    /// What is there, where it is only looked at: the directory that a mount serves. Through the mount one inode may show under several numbers.
    pub seen: &'a Path,
    /// The same, where it is changed: the mount.
    pub to: &'a Path,
}

/// See the [module](self). What could not be done.
pub(super) fn merge(trees: Trees<'_>, timeout: Duration) -> Vec<Error> {
    let mut merge = Merge::of(trees, NewNames::Delete, timeout);
    merge.directory(Path::new(""), 0);
    merge.failed
}

/// The same for single names. What could not be done, for each.
pub(super) fn merge_names(trees: Trees<'_>, names: &[PathBuf], new: NewNames, timeout: Duration) -> Vec<Vec<Error>> {
    let mut merge = Merge::of(trees, new, timeout);
    names.iter().map(|name| merge.name(name)).collect()
}

/// The same in a root directory of its own: links in the trees lead to nothing else of the host.
pub(super) fn merge_in_own_root(from: &Path, seen: &Path, to: &Path, timeout: Duration) -> io::Result<Vec<Error>> {
    in_root_of(&shown(from, seen, to), || merge(in_own_root(), timeout))
}

/// [`merge_names`] in the same way.
pub(super) fn merge_names_in_own_root(
    (from, seen, to): (&Path, &Path, &Path),
    names: &[PathBuf],
    new: NewNames,
    timeout: Duration,
) -> io::Result<Vec<Vec<Error>>> {
    in_root_of(&shown(from, seen, to), || merge_names(in_own_root(), names, new, timeout))
}

fn in_own_root() -> Trees<'static> {
    Trees { from: Path::new("/source"), seen: Path::new("/seen"), to: Path::new("/target") }
}

fn shown<'p>(from: &'p Path, seen: &'p Path, to: &'p Path) -> [(&'static str, &'p Path, Access); 3] {
    [("source", from, Access::Write), ("seen", seen, Access::Read), ("target", to, Access::Write)]
}

/// Device and inode of a file.
type Inode = (u64, u64);

/// The names of each file that has several.
type Links = HashMap<Inode, BTreeSet<PathBuf>>;

fn inode(m: &Metadata) -> Inode {
    (m.dev(), m.ino())
}

fn find_links(root: &Path, dir: &Path, depth: usize, links: &mut Links) -> io::Result<()> {
    for name in names(&root.join(dir))? {
        let path = dir.join(name);
        let Ok(meta) = fs::symlink_metadata(root.join(&path)) else { continue };
        if meta.is_dir() && depth < DEPTH {
            find_links(root, &path, depth + 1, links)?;
        } else if !meta.is_dir() && meta.nlink() > 1 {
            links.entry(inode(&meta)).or_default().insert(path);
        }
    }
    Ok(())
}

struct Merge<'a> {
    trees: Trees<'a>,
    new: NewNames,
    timeout: Duration,
    wanted_links: Links,
    present_links: Links,
    /// The first name that was made of each wanted file with several.
    made: HashMap<Inode, PathBuf>,
    failed: Vec<Error>,
}

impl<'a> Merge<'a> {
    fn of(trees: Trees<'a>, new: NewNames, timeout: Duration) -> Self {
        let (wanted_links, present_links, made) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut merge = Merge { trees, new, timeout, wanted_links, present_links, made, failed: Vec::new() };
        for (root, links) in [(trees.from, &mut merge.wanted_links), (trees.seen, &mut merge.present_links)] {
            if let Err(e) = find_links(root, Path::new(""), 0, links) {
                // Then files that are linked with each other become files of their own.
                merge.failed.push(Error::io(format!("look for hard links in {}", root.display()), e));
            }
        }
        merge
    }

    /// Makes one name what is wanted; what could not be done.
    fn name(&mut self, name: &Path) -> Vec<Error> {
        self.failed.clear();
        if name.as_os_str().is_empty() {
            self.directory(Path::new(""), 0);
        } else if let Err(e) = self.one(name) {
            self.failed.push(e);
        }
        std::mem::take(&mut self.failed)
    }

    fn one(&mut self, name: &Path) -> Result<()> {
        below(self.trees.to, name)?;
        let (from, seen) = (self.trees.from.join(name), self.trees.seen.join(name));
        let not_found = |what: String| Err(Error::new(Code::FileNotFound, what));
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        let database = |path: &Path| is_database(&self.trees.from.join(path)) || is_database(&self.trees.seen.join(path));
        if let Some(beside) = name.file_name().and_then(belongs_to)
            && database(&name.with_file_name(&beside))
        {
            return Err(Error::new(Code::BadPath, format!("{} belongs to the database {}: name that", name.display(), beside.display())));
        }
        let removed = self.new == NewNames::Delete && is_there(&seen);
        if !is_there(&from) && !removed {
            return not_found(format!("there is no {} among the databases of the snapshot", name.display()));
        }
        let parent = name.parent().unwrap_or(Path::new(""));
        if !fs::metadata(self.trees.seen.join(parent)).is_ok_and(|m| m.is_dir()) {
            return not_found(format!("there is no directory {} among the databases: restore that", parent.display()));
        }
        let database = database(name);
        self.entry(name, database, 0)
    }

    fn directory(&mut self, dir: &Path, depth: usize) {
        let (from, seen) = (self.trees.from.join(dir), self.trees.seen.join(dir));
        let both = names(&from).and_then(|a| Ok((a, names(&seen)?))).io(|| format!("read {}", seen.display()));
        let (wanted, present) = match both {
            Ok(b) => b,
            Err(e) => return self.failed.push(e),
        };
        let database = |name: &OsStr| is_database(&from.join(name)) || is_database(&seen.join(name));
        for name in wanted.union(&present) {
            // What lies beside a database goes with it.
            if belongs_to(name).is_some_and(|db| (wanted.contains(&db) || present.contains(&db)) && database(&db)) {
                continue;
            }
            let done = self.entry(&dir.join(name), database(name), depth);
            self.failed.extend(done.err());
        }
    }

    fn entry(&mut self, path: &Path, database: bool, depth: usize) -> Result<()> {
        let wanted = fs::symlink_metadata(self.trees.from.join(path)).ok();
        let present = fs::symlink_metadata(self.trees.seen.join(path)).ok();
        match (wanted, present) {
            (None, None) => Ok(()),
            (None, Some(_)) if self.new == NewNames::Keep => Ok(()),
            (None, Some(y)) => remove(&self.trees.to.join(path), y.is_dir(), database),
            (Some(x), y) if x.is_dir() => self.subdirectory(path, y.as_ref(), depth),
            (Some(x), y) if x.nlink() > 1 => self.linked(path, &x, y.as_ref(), database),
            (Some(x), y) => self.single(path, &x, y.as_ref(), database),
        }
    }

    fn subdirectory(&mut self, path: &Path, y: Option<&Metadata>, depth: usize) -> Result<()> {
        let to = self.trees.to.join(path);
        let what = || format!("revert {}", to.display());
        if depth >= DEPTH {
            let m = format!("{} is more than {DEPTH} directories deep: it is as it was", to.display());
            return Err(Error::new(Code::BadPath, m));
        }
        match y {
            Some(y) if y.is_dir() => {}
            Some(_) => fs::remove_file(&to).and_then(|()| fs::create_dir(&to)).io(what)?,
            None => fs::create_dir(&to).io(what)?,
        }
        self.attributes(path, Times::Leave)?;
        self.directory(path, depth + 1);
        // Last: each change in it changed its time.
        self.attributes(path, Times::Give)
    }

    /// A file with several names: the first one is made, the others become links to it.
    fn linked(&mut self, path: &Path, x: &Metadata, y: Option<&Metadata>, database: bool) -> Result<()> {
        let Some(first) = self.made.get(&inode(x)).cloned() else {
            self.single(path, x, y, database)?;
            self.made.insert(inode(x), path.to_owned());
            return Ok(());
        };
        if y.is_some_and(|y| self.same_names(path, x, y)) {
            // It is the first one, which is done.
            return Ok(());
        }
        let to = self.trees.to.join(path);
        let new = passing(&to);
        fs::hard_link(self.trees.to.join(first), &new).io(|| format!("link {}", to.display()))?;
        self.place(&new, path, y)
    }

    /// Whether a wanted and a present file have the same names.
    fn same_names(&self, path: &Path, x: &Metadata, y: &Metadata) -> bool {
        let alone = BTreeSet::from([path.to_owned()]);
        self.wanted_links.get(&inode(x)).unwrap_or(&alone) == self.present_links.get(&inode(y)).unwrap_or(&alone)
    }

    fn single(&mut self, path: &Path, x: &Metadata, y: Option<&Metadata>, database: bool) -> Result<()> {
        let (a, b) = (self.trees.from.join(path), self.trees.to.join(path));
        // One that shares its content with another name would change under both.
        let y = y.filter(|y| y.is_dir() || self.same_names(path, x, y));
        if x.is_file() && database && !self.becomes_ordinary(path, x) {
            if y.is_none() && fs::symlink_metadata(self.trees.seen.join(path)).is_ok() {
                fs::remove_file(&b).io(|| format!("revert {}", b.display()))?;
            }
            if y.is_some_and(Metadata::is_dir) {
                fs::remove_dir_all(&b).io(|| format!("revert {}", b.display()))?;
            }
            copy_into(&a, &b, self.timeout)?;
            return self.attributes(path, Times::Leave);
        }
        if let Some(there) = y
            && self.is_same(path, x, there).io(|| format!("compare {}", b.display()))?
        {
            return self.attributes(path, Times::Give);
        }
        let new = passing(&b);
        if !make_like(&a, &new, x).io(|| format!("revert {}", b.display()))? {
            // A device: no container can have made it.
            return Ok(());
        }
        give_attributes(&a, &new, &new, Times::Give).inspect_err(|_| drop(fs::remove_file(&new)))?;
        self.place(&new, path, y)?;
        if database { self.ordinary_beside(path) } else { Ok(()) }
    }

    /// Whether a database is there, and what is wanted in its place is an ordinary file with some content.
    fn becomes_ordinary(&self, path: &Path, x: &Metadata) -> bool {
        x.len() > 0 && is_database(&self.trees.seen.join(path)) && has_header(&self.trees.from.join(path)).is_ok_and(|d| !d)
    }

    /// What lies beside an ordinary file that took the name of a database is as it is wanted.
    fn ordinary_beside(&mut self, path: &Path) -> Result<()> {
        for suffix in BESIDE {
            let beside = with(path, suffix);
            match (fs::symlink_metadata(self.trees.from.join(&beside)), fs::symlink_metadata(self.trees.seen.join(&beside)).ok()) {
                (Ok(x), y) if !x.is_dir() => self.single(&beside, &x, y.as_ref(), false)?,
                (_, Some(y)) => remove(&self.trees.to.join(&beside), y.is_dir(), false)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the kind and the content are those wanted.
    fn is_same(&self, path: &Path, x: &Metadata, y: &Metadata) -> io::Result<bool> {
        let (a, b) = (self.trees.from.join(path), self.trees.seen.join(path));
        let (kind, other) = (x.file_type(), y.file_type());
        if kind != other {
            return Ok(false);
        }
        if kind.is_symlink() {
            return Ok(fs::read_link(a)? == fs::read_link(b)?);
        }
        if !kind.is_file() {
            return Ok(x.rdev() == y.rdev());
        }
        Ok(x.len() == y.len() && same_content(&a, &b)?)
    }

    fn attributes(&self, path: &Path, times: Times) -> Result<()> {
        give_attributes(&self.trees.from.join(path), &self.trees.seen.join(path), &self.trees.to.join(path), times)
    }

    /// Gives what was made under a passing name its own.
    fn place(&self, new: &Path, path: &Path, y: Option<&Metadata>) -> Result<()> {
        let to = self.trees.to.join(path);
        let placed = if y.is_some_and(Metadata::is_dir) { fs::remove_dir_all(&to) } else { Ok(()) }.and_then(|()| fs::rename(new, &to));
        // Also when it went well: of two links to one file a rename removes neither.
        let _ = fs::remove_file(new);
        placed.io(|| format!("revert {}", to.display()))
    }
}

/// The database that a file belongs to, by its name.
fn belongs_to(name: &OsStr) -> Option<OsString> {
    let bytes = name.as_bytes();
    BESIDE.iter().find_map(|s| bytes.strip_suffix(s.as_bytes())).map(|b| OsStr::from_bytes(b).to_owned())
}

/// What is read and written at a time.
const BLOCK: usize = 1 << 20;

/// Fills the block, but for the end of the file.
fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Opens a file to read it; no link is followed.
fn open(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let (n, m) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Makes under `new` what is at `from`, without its attributes; false for a device, which is not made.
fn make_like(from: &Path, new: &Path, x: &Metadata) -> io::Result<bool> {
    use nix::sys::stat::{Mode, SFlag, mknod};
    let kind = x.file_type();
    let private = Mode::S_IRUSR | Mode::S_IWUSR;
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, new)?;
    } else if kind.is_fifo() {
        mknod(new, SFlag::S_IFIFO, private, 0)?;
    } else if kind.is_socket() {
        mknod(new, SFlag::S_IFSOCK, private, 0)?;
    } else if kind.is_file() {
        copy_content(from, new).inspect_err(|_| drop(fs::remove_file(new)))?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Copies a file's bytes; blocks of zeros become holes.
fn copy_content(from: &Path, new: &Path) -> io::Result<()> {
    let mut source = open(from)?;
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let mut block = vec![0; BLOCK];
    let mut length = 0;
    loop {
        let n = fill(&mut source, &mut block)?;
        if n == 0 {
            break;
        }
        length += n as u64;
        if block[..n].iter().all(|b| *b == 0) {
            target.seek(io::SeekFrom::Start(length))?;
        } else {
            target.write_all(&block[..n])?;
        }
    }
    target.set_len(length)?;
    target.sync_all()
}

fn remove(path: &Path, dir: bool, database: bool) -> Result<()> {
    let what = || format!("remove {}", path.display());
    if dir {
        return fs::remove_dir_all(path).io(what);
    }
    // The file first: whoever comes then makes a new one, and finds nothing beside it that SQLite would take for its log.
    fs::remove_file(path).io(what)?;
    for suffix in BESIDE.iter().filter(|_| database) {
        match fs::remove_file(with(path, suffix)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).io(what),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "merge_tests.rs"]
mod tests;
