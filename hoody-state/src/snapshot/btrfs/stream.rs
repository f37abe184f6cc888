//! Reads the kernel's send stream command by command. It does no I/O except through the reader.
//!
//! Names are bytes, as on the disk, and every length is checked against a bound before it is used: a stream comes from another machine.
//! The format is that of `fs/btrfs/send.h` of Linux, versions 1 and 2.

use crate::error::{Code, Error, Result};
use std::io::{self, Read};
use uuid::Uuid;

const MAGIC: &[u8; 13] = b"btrfs-stream\0";
/// The kernel's largest command is 144 KiB.
const LARGEST: usize = 1 << 20;
const HEADER: usize = 10;

/// Attribute numbers.
mod attr {
    pub const UUID: u16 = 1;
    pub const CTRANSID: u16 = 2;
    pub const SIZE: u16 = 4;
    pub const MODE: u16 = 5;
    pub const UID: u16 = 6;
    pub const GID: u16 = 7;
    pub const RDEV: u16 = 8;
    pub const MTIME: u16 = 10;
    pub const ATIME: u16 = 11;
    pub const XATTR_NAME: u16 = 13;
    pub const XATTR_DATA: u16 = 14;
    pub const PATH: u16 = 15;
    pub const PATH_TO: u16 = 16;
    pub const PATH_LINK: u16 = 17;
    pub const FILE_OFFSET: u16 = 18;
    pub const DATA: u16 = 19;
    pub const CLONE_UUID: u16 = 20;
    pub const CLONE_PATH: u16 = 22;
    pub const CLONE_OFFSET: u16 = 23;
    pub const CLONE_LEN: u16 = 24;
    pub const FALLOCATE_MODE: u16 = 25;
    pub const FILEATTR: u16 = 26;
    /// One more than the largest attribute number of any version.
    pub const END: u16 = 40;
}

/// Seconds and nanoseconds.
pub(super) type Time = (i64, u32);

/// One command. Paths are relative to the volume's root; an empty one is the root itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// The stream creates a new volume.
    Subvol {
        uuid: Uuid,
        transid: u64,
    },
    /// The stream changes a copy of the volume `base`.
    Snapshot {
        uuid: Uuid,
        transid: u64,
        base: Uuid,
    },
    Mkfile {
        path: &'a [u8],
    },
    Mkdir {
        path: &'a [u8],
    },
    Mknod {
        path: &'a [u8],
        mode: u32,
        rdev: u64,
    },
    Mkfifo {
        path: &'a [u8],
    },
    Mksock {
        path: &'a [u8],
    },
    Symlink {
        path: &'a [u8],
        target: &'a [u8],
    },
    Rename {
        path: &'a [u8],
        to: &'a [u8],
    },
    Link {
        path: &'a [u8],
        target: &'a [u8],
    },
    Unlink {
        path: &'a [u8],
    },
    Rmdir {
        path: &'a [u8],
    },
    SetXattr {
        path: &'a [u8],
        name: &'a [u8],
        value: &'a [u8],
    },
    RemoveXattr {
        path: &'a [u8],
        name: &'a [u8],
    },
    Write {
        path: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Clone {
        path: &'a [u8],
        offset: u64,
        len: u64,
        from: Uuid,
        from_path: &'a [u8],
        from_offset: u64,
    },
    Truncate {
        path: &'a [u8],
        size: u64,
    },
    Chmod {
        path: &'a [u8],
        mode: u32,
    },
    Chown {
        path: &'a [u8],
        uid: u32,
        gid: u32,
    },
    Utimes {
        path: &'a [u8],
        atime: Time,
        mtime: Time,
    },
    /// Makes a hole or reserves space; `mode` is that of fallocate(2).
    Fallocate {
        path: &'a [u8],
        mode: u32,
        offset: u64,
        len: u64,
    },
    /// Sets a file's flags (`chattr`), as the flags of `struct btrfs_inode_item`.
    Flags {
        path: &'a [u8],
        flags: u64,
    },
    /// Says where data are, in a stream that carries none.
    Extent,
    End,
}

