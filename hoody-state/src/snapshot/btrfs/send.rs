//! Sending a volume, with its nested volumes, as bytes to another host; and receiving it.
//!
//! Format: a magic line; for each volume, a parent always before its children, a header (path within the top volume, identity, identity of the volume it
//! is an increment on) and the kernel's send stream; an empty header at the end. An identity is the UUID under which a
//! volume was first made read-only and sent, on whichever host.

use super::apply::{Target, apply, is_passing, open_beneath};
use super::keep_times::keeping_times;
use super::stream::{Command, StreamReader, corrupt, cut};
use super::{BtrfsStore, exists, has_nested, nested, not_found};
use crate::error::{Code, Error, IoContext, Result};
use crate::id::OperationId;
use crate::snapshot::{SnapshotStore, Volume, VolumeInfo};
use crate::sys::fs::open_dir_at;
use btrfs_uapi::send_receive::{SendFlags, received_subvol_set};
use btrfs_uapi::subvolume;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, RenameFlags, fcntl, renameat2};
use nix::sys::stat::fstat;
use rustix::fs::{Mode as RMode, OFlags, ResolveFlags};
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use uuid::Uuid;

const MAGIC: &[u8; 16] = b"hoody volumes 1\n";
/// The longest path of a nested volume. Tools in the container cannot name a longer one either.
const LONGEST_PATH: usize = 64 << 10;
/// The most volumes in one container.
const MOST_PARTS: usize = 10_000;
/// The most names of that form in one root: no root has more by chance.
const MOST_NAMES: u32 = 4_096;
/// How far the kernel may be ahead of the network.
const PIPE: i32 = 1 << 20;

/// One volume of a tree.
struct Part {
    path: Vec<u8>,
    id: u64,
    identity: Uuid,
    base: Option<(u64, Uuid)>,
    /// Names in its root that look like the kernel's temporary names.
    keep: Vec<Vec<u8>>,
}

/// A read-only volume's identity: see the [module](self).
pub(super) fn identity(volume: BorrowedFd<'_>) -> Result<Uuid> {
    let i = subvolume::subvolume_info(volume).io(|| "ask for a subvolume's identity")?;
    Ok(if i.received_uuid.is_nil() { i.uuid } else { i.received_uuid })
}

/// The volumes below `top` with their paths in it; parents first.
fn paths(mount: BorrowedFd<'_>, top: u64) -> Result<Vec<(Vec<u8>, u64)>> {
    let mut known: HashMap<u64, Vec<u8>> = HashMap::from([(top, Vec::new())]);
    let mut out = Vec::new();
    for n in nested::tree(mount, top)? {
        let mut path = known.get(&n.parent).cloned().unwrap_or_default();
        path.extend(nested::dir_path(mount, n.parent, n.dir)?);
        path.extend(n.name.as_bytes());
        known.insert(n.id, [&path[..], b"/"].concat());
        out.push((path, n.id));
    }
    Ok(out)
}

impl BtrfsStore {
    fn parts(&self, volume: &Volume, base: Option<&Volume>) -> Result<Vec<Part>> {
        let mount = self.mount();
        let top = self.existing(volume)?;
        let mut bases: HashMap<Vec<u8>, (u64, Uuid)> = HashMap::new();
        if let Some(base) = base {
            let fd = self.existing(base)?;
            let id = nested::id_of(fd.as_fd())?;
            bases.insert(Vec::new(), (id, identity(fd.as_fd())?));
            for (path, id) in if has_nested(fd.as_fd())? { paths(mount, id)? } else { Vec::new() } {
                if let Some(fd) = nested::open_root(mount, id)? {
                    bases.insert(path, (id, identity(fd.as_fd())?));
                }
            }
        }
        let top_id = nested::id_of(top.as_fd())?;
        let base = bases.remove(&b""[..]);
        let mut parts = vec![Part { path: Vec::new(), id: top_id, identity: identity(top.as_fd())?, base, keep: passing_names(top.as_fd())? }];
        for (path, id) in if has_nested(top.as_fd())? { paths(mount, top_id)? } else { Vec::new() } {
            let fd = nested::open_root(mount, id)?.ok_or_else(|| not_found(volume))?;
            let base = bases.remove(&path);
            parts.push(Part { identity: identity(fd.as_fd())?, keep: passing_names(fd.as_fd())?, path, id, base });
        }
        if parts.len() > MOST_PARTS {
            return Err(Error::new(Code::TooManyVolumes, format!("{volume} has {} subvolumes inside; at most {MOST_PARTS} can be sent", parts.len() - 1)));
        }
        Ok(parts)
    }

