//! A directory with everything in it as a tar, made piece by piece as somebody takes it.
//!
//! Memory: a piece, an open directory for each level, and the names of files that have several. Nothing is read ahead, and dropping the value ends the work.
//! Owners, ACLs and capabilities are as the container sees them. Sockets are left out; FIFOs and devices are headers, and never opened. Names that are removed
//! meanwhile are left out; a file that becomes shorter is filled up with zeros, because its size has been said before. What was left out or filled up is
//! counted, and said in a remark (`comment`) at the end of the archive.

use super::attributes::By;
use super::node::{Directory, Kind, Meta, Node};
use super::path::TreePath;
use super::root::Root;
use super::tar::{END, Member, comment, data_size, is_kept, member, padding};
use super::view::View;
use crate::error::{Code, Error, IoContext, Result};
use rustix::fs::Dir;
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

/// The deepest directory, each of which is open.
const DEEPEST: usize = 128;
/// The most files with several names that are remembered. Further ones are in the archive once for each name.
const MOST_LINKS: usize = 1 << 20;
/// The most bytes of their names.
const MOST_LINK_BYTES: usize = 64 << 20;
/// How much of a file is read at once.
const PIECE: u64 = 128 << 10;

/// A tar that is being made.
pub struct Archive {
    view: View,
    levels: Vec<Level>,
    copying: Option<Copying>,
    /// What is to be given out before anything else.
    ready: Vec<u8>,
    /// The name in the archive of each file with several names, by device and inode.
    links: HashMap<((u32, u32), u64), Vec<u8>>,
    link_bytes: usize,
    /// Another volume that stands in the place of a directory.
    graft: Option<(TreePath, Root)>,
    left_out: LeftOut,
    ended: bool,
}

/// What an archive does not have as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Sockets.
    pub sockets: u64,
    /// Attributes whose names no tar can have.
    pub attributes: u64,
    /// Files that became shorter while they were read.
    pub shortened: u64,
}

struct Level {
    directory: Directory,
    names: Dir,
    /// In the archive.
    name: Vec<u8>,
    /// In the container.
    path: TreePath,
}

struct Copying {
    file: File,
    left: u64,
    size: u64,
    short: bool,
}

impl Archive {
    /// The tar of what was looked up at `path`. The members of a directory are named `./…`, so that it can be unpacked anywhere; a file has its name. `graft`
    /// is a volume that stands in the place of the directory with that path.
    ///
    /// # Errors
    /// `not_a_regular_file` for what is neither a directory nor a file; those of opening it.
    pub fn of(node: &Node, path: &TreePath, view: View, graft: Option<(TreePath, Root)>) -> Result<Self> {
        let (levels, links, left_out) = (Vec::new(), HashMap::new(), LeftOut::default());
        let mut archive = Archive { view, levels, copying: None, ready: Vec::new(), links, link_bytes: 0, graft, left_out, ended: false };
        match node.meta.kind {
            Kind::Directory => archive.directory(node, b".".to_vec(), path.clone())?,
            Kind::File => archive.file(node, path.split().map_or(&b""[..], |(_, name)| name), path)?,
            other => {
                return Err(Error::new(Code::NotARegularFile, format!("{} is a {}: only files and directories are archived", path.shown(), other.as_str())));
            }
        }
        Ok(archive)
    }

    /// Appends the next bytes, at least `most` unless the archive ends; false at the end.
    ///
    /// # Errors
    /// Those of system calls; `volume_not_found`: the volume was deleted meanwhile; `path_too_long`: directories in directories beyond all measure; `volume_in_use`. The archive is incomplete then.
    pub fn fill(&mut self, out: &mut Vec<u8>, most: usize) -> Result<bool> {
        out.append(&mut self.ready);
        while out.len() < most {
            if let Some(copying) = &mut self.copying {
                if copying.read(out, &mut self.left_out)? {
                    self.copying = None;
                }
            } else if !self.step()? {
                if !self.ended {
                    self.ended = true;
                    out.extend(self.left_out.remark());
                    out.extend(END);
                }
                return Ok(false);
            }
            out.append(&mut self.ready);
        }
        Ok(true)
    }

