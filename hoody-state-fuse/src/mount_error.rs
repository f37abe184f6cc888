//! Errors of mounting, each with its code.

use crate::claim::InUse;
use crate::volume::BACKINGS;
use hoody_state::Code;
use std::ffi::OsString;
use std::path::PathBuf;

/// Enough for a few databases: a connection takes up to ten, and the daemon itself keeps some.
pub(crate) const FEWEST_DESCRIPTORS: usize = 256;

/// What mounting can meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// Only root may mount with passthrough for all users.
    #[error("mounting needs root: run it with sudo")]
    NotRoot,
    /// No FUSE in this kernel, or no device node.
    #[error("/dev/fuse cannot be opened ({0}): the kernel needs FUSE (`modprobe fuse`)")]
    NoFuse(std::io::Error),
    /// The backing cannot be used.
    #[error("the backing {} cannot be used: {source}; give a directory", path.display())]
    Backing {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The mountpoint cannot be used.
    #[error("the mountpoint {} cannot be used: {source}; give an empty directory", path.display())]
    Mountpoint {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One of the two lies in the other.
    #[error("{} and {} lie in each other: a mount would cover its own backing; use two separate directories", backing.display(), mountpoint.display())]
    Nested {
        /// The backing.
        backing: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
    },
    /// This process may have too few open files.
    #[error("this process may have {0} open files, and mounting needs {FEWEST_DESCRIPTORS}: raise the limit (`ulimit -n`, `LimitNOFILE=` of systemd)")]
    TooFewDescriptors(usize),
    /// The mountpoint has something in it, which the mount would hide.
    #[error(
        "{} is not empty, and a mount would hide what is in it: give an empty directory, or mount that directory over itself (`hoody-state-fuse mount {}`)",
        .0.display(),
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// The backing is served already, or one that lies in it, or in which it lies.
    #[error("{0}")]
    BackingInUse(Box<InUse>),
    /// A daemon that was unmounted while files of the backing were open is written to still.
    #[error("{0}")]
    Busy(String),
    /// Something is mounted there.
    #[error("{} is a mountpoint already: unmount it first (`hoody-state-fuse unmount`, or `umount`)", .0.display())]
    InUse(PathBuf),
    /// There is no such volume.
    #[error("there is no volume {}", .0.display())]
    NoVolume(OsString),
    /// There is one of that name.
    #[error("there is a volume {} already", .0.display())]
    VolumeExists(OsString),
    /// No volume can be called that.
    #[error("a volume cannot be called {:?}: give one file name", .0.display())]
    VolumeName(OsString),
    /// It is a mount of one directory.
    #[error("this mount is of one directory: only a mount of volumes (`hoody-state-fuse mount - MOUNTPOINT`) can be given more")]
    SingleDirectory,
    /// No more directories can be served.
    #[error("{BACKINGS} directories are served already: remove a volume first")]
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