    fn send_part(&self, part: &Part, flags: SendFlags, out: &mut dyn Write) -> Result<()> {
        let fd = nested::open_root(self.mount(), part.id)?.ok_or_else(|| Error::new(Code::VolumeNotFound, "the volume was deleted while it was sent"))?;
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).io(|| "make a pipe")?;
        // This only makes it faster; a limit of the host may forbid it.
        let _ = fcntl(&read, FcntlArg::F_SETPIPE_SZ(PIPE));
        let version = newest_version();
        std::thread::scope(|s| {
            let sender = std::thread::Builder::new().name("send".into()).spawn_scoped(s, move || {
                let mut sources: Vec<u64> = part.base.iter().map(|(id, _)| *id).collect();
                let parent = part.base.map_or(0, |(id, _)| id);
                let done = btrfs_uapi::send_receive::send(fd.as_fd(), write.as_raw_fd(), parent, &mut sources, flags | SendFlags::VERSION, version);
                drop(write);
                done
            });
            let sender = sender.io(|| "start a thread that sends")?;
            let copied = pour(read, out);
            match sender.join() {
                // The reader has ended, and its error says why.
                Ok(Err(Errno::EPIPE)) if copied.is_err() => copied,
                Ok(Err(e)) => Err(send_error(e)),
                Ok(Ok(())) => copied,
                Err(_) => Err(Error::internal("a sending thread panicked")),
            }
        })
    }

    pub(super) fn send_volume(&self, volume: &Volume, base: Option<&Volume>, out: &mut dyn Write) -> Result<()> {
        if !self.info(volume)?.ok_or_else(|| not_found(volume))?.read_only {
            return Err(Error::new(Code::VolumeWritable, format!("{volume} is writable: take a snapshot and send that")));
        }
        out.write_all(MAGIC).map_err(reader_gone)?;
        for part in self.parts(volume, base)? {
            let mut header = vec![1, u8::from(part.base.is_some())];
            header.extend(u32::try_from(part.path.len()).unwrap_or(u32::MAX).to_le_bytes());
            header.extend(&part.path);
            header.extend(part.identity.as_bytes());
            header.extend(part.base.map_or(Uuid::nil(), |(_, u)| u).as_bytes());
            header.extend(u32::try_from(part.keep.len()).unwrap_or(u32::MAX).to_le_bytes());
            for name in &part.keep {
                header.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
                header.extend(name);
            }
            out.write_all(&header).map_err(reader_gone)?;
            self.send_part(&part, SendFlags::empty(), out)?;
        }
        out.write_all(&[0]).and_then(|()| out.flush()).map_err(reader_gone)
    }

    /// The kernel's own stream of a volume, without its nested volumes.
    #[cfg(test)]
    pub(super) fn kernel_stream(&self, volume: &Volume, base: Option<&Volume>) -> Result<Vec<u8>> {
        let mut stream = Vec::new();
        self.send_part(&self.parts(volume, base)?.remove(0), SendFlags::empty(), &mut stream)?;
        Ok(stream)
    }

    /// Whether two read-only volumes differ in anything that a send stream contains. The cost follows the number of changes, not the amount of data.
    pub(super) fn volumes_differ(&self, base: &Volume, volume: &Volume) -> Result<bool> {
        let parts = self.parts(volume, Some(base))?;
        let before = self.parts(base, None)?;
        if parts.len() != before.len() || parts.iter().any(|p| p.base.is_none()) {
            return Ok(true);
        }
        for part in &parts {
            let mut changes = Changes::default();
            match self.send_part(part, SendFlags::NO_FILE_DATA, &mut changes) {
                // The first change is enough; the rest is not awaited.
                Err(_) if changes.found => return Ok(true),
                sent => sent?,
            }
            let before = part.base.map(|(id, _)| nested::open_root(self.mount(), id)).transpose()?.flatten();
            if changes.any(before.as_ref().map(AsFd::as_fd))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn receive_volume(&self, to: &Volume, base: Option<&Volume>, op: &OperationId, input: &mut dyn Read) -> Result<VolumeInfo> {
        if self.find(to)?.is_some() {
            return Err(exists(to));
        }
        let place = self.place_for(to)?;
        self.delete(&Volume::Staging(op.clone()))?;
        let hidden = nested::Hidden::announce(self, to, op)?;
        self.receive_parts(place.dir.as_fd(), hidden.name(), base, input)?;
        match renameat2(&place.dir, hidden.name(), &place.dir, place.name.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(exists(to)),
            Err(e) => return Err(Error::io(format!("move what was received to {to}"), e)),
        }
        hidden.withdraw(self)?;
        self.commit()?;
        self.info_of(self.existing(to)?.as_fd())
    }

    /// Creates the volumes of a stream below `name` in `dir`, complete, sealed and durable.
    fn receive_parts(&self, dir: BorrowedFd<'_>, name: &CStr, base: Option<&Volume>, mut input: &mut dyn Read) -> Result<()> {
        let mount = self.mount();
        let mut bases: HashMap<Uuid, u64> = HashMap::new();
        let mut base_top = None;
        if let Some(base) = base {
            let fd = self.existing(base)?;
            let id = nested::id_of(fd.as_fd())?;
            base_top = Some(identity(fd.as_fd())?);
            bases.extend(base_top.map(|u| (u, id)));
            for n in if has_nested(fd.as_fd())? { nested::tree(mount, id)? } else { Vec::new() } {
                if let Some(fd) = nested::open_root(mount, n.id)? {
                    bases.insert(identity(fd.as_fd())?, n.id);
                }
            }
        }
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(cut)?;
        if magic != *MAGIC {
            return Err(corrupt("it does not begin with a volume"));
        }
        let mut made: Vec<(OwnedFd, Uuid, u64)> = Vec::new();
        while let Some(part) = header(&mut input)? {
            if made.len() >= MOST_PARTS || made.is_empty() != part.path.is_empty() {
                return Err(corrupt("its volumes are not in order"));
            }
            let from = match part.base {
                None => None,
                Some((_, uuid)) => {
                    let id = *bases.get(&uuid).filter(|_| !part.path.is_empty() || base_top == Some(uuid)).ok_or_else(|| base_missing(uuid))?;
                    Some((nested::open_root(mount, id)?.ok_or_else(|| base_missing(uuid))?, uuid))
                }
            };
            let volume = match made.first() {
                None => make(dir, name, from.as_ref().map(|(fd, _)| fd.as_fd()))?,
                Some((top, ..)) => make_nested(top.as_fd(), &part.path, from.as_ref().map(|(fd, _)| fd.as_fd()))?,
            };
            // Nested volumes of the base left stubs in places that the stream or the next parts may need.
            if let Some((fd, _)) = &from {
                nested::remove_stubs(mount, fd.as_fd(), volume.as_fd())?;
            }
            let room = |bytes| crate::model::space::check_space(&self.space()?, crate::units::Bytes(bytes));
            let base = from.as_ref().map(|(fd, uuid)| (fd.as_fd(), *uuid));
            let target = Target { root: volume.as_fd(), base, keep: &part.keep, room: &room };
            let applied = apply(&mut input, &target)?;
            if applied.uuid != part.identity {
                return Err(corrupt("a volume is not the one that was announced"));
            }
            made.push((volume, applied.uuid, applied.transid));
        }
        if made.is_empty() {
            return Err(corrupt("it has no volume"));
        }
        // File data goes to disk first: nothing may be visible that a power cut would empty.
        btrfs_uapi::filesystem::sync(mount).io(|| "write out what was received")?;
        for (fd, uuid, transid) in made.iter().rev() {
            received_subvol_set(fd.as_fd(), uuid, *transid).io(|| "store the identity of a received volume")?;
            nested::set_read_only(fd.as_fd(), true)?;
        }
        Ok(())
    }
}

fn base_missing(uuid: Uuid) -> Error {
    Error::new(Code::BaseMissing, format!("the volume {uuid}, on which the stream is an increment, no longer exists here: begin again"))
}

fn reader_gone(e: std::io::Error) -> Error {
    Error::new(Code::TransferCut, format!("the receiver of the stream has disconnected: {e}")).with_source(e)
}

fn send_error(e: Errno) -> Error {
    match e {
        Errno::ENAMETOOLONG => Error::new(Code::PathTooLong, "a path in the volume is longer than 4,095 bytes, which BTRFS cannot send: shorten it"),
        e => Error::io("send a volume", e),
    }
}

fn newest_version() -> u32 {
    let of_kernel = std::fs::read_to_string("/sys/fs/btrfs/features/send_stream_version").ok().and_then(|v| v.trim().parse().ok()).unwrap_or(1);
    u32::min(of_kernel, 2)
}

fn pour(from: OwnedFd, out: &mut dyn Write) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match nix::unistd::read(&from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => out.write_all(&buffer[..n]).map_err(reader_gone)?,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::io("read from the kernel's send", e)),
        }
    }
}