/// The error for something that is not a send stream, or a damaged one.
pub(super) fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(Code::StreamCorrupt, format!("the stream from the other server is damaged: {what}; nothing of it was kept, try again"))
}

/// The error for a stream that is intact but contains something unknown to this program.
fn unknown(what: impl std::fmt::Display) -> Error {
    Error::new(
        Code::StreamRefused,
        format!("the stream from the other server was refused: {what}; nothing of it was kept. Bring both servers to one version of hoody-state"),
    )
}

/// The error for a stream that ended early.
pub(super) fn cut(e: io::Error) -> Error {
    let message = format!("the stream from the other server broke off ({e}); nothing incomplete was kept; try again");
    Error::new(Code::TransferCut, message).with_source(e)
}

/// Reads one stream after its header.
pub(super) struct StreamReader<R> {
    input: R,
    version: u32,
    payload: Vec<u8>,
    attributes: [Option<(usize, usize)>; attr::END as usize],
}

impl<R: Read> StreamReader<R> {
    /// Reads the header. Errors: `stream_corrupt`, `stream_refused`, `transfer_cut`.
    pub(super) fn new(mut input: R) -> Result<Self> {
        let mut header = [0; MAGIC.len() + 4];
        input.read_exact(&mut header).map_err(cut)?;
        let (magic, version) = header.split_at(MAGIC.len());
        let version = version.try_into().map(u32::from_le_bytes).unwrap_or_default();
        if magic != MAGIC {
            return Err(corrupt("it does not begin like a send stream"));
        }
        if !(1..=2).contains(&version) {
            return Err(unknown(format!("it is of version {version}, and this program knows 1 and 2")));
        }
        Ok(StreamReader { input, version, payload: Vec::with_capacity(160 << 10), attributes: [None; attr::END as usize] })
    }