    /// What it does not have as it was, so far.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// The next name; false when there is none.
    fn step(&mut self) -> Result<bool> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        let entry = match level.names.next() {
            // The directory was removed after it was opened.
            None | Some(Err(Errno::NOENT)) => {
                level.directory.check_volume()?;
                self.levels.pop();
                return Ok(true);
            }
            Some(entry) => entry.io(|| "read a directory")?,
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            return Ok(true);
        }
        let Some(node) = level.directory.child(name)? else { return Ok(true) };
        let (path, name) = (level.path.join(name), [&level.name[..], b"/", name].concat());
        match node.meta.kind {
            Kind::Socket => self.left_out.sockets += 1,
            Kind::Directory => self.directory(&node, name, path)?,
            Kind::File => self.file(&node, &name, &path)?,
            Kind::Symlink => {
                let target = node.target()?;
                self.header(&node, &node.meta, &name, Some(&target))?;
            }
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => drop(self.header(&node, &node.meta, &name, None)?),
        }
        Ok(true)
    }

    fn directory(&mut self, node: &Node, name: Vec<u8>, path: TreePath) -> Result<()> {
        if self.levels.len() >= DEEPEST {
            return Err(Error::new(Code::PathTooLong, format!("more than {DEEPEST} directories stand in each other: archive a part of them")));
        }
        if self.graft.as_ref().is_some_and(|(at, _)| *at == path)
            && let Some((_, root)) = self.graft.take()
        {
            let other = root.find(&TreePath::root(), super::root::Last::Keep)?;
            return self.directory(&other, name, path);
        }
        let directory = node.open_directory(&path)?;
        self.header(node, &node.meta, &name, None)?;
        let names = Dir::read_from(&directory).io(|| "open a directory")?;
        self.levels.push(Level { directory, names, name, path });
        Ok(())
    }

    fn file(&mut self, node: &Node, name: &[u8], path: &TreePath) -> Result<()> {
        let file = node.open_file(path)?;
        // Its size when it was opened is what is copied.
        let meta = Meta::of(file.as_fd()).io(|| "look at a file")?;
        if self.header(node, &meta, name, None)? {
            self.copying = Some(Copying { file, left: meta.size, size: meta.size, short: false });
        }
        Ok(())
    }

    /// Whether data follow.
    fn header(&mut self, node: &Node, meta: &Meta, name: &[u8], target: Option<&[u8]>) -> Result<bool> {
        let mut attributes = Vec::new();
        let by = By::Path(node.as_fd());
        let several = meta.links > 1 && meta.kind != Kind::Directory;
        let inode = (meta.device, meta.inode);
        let link_of = if several { self.links.get(&inode).cloned() } else { None };
        // A symbolic link has none that a container could have set, and a further name has those of the first.
        if meta.kind != Kind::Symlink && link_of.is_none() {
            for key in by.list()? {
                if let Some(value) = by.get(&key)?.and_then(|value| self.view.attribute(&key, &value)) {
                    if is_kept(&key) { attributes.push((key, value)) } else { self.left_out.attributes += 1 }
                }
            }
        }
        if several && link_of.is_none() && self.links.len() < MOST_LINKS && self.link_bytes + name.len() <= MOST_LINK_BYTES {
            self.link_bytes += name.len();
            self.links.insert(inode, name.to_vec());
        }
        let m = Member { path: name, meta, target: target.filter(|_| link_of.is_none()), link_of: link_of.as_deref(), attributes: &attributes };
        self.ready.extend(member(&m, self.view));
        Ok(data_size(&m) > 0)
    }
}

impl Copying {
    /// Appends the next piece; whether it was the last.
    fn read(&mut self, out: &mut Vec<u8>, left_out: &mut LeftOut) -> Result<bool> {
        let want = self.left.min(PIECE);
        let before = out.len();
        let got = (&self.file).take(want).read_to_end(out).io(|| "read a file of a container")? as u64;
        if got < want {
            left_out.shortened += u64::from(!std::mem::replace(&mut self.short, true));
            // The rest is zeros, piece by piece.
            out.resize(before + usize::try_from(want).unwrap_or(0), 0);
        }
        self.left -= want;
        if self.left > 0 {
            return Ok(false);
        }
        out.resize(out.len() + padding(self.size), 0);
        Ok(true)
    }
}

impl LeftOut {
    fn remark(self) -> Vec<u8> {
        if self == LeftOut::default() {
            return Vec::new();
        }
        let LeftOut { sockets, attributes, shortened } = self;
        comment(&format!("left out: {sockets} sockets, {attributes} attributes; filled up with zeros, because they became shorter: {shortened} files"))
    }
}
