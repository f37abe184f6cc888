//! Errors of mounting, each with its code.

use crate::claim::InUse;
use crate::volume::BACKINGS;
use hoody_state::Code;
use std::ffi::OsString;
use std::path::PathBuf;

/// Enough for a few databases: a connection takes up to ten, and the daemon itself keeps some.
pub(crate) const FEWEST_DESCRIPTORS: usize = 256;

/// An error of a mount.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// Only root can mount with passthrough for all users.
    #[error("mounting needs root: run it with sudo")]
    NotRoot,
    /// The kernel has no FUSE, or the device node is missing.
    #[error("/dev/fuse cannot be opened ({0}): the kernel needs FUSE (`modprobe fuse`)")]
    NoFuse(std::io::Error),
    /// The backing cannot be used.
    #[error("the backing {} cannot be used: {source}; choose a directory", path.display())]
    Backing {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The mountpoint cannot be used.
    #[error("the mountpoint {} cannot be used: {source}; choose an empty directory", path.display())]
    Mountpoint {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of the two is inside the other.
    #[error("one of {} and {} is inside the other: the mount would cover its own backing; use two separate directories", backing.display(), mountpoint.display())]
    Nested {
        /// The backing.
        backing: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
    },
    /// The limit of open files is too low.
    #[error("the limit of open files is {0}, and a mount needs {FEWEST_DESCRIPTORS}: raise it (`ulimit -n`, `LimitNOFILE=` of systemd)")]
    TooFewDescriptors(usize),
    /// The mountpoint is not empty, and the mount would hide its files.
    #[error(
        "{} is not empty, and the mount would hide its files: choose an empty directory, or mount this one over itself (`hoody-state-fuse mount {}`)",
        .0.display(),
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// The backing is already served, or a directory inside or around it.
    #[error("{0}")]
    BackingInUse(Box<InUse>),
    /// A daemon that was unmounted while files of the backing were open is still written to.
    #[error("{0}")]
    Busy(String),
    /// There is a mount already.
    #[error("{} is already mounted: unmount it first (`hoody-state-fuse unmount`, or `umount`)", .0.display())]
    InUse(PathBuf),
    /// There is no such volume.
    #[error("there is no volume {}", .0.display())]
    NoVolume(OsString),
    /// The name is taken.
    #[error("the volume {} exists already", .0.display())]
    VolumeExists(OsString),
    /// The name is not a file name.
    #[error("{:?} is not a valid name for a volume: use a file name without /", .0.display())]
    VolumeName(OsString),
    /// The mount is of a single directory.
    #[error("this is a mount of a single directory: volumes can only be added to `hoody-state-fuse mount - MOUNTPOINT`")]
    SingleDirectory,
    /// The limit of directories is reached.
    #[error("the limit of {BACKINGS} served directories is reached: remove a volume first")]
    Full,
    /// The kernel refused.
    #[error("mounting on {} failed: {source}", path.display())]
    Kernel {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl MountError {
    /// The code that the control protocol carries.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            MountError::NoVolume(_) => Code::VolumeNotFound,
            MountError::VolumeExists(_) => Code::VolumeExists,
            MountError::VolumeName(_) | MountError::SingleDirectory | MountError::Backing { .. } | MountError::Nested { .. } => Code::BadVolume,
            MountError::Full => Code::DatabasesFull,
            MountError::BackingInUse(_) => Code::BackingInUse,
            MountError::Busy(_) => Code::DatabasesBusy,
            _ => Code::DatabasesFailed,
        }
    }
}
