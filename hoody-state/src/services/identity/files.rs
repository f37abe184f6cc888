//! Reading and replacing small files of a volume, of which nothing runs. Nothing that the container has put there leads out of it.

use crate::error::{Error, IoContext, Result};
use crate::tree::{Kind, Last, Root, TreePath};
use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// A larger file is something else.
const MOST: u64 = 64 << 10;
/// A machine has a few of them. Where there are more, somebody else has put them there.
const MOST_FILES: usize = 64;

/// A file that is there.
pub(super) struct Found {
    /// Without a slash in front.
    pub path: String,
    pub content: Vec<u8>,
    pub hash: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

pub(super) fn open(root: &Path) -> Result<Root> {
    Ok(Root::new(File::open(root).io(|| format!("open {}", root.display()))?.into()))
}

/// The regular files among these.
pub(super) fn all<'a>(root: &Root, paths: impl IntoIterator<Item = &'a str>) -> Result<Vec<Found>> {
    paths.into_iter().filter_map(|p| one(root, p).transpose()).collect()
}

/// The regular files in a directory whose names `f` takes, in the order of their names. None if there are more than a machine has.
pub(super) fn beneath(root: &Root, dir: &str, f: fn(&[u8]) -> bool) -> Result<Vec<Found>> {
    let path = TreePath::new(dir.as_bytes())?;
    let Some(node) = absent(root.find(&path, Last::Follow))? else { return Ok(Vec::new()) };
    if node.meta.kind != Kind::Directory {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    node.open_directory(&path)?.names(&mut |name| {
        if f(name) && names.len() <= MOST_FILES {
            names.extend(std::str::from_utf8(name).map(str::to_owned));
        }
        Ok(())
    })?;
    if names.len() > MOST_FILES {
        tracing::warn!(directory = dir, "there are more than {MOST_FILES} files that identify the machine: they are left as they are");
        return Ok(Vec::new());
    }
    names.sort();
    names.iter().filter_map(|n| one(root, &format!("{dir}/{n}")).transpose()).collect()
}

/// What a small text file says; `None` if it is no such file.
pub(super) fn text(root: &Root, path: &str) -> Result<Option<String>> {
    Ok(one(root, path)?.and_then(|f| String::from_utf8(f.content).ok()))
}

fn one(root: &Root, path: &str) -> Result<Option<Found>> {
    let at = TreePath::new(path.as_bytes())?;
    let Some(node) = absent(root.find(&at, Last::Keep))? else { return Ok(None) };
    if node.meta.kind != Kind::File || node.meta.size > MOST {
        return Ok(None);
    }
    let mut content = Vec::new();
    node.open_file(&at)?.take(MOST).read_to_end(&mut content).io(|| format!("read /{path}"))?;
    let hash = Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
    Ok(Some(Found { path: path.into(), content, hash, mode: node.meta.mode, uid: node.meta.uid, gid: node.meta.gid }))
}

fn absent<T>(r: Result<T>) -> Result<Option<T>> {
    use crate::error::Code;
    match r {
        Ok(t) => Ok(Some(t)),
        Err(e) if matches!(e.code(), Code::FileNotFound | Code::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Found {
    /// Puts another content in its place, in one step, with the same owner and mode.
    pub(super) fn replace(&self, root: &Root, content: &[u8]) -> Result<()> {
        self.put(root, &self.path, self.mode, content)
    }

    /// Puts `content` at `path`, in one step, owned as this file is.
    pub(super) fn put(&self, root: &Root, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let what = || format!("write /{path}");
        let at = TreePath::new(path.as_bytes())?;
        let (dir, name) = root.parent(&at)?;
        let temporary = format!(".hoody-{:016x}", u64::from_ne_bytes(super::random(8)?.try_into().map_err(|_| Error::internal("8 bytes are 8"))?));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o600)).io(what)?);
        let written = file.write_all(content).and_then(|()| {
            nix::unistd::fchown(&file, Some(self.uid.into()), Some(self.gid.into()))?;
            nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(mode))?;
            // A rename over a file has the new one's data written first.
            Ok(rustix::fs::renameat(&dir, temporary.as_str(), &dir, name)?)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty());
        }
        written.io(what)
    }

    pub(super) fn remove(&self, root: &Root) -> Result<()> {
        let at = TreePath::new(self.path.as_bytes())?;
        let (dir, name) = root.parent(&at)?;
        rustix::fs::unlinkat(&dir, name, AtFlags::empty()).io(|| format!("remove /{}", self.path))
    }
}

/// The last part of a path.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
