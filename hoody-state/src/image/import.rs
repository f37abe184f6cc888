//! Imports a tar as an image.

use super::entry::Writer;
use super::format::Decompressed;
use super::members::Members;
use super::options::{ImportOptions, cancelled};
use super::{format, rootfs};
use crate::error::{Code, Error, IoContext, Result};
use crate::units::Bytes;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Files, directories, links and devices written.
    pub files: u64,
    /// Bytes of file contents written; holes do not count.
    pub bytes: Bytes,
    /// What was skipped, one line for each kind of thing.
    pub skipped: Vec<String>,
}

/// Unpacks a tar into `root`: an empty directory, in practice a new writable volume.
///
/// - Plain, gzip or zstd, several members or frames in a row too. It streams: memory does not grow with the archive.
/// - ustar, GNU (long names, sparse files) and pax (sub-second times, extended attributes, sparse files). Hard links, symlinks, FIFOs and
///   device nodes are created as they are in the archive. A container cannot open a device node, because of its user namespace; the pool
///   must be mounted `nodev` so that the host does not either.
/// - Layer whiteouts (`.wh.NAME`, `.wh..wh..opq`, overlay's character device 0/0) remove what earlier entries put there.
/// - Owners are numbers (names are ignored) and are shifted by `id_base`, also those in ACLs and file capabilities.
/// - Nothing is ever created through a symlink or outside `root`: see `Kind::Invalid` below.
/// - The result must be a root file system; the directories that every container needs are added.
///
/// A crash or an error leaves `root` incomplete: the caller deletes it. Nothing is synced.
///
/// # Errors
/// - `Kind::Invalid`: `image_format` (not a tar, plain or with gzip or zstd), `image_corrupt` (damaged or cut short), `image_path_unsafe` (an absolute
///   path, `..`, a parent that is a symlink or a file, a name too long), `image_link_unsafe` (a hard link to a file that does not exist),
///   `image_entry_conflict` (a file where a directory is), `image_id_range` (an owner beyond 65535), `image_xattr`,
///   `image_no_root` (nothing to boot).
/// - `Kind::TooLarge` `image_too_large`, `image_header_too_large` (attributes, a map of holes or a name that would take more memory than an import may); `Kind::NoSpace`; `Kind::Cancelled`; `Kind::Conflict` `image_root_not_empty`;
///   `Kind::Io`. An [`Error`] inside the reader's `io::Error` comes out as it is.
pub fn import(reader: impl Read, root: &Path, options: &ImportOptions<'_>) -> Result<ImportReport> {
    if std::fs::read_dir(root).io(|| format!("list {}", root.display()))?.next().is_some() {
        return Err(Error::new(Code::ImageRootNotEmpty, format!("{} is not empty: an image can be unpacked only into an empty directory", root.display())));
    }
    // A tar may have no entry for its root. Without an owner in the container's range, the container's root could not write there.
    let owner = options.id_base;
    std::os::unix::fs::chown(root, Some(owner), Some(owner)).io(|| format!("give {} to id {owner}", root.display()))?;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).io(|| format!("set the mode of {}", root.display()))?;
    let mut members = Members::new(Decompressed::open(format::Source::new(reader, options), options.max_bytes)?);
    let mut writer = Writer::open(root, options.id_base)?;
    while let Some(member) = members.next()? {
        if (options.cancelled)() {
            return Err(cancelled());
        }
        writer.write(&member, &mut members)?;
    }
    let after = members.finish()?;
    if after > 0 {
        writer.skipped.add("bytes after the archive's end mark", format!("{after} bytes").as_bytes());
    }
    rootfs::complete(&mut writer.tree)?;
    rootfs::check(&writer.tree)?;
    writer.tree.close()?;
    Ok(ImportReport { files: writer.files, bytes: Bytes(writer.bytes), skipped: writer.skipped.lines() })
}
