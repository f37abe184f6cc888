//! Merging equal ranges of files (`FIDEDUPERANGE`).
#![allow(unsafe_code)]

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FILE_DEDUPE_RANGE_DIFFERS` of linux/fs.h.
const DIFFERS: i32 = 1;

/// `struct file_dedupe_range` followed by one `struct file_dedupe_range_info`.
#[repr(C)]
#[derive(Default)]
struct Range {
    src_offset: u64,
    src_length: u64,
    dest_count: u16,
    reserved1: u16,
    reserved2: u32,
    dest_fd: i64,
    dest_offset: u64,
    bytes_deduped: u64,
    status: i32,
    reserved: u32,
}

/// The size of `struct file_dedupe_range` alone, which the number of the call contains.
const HEADER: usize = 24;

nix::ioctl_readwrite_bad!(dedupe, nix::request_code_readwrite!(0x94, 54, HEADER), Range);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// So many bytes, which may be fewer than were asked for, lie at one place now.
    Bytes(u64),
    /// The two are not equal. Nothing was changed.
    Differ,
}

/// Lets `len` bytes of `to` at `to_offset` lie where those of `from` at `from_offset` lie, if the two are equal: the kernel compares them while both files are locked, so
/// no content ever changes. Root may do this to a file that is open for reading alone. At most 16 MiB at a time keep the locks short.
pub(crate) fn merge_range(from: BorrowedFd<'_>, from_offset: u64, len: u64, to: BorrowedFd<'_>, to_offset: u64) -> nix::Result<Merged> {
    let mut range =
        Range { src_offset: from_offset, src_length: len, dest_count: 1, dest_fd: i64::from(to.as_raw_fd()), dest_offset: to_offset, ..Range::default() };
    // SAFETY: `range` is laid out as the kernel's struct with one destination, as its count says, and outlives the call; both descriptors are open.
    unsafe { dedupe(from.as_raw_fd(), &raw mut range) }?;
    match range.status {
        0 => Ok(Merged::Bytes(range.bytes_deduped)),
        DIFFERS => Ok(Merged::Differ),
        error => Err(Errno::from_raw(error.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_struct_has_the_kernels_size() {
        assert_eq!(size_of::<Range>(), HEADER + 32);
    }

    #[test]
    fn an_error_of_the_destination_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create_new(dir.path().join("f")).unwrap();
        std::fs::write(dir.path().join("f"), vec![1; 8192]).unwrap();
        // A directory can be neither source nor destination.
        let root = std::fs::File::open(dir.path()).unwrap();
        assert!(merge_range(file.as_fd(), 0, 4096, root.as_fd(), 0).is_err());
    }
}
