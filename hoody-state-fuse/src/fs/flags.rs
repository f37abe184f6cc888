//! File flags (`chattr`, `lsattr`), which are those of the backing file. The kernel sends the ioctl calls of local file systems, on an open of its own, after it
//! has checked that the caller owns the file, and has CAP_LINUX_IMMUTABLE where that is needed.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use std::os::fd::AsFd;

/// `struct fsxattr` of `linux/fs.h`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Fsxattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// The struct as bytes, in the order of the fields.
const FSXATTR: usize = size_of::<Fsxattr>();

/// These calls are declared with `long`, but the argument is an `int`.
const GETFLAGS: Opcode = opcode::read::<nix::libc::c_long>(b'f', 1);
const SETFLAGS: Opcode = opcode::write::<nix::libc::c_long>(b'f', 2);
const FSGETXATTR: Opcode = opcode::read::<Fsxattr>(b'X', 31);
const FSSETXATTR: Opcode = opcode::write::<Fsxattr>(b'X', 32);

/// Flags that the owner of a file can change, and the two for which the kernel has checked a capability: secrm, unrm, compress, sync, immutable, append, nodump,
/// noatime, nocompress, dirsync, notail, topdir, nocow. Others (such as a journal for data) need rights that only the
/// backing file system checks, and it would check those of this process.
const CHANGEABLE: u32 = 0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0010 | 0x0020 | 0x0040 | 0x0080 | 0x0400 | 0x1_0000 | 0x8000 | 0x2_0000 | 0x80_0000;
/// The same among the extended ones: immutable, append, sync, noatime, nodump, project inheritance.
const CHANGEABLE_X: u32 = 0x0008 | 0x0010 | 0x0020 | 0x0040 | 0x0080 | 0x0200;

fn word(bytes: &[u8]) -> Result<u32, Errno> {
    bytes.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes).ok_or(Errno::INVAL)
}

impl Fsxattr {
    fn read(bytes: &[u8]) -> Result<Self, Errno> {
        let at = |i: usize| word(bytes.get(4 * i..).unwrap_or_default());
        Ok(Fsxattr { xflags: at(0)?, extsize: at(1)?, nextents: at(2)?, projid: at(3)?, cowextsize: at(4)?, pad: [0; 8] })
    }

    fn write(self) -> Vec<u8> {
        let mut bytes: Vec<u8> = [self.xflags, self.extsize, self.nextents, self.projid, self.cowextsize].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.resize(FSXATTR, 0);
        bytes
    }
}

fn flags(file: impl AsFd) -> Result<u32, Errno> {
    // SAFETY: FS_IOC_GETFLAGS writes an `int` through the pointer.
    unsafe { ioctl(file, Getter::<GETFLAGS, u32>::new()) }
}

fn extended(file: impl AsFd) -> Result<Fsxattr, Errno> {
    // SAFETY: FS_IOC_FSGETXATTR writes a `struct fsxattr` through the pointer, every field of which may have any value.
    unsafe { ioctl(file, Getter::<FSGETXATTR, Fsxattr>::new()) }
}

/// Performs a call on an open backing file and returns the answer. ENOTTY for unknown calls.
pub(super) fn call(file: impl AsFd + Copy, command: u32, input: &[u8]) -> Result<Vec<u8>, Errno> {
    match Opcode::from(command) {
        GETFLAGS => Ok(flags(file)?.to_ne_bytes().to_vec()),
        FSGETXATTR => Ok(extended(file)?.write()),
        SETFLAGS => {
            let new = word(input)?;
            if (new ^ flags(file)?) & !CHANGEABLE != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            // SAFETY: FS_IOC_SETFLAGS reads an `int` through the pointer.
            unsafe { ioctl(file, Setter::<SETFLAGS, u32>::new(new)) }?;
            Ok(Vec::new())
        }
        FSSETXATTR => {
            let new = Fsxattr::read(input)?;
            if (new.xflags ^ extended(file)?.xflags) & !CHANGEABLE_X != 0 {
                return Err(Errno::OPNOTSUPP);
            }
            // SAFETY: FS_IOC_FSSETXATTR reads a `struct fsxattr` through the pointer.
            unsafe { ioctl(file, Setter::<FSSETXATTR, Fsxattr>::new(new)) }?;
            Ok(Vec::new())
        }
        _ => Err(Errno::NOTTY),
    }
}