/// Buffers a stream without data while it is too short to contain a change, and stops it when it contains one.
#[derive(Default)]
struct Changes {
    bytes: Vec<u8>,
    found: bool,
}

/// More bytes than the commands of an empty stream.
const EMPTY_STREAM: usize = 1024;

impl Write for Changes {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(data);
        if self.bytes.len() > EMPTY_STREAM {
            self.found = true;
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Changes {
    /// A directory that contains a nested volume changes with each copy. The stream then has a command that sets its times, which are unchanged.
    fn any(&self, before: Option<BorrowedFd<'_>>) -> Result<bool> {
        let same_time = |path: &[u8], mtime: super::stream::Time| {
            let at = before.and_then(|root| open_beneath(root, path, OFlags::PATH).ok());
            at.and_then(|fd| fstat(fd).ok()).is_some_and(|s| (s.st_mtime, s.st_mtime_nsec) == (mtime.0, i64::from(mtime.1)))
        };
        let mut reader = StreamReader::new(&self.bytes[..])?;
        loop {
            match reader.next()? {
                Command::End => return Ok(false),
                Command::Snapshot { .. } | Command::Subvol { .. } => {}
                Command::Utimes { path, mtime, .. } if same_time(path, mtime) => {}
                _ => return Ok(true),
            }
        }
    }
}

/// The next header; `None` at the end.
fn header(input: &mut dyn Read) -> Result<Option<Part>> {
    let mut read = |n: usize| -> Result<Vec<u8>> {
        let mut b = vec![0; n];
        input.read_exact(&mut b).map_err(cut)?;
        Ok(b)
    };
    match read(1)?[0] {
        0 => return Ok(None),
        1 => {}
        other => return Err(corrupt(format!("a part of kind {other}"))),
    }
    let fixed = read(5)?;
    let len = u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]) as usize;
    if len > LONGEST_PATH {
        return Err(corrupt("a path that is too long"));
    }
    let path = read(len)?;
    let uuid = |b: Vec<u8>| Uuid::from_slice(&b).map_err(|_| corrupt("an identity is none"));
    let (identity, base) = (uuid(read(16)?)?, uuid(read(16)?)?);
    let names = read(4)?;
    let names = u32::from_le_bytes([names[0], names[1], names[2], names[3]]);
    if names > MOST_NAMES {
        return Err(corrupt("too many names"));
    }
    let mut keep = Vec::new();
    for _ in 0..names {
        let len = read(2)?;
        let len = usize::from(u16::from_le_bytes([len[0], len[1]]));
        if len > 255 {
            return Err(corrupt("a name that is too long"));
        }
        keep.push(read(len)?);
    }
    Ok(Some(Part { path, id: 0, identity, base: (fixed[0] == 1).then_some((0, base)), keep }))
}