    /// The next command. Errors: `stream_corrupt`, `stream_refused`, `transfer_cut` (a stream ends with [`Command::End`] only).
    pub(super) fn next(&mut self) -> Result<Command<'_>> {
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header).map_err(cut)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (len, number, crc) = (word(0) as usize, u16::from_le_bytes([header[4], header[5]]), word(6));
        if len > LARGEST {
            return Err(corrupt(format!("a command of {len} bytes")));
        }
        self.payload.resize(len, 0);
        self.input.read_exact(&mut self.payload).map_err(cut)?;
        // The kernel's checksum starts at 0 and is not inverted, and counts its own field as zeros.
        let mut sum = crc32c::crc32c_append(!0, &header[..6]);
        sum = crc32c::crc32c_append(sum, &[0; 4]);
        sum = crc32c::crc32c_append(sum, &self.payload);
        if !sum != crc {
            return Err(corrupt("a checksum does not match"));
        }
        self.split()?;
        self.command(number)
    }

    /// Finds the attributes in the payload.
    fn split(&mut self) -> Result<()> {
        self.attributes = [None; attr::END as usize];
        let mut at = 0;
        while at < self.payload.len() {
            let short = |n: usize| self.payload.get(n..n + 2).map(|b| u16::from_le_bytes([b[0], b[1]])).ok_or_else(|| corrupt("an attribute is cut"));
            let kind = short(at)?;
            // Since version 2 data come last and have no length of their own.
            let (start, len) =
                if self.version >= 2 && kind == attr::DATA { (at + 2, self.payload.len() - at - 2) } else { (at + 4, usize::from(short(at + 2)?)) };
            if kind == 0 || kind >= attr::END || start + len > self.payload.len() {
                return Err(corrupt(format!("attribute {kind} of {len} bytes")));
            }
            self.attributes[usize::from(kind)] = Some((start, len));
            at = start + len;
        }
        Ok(())
    }

    fn bytes(&self, kind: u16) -> Result<&[u8]> {
        let (start, len) = self.attributes[usize::from(kind)].ok_or_else(|| corrupt(format!("attribute {kind} is missing")))?;
        Ok(&self.payload[start..start + len])
    }

    fn number(&self, kind: u16) -> Result<u64> {
        self.bytes(kind)?.try_into().map(u64::from_le_bytes).map_err(|_| corrupt(format!("attribute {kind} is not a number")))
    }

    fn small(&self, kind: u16) -> Result<u32> {
        u32::try_from(self.number(kind)?).map_err(|_| corrupt(format!("attribute {kind} is too large")))
    }

    /// A number of 32 bits.
    fn int(&self, kind: u16) -> Result<u32> {
        self.bytes(kind)?.try_into().map(u32::from_le_bytes).map_err(|_| corrupt(format!("attribute {kind} is not a number of 32 bits")))
    }

    fn uuid(&self, kind: u16) -> Result<Uuid> {
        Uuid::from_slice(self.bytes(kind)?).map_err(|_| corrupt(format!("attribute {kind} is not a UUID")))
    }

    fn time(&self, kind: u16) -> Result<Time> {
        let b: &[u8; 12] = self.bytes(kind)?.try_into().map_err(|_| corrupt(format!("attribute {kind} is not a time")))?;
        let (seconds, nanoseconds) = b.split_at(8);
        let nanoseconds = nanoseconds.try_into().map(u32::from_le_bytes).unwrap_or_default();
        Ok((seconds.try_into().map(i64::from_le_bytes).unwrap_or_default(), nanoseconds.min(999_999_999)))
    }

    fn command(&self, number: u16) -> Result<Command<'_>> {
        let path = || self.bytes(attr::PATH);
        Ok(match number {
            1 => Command::Subvol { uuid: self.uuid(attr::UUID)?, transid: self.number(attr::CTRANSID)? },
            2 => Command::Snapshot { uuid: self.uuid(attr::UUID)?, transid: self.number(attr::CTRANSID)?, base: self.uuid(attr::CLONE_UUID)? },
            3 => Command::Mkfile { path: path()? },
            4 => Command::Mkdir { path: path()? },
            5 => Command::Mknod { path: path()?, mode: self.small(attr::MODE)?, rdev: self.number(attr::RDEV)? },
            6 => Command::Mkfifo { path: path()? },
            7 => Command::Mksock { path: path()? },
            8 => Command::Symlink { path: path()?, target: self.bytes(attr::PATH_LINK)? },
            9 => Command::Rename { path: path()?, to: self.bytes(attr::PATH_TO)? },
            10 => Command::Link { path: path()?, target: self.bytes(attr::PATH_LINK)? },
            11 => Command::Unlink { path: path()? },
            12 => Command::Rmdir { path: path()? },
            13 => Command::SetXattr { path: path()?, name: self.bytes(attr::XATTR_NAME)?, value: self.bytes(attr::XATTR_DATA)? },
            14 => Command::RemoveXattr { path: path()?, name: self.bytes(attr::XATTR_NAME)? },
            15 => Command::Write { path: path()?, offset: self.number(attr::FILE_OFFSET)?, data: self.bytes(attr::DATA)? },
            16 => Command::Clone {
                path: path()?,
                offset: self.number(attr::FILE_OFFSET)?,
                len: self.number(attr::CLONE_LEN)?,
                from: self.uuid(attr::CLONE_UUID)?,
                from_path: self.bytes(attr::CLONE_PATH)?,
                from_offset: self.number(attr::CLONE_OFFSET)?,
            },
            17 => Command::Truncate { path: path()?, size: self.number(attr::SIZE)? },
            18 => Command::Chmod { path: path()?, mode: self.small(attr::MODE)? },
            19 => Command::Chown { path: path()?, uid: self.small(attr::UID)?, gid: self.small(attr::GID)? },
            20 => Command::Utimes { path: path()?, atime: self.time(attr::ATIME)?, mtime: self.time(attr::MTIME)? },
            21 => Command::End,
            22 => Command::Extent,
            23 => Command::Fallocate {
                path: path()?,
                mode: self.int(attr::FALLOCATE_MODE)?,
                offset: self.number(attr::FILE_OFFSET)?,
                len: self.number(attr::SIZE)?,
            },
            24 => Command::Flags { path: path()?, flags: self.number(attr::FILEATTR)? },
            // The kernel writes these only on request, and this program does not request them.
            25 => return Err(unknown("it has compressed data (command 25), which was not requested")),
            26 => return Err(unknown("it is of version 3 (command 26, fs-verity), which was not requested")),
            other => return Err(unknown(format!("command {other} is not known"))),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{End, command, stream, text};
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<usize> {
        let mut reader = StreamReader::new(bytes)?;
        let mut n = 0;
        while reader.next()? != Command::End {
            n += 1;
        }
        Ok(n)
    }

    #[test]
    fn names_are_bytes() {
        let bytes = stream(1, &[command(3, &[(15, b"a\xff\xfe")])], End::Whole);
        let mut reader = StreamReader::new(&bytes[..]).unwrap();
        assert_eq!(reader.next().unwrap(), Command::Mkfile { path: b"a\xff\xfe" });
        assert_eq!(reader.next().unwrap(), Command::End);
    }

    #[test]
    fn data_of_version_two_run_to_the_end_of_their_command() {
        let mut payload = text(&[(15, b"f"), (18, &7u64.to_le_bytes())]);
        payload.extend(19u16.to_le_bytes());
        payload.extend([9; 70_000]);
        let bytes = stream(2, &[(15, payload)], End::Whole);
        let mut reader = StreamReader::new(&bytes[..]).unwrap();
        let Command::Write { offset: 7, data, .. } = reader.next().unwrap() else { panic!("no write") };
        assert_eq!(data.len(), 70_000);
    }

    #[test]
    fn a_hole_and_flags_are_read() {
        let n = |v: u64| v.to_le_bytes();
        let bytes = stream(
            2,
            &[command(23, &[(15, b"f"), (25, &3u32.to_le_bytes()), (18, &n(4096)), (4, &n(8192))]), command(24, &[(15, b"f"), (26, &n(1 << 8))])],
            End::Whole,
        );
        let mut reader = StreamReader::new(&bytes[..]).unwrap();
        assert_eq!(reader.next().unwrap(), Command::Fallocate { path: b"f", mode: 3, offset: 4096, len: 8192 });
        assert_eq!(reader.next().unwrap(), Command::Flags { path: b"f", flags: 1 << 8 });
    }

    #[test]
    fn a_changed_byte_and_an_early_end_are_seen() {
        let bytes = stream(1, &[command(3, &[(15, b"file")]), command(17, &[(15, b"file"), (4, &9u64.to_le_bytes())])], End::Whole);
        assert_eq!(all(&bytes).unwrap(), 2);
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x10;
            assert!(all(&bad).is_err(), "byte {i}");
            assert!(all(&bytes[..i]).is_err(), "cut at {i}");
        }
        assert_eq!(all(&bytes[..bytes.len() - 1]).unwrap_err().code(), Code::TransferCut);
    }

    #[test]
    fn a_command_that_claims_gigabytes_is_not_believed() {
        let mut bytes = stream(1, &[], End::Cut);
        bytes.extend(u32::MAX.to_le_bytes());
        bytes.extend([3, 0, 0, 0, 0, 0]);
        assert_eq!(all(&bytes).unwrap_err().code(), Code::StreamCorrupt);
    }

    proptest! {
        #[test]
        fn rubbish_is_refused_and_nothing_panics(number in 0u16..60, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&stream(2, &[(number, payload)], End::Whole));
        }
    }
}