/// Names in a volume's root that look like the temporary names under which the kernel's stream moves things aside.
fn passing_names(volume: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let what = || "read the root of a volume";
    let fd = open_dir_at(volume, c".").io(what)?;
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(fd).io(what)?.iter() {
        let name = entry.io(what)?.file_name().to_bytes().to_owned();
        if is_passing(&name) && names.len() < MOST_NAMES as usize {
            names.push(name);
        }
    }
    Ok(names)
}

/// A new volume, empty or a writable copy.
fn make(dir: BorrowedFd<'_>, name: &CStr, base: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    match base {
        Some(base) => subvolume::snapshot_create(dir, base, name, false, &[]),
        None => subvolume::subvolume_create(dir, name, &[]),
    }
    .io(|| "make a volume to receive into")?;
    open_dir_at(dir, name).io(|| "open a volume just made")
}

/// The same at a path within `top`, whose directories keep their times.
fn make_nested(top: BorrowedFd<'_>, path: &[u8], base: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let refused = |e: &dyn std::fmt::Display| {
        Error::new(Code::StreamRefused, format!("the stream was refused: no volume can be at {:?}: {e}", String::from_utf8_lossy(&path[..path.len().min(200)])))
    };
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    let name = CString::new(name).map_err(|e| refused(&e))?;
    if name.is_empty() || name.as_c_str() == c"." || name.as_c_str() == c".." {
        return Err(refused(&"its name is none"));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat2(top, OsStr::from_bytes(parent), flags, RMode::empty(), resolve).map_err(|e| refused(&e))?;
    keeping_times(dir.as_fd(), || make(dir.as_fd(), &name, base))
}
