//! The kernel's tables of mounts, `/proc/<pid>/mountinfo`, read in one place. See `proc_pid_mountinfo(5)`.
//!
//! A table is one consistent reading only if it is read at once, which is what these functions do. The cost is one `read` whose length grows with the
//! number of mounts of the namespace.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount: a line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountEntry {
    /// Identifies the mount among all mounts of the machine, until it is unmounted.
    pub id: u64,
    /// The id of the mount it lies on.
    pub parent: u64,
    /// Major and minor number of the file system's device.
    pub device: (u64, u64),
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// The mount point, as the reading process names it.
    pub at: PathBuf,
    /// The options of the mount, separated by commas: `rw,noatime`.
    pub options: String,
    /// The type of the file system: `btrfs`.
    pub kind: String,
    /// What is mounted: a device, or a name that the mounter chose.
    pub source: PathBuf,
    /// The options of the file system, separated by commas.
    pub super_options: String,
}

impl MountEntry {
    /// Whether the mount forbids writing; the file system beneath may be writable elsewhere.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.options.split(',').any(|o| o == "ro")
    }
}

/// The mounts that a process sees, in the order they were mounted.
///
/// # Errors
/// Those of reading its table: `NotFound` when there is no such process.
pub fn of_process(pid: u32) -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read(format!("/proc/{pid}/mountinfo"))?))
}

/// The mounts that this process sees, in the order they were mounted.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn of_this_process() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The topmost mount on exactly the place `at`, which must be absolute and without links. Nothing is asked of the file system itself, whose daemon may be
/// dead.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn topmost(at: &Path) -> io::Result<Option<MountEntry>> {
    Ok(of_this_process()?.into_iter().rfind(|m| m.at == at))
}

/// Which directory of which file system shows at `path`, which must be absolute and without links: the device, and the path beneath the file system's own
/// root. Another mount with the same two shows the same directory. Nothing is asked of the file system itself.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn shown_at(path: &Path) -> io::Result<Option<((u64, u64), PathBuf)>> {
    Ok(shown_in(&of_this_process()?, path))
}

fn shown_in(mounts: &[MountEntry], path: &Path) -> Option<((u64, u64), PathBuf)> {
    // The last of equally deep ones lies on top.
    let mount = mounts.iter().filter(|m| path.starts_with(&m.at)).max_by_key(|m| m.at.components().count())?;
    let below = path.strip_prefix(&mount.at).ok()?;
    // `join` with an empty path would add a slash.
    Some((mount.device, if below.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(below) }))
}

/// Reads a table. A line that is none is left out.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|b| *b == b'\n').filter_map(entry).collect()
}

fn entry(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let number = |f: &[u8]| std::str::from_utf8(f).ok()?.parse().ok();
    let text = |f: &[u8]| String::from_utf8_lossy(f).into_owned();
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, at) = (unescape(fields.next()?).into(), unescape(fields.next()?).into());
    let options = text(fields.next()?);
    fields.find(|f| *f == b"-")?;
    let kind = text(fields.next()?);
    Some(MountEntry {
        id,
        parent,
        device,
        root,
        at,
        options,
        kind,
        source: unescape(fields.next()?).into(),
        super_options: text(fields.next().unwrap_or_default()),
    })
}

/// Undoes the escapes of the kernel: a blank is `\040`.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = (b == b'\\').then(|| tail.get(..3)).flatten().and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let m = entry(br"36 35 98:0 /x /mnt\040a\134b ro,noatime shared:1 master:2 - btrfs /dev/loop\0403 rw,errors=continue").unwrap();
        let wanted = MountEntry {
            id: 36,
            parent: 35,
            device: (98, 0),
            root: "/x".into(),
            at: PathBuf::from(r"/mnt a\b"),
            options: "ro,noatime".into(),
            kind: "btrfs".into(),
            source: "/dev/loop 3".into(),
            super_options: "rw,errors=continue".into(),
        };
        assert_eq!(m, wanted);
        assert!(m.read_only());
        assert_eq!(entry(b"36 35 98:0 / /x rw"), None);
        assert_eq!(entry(b""), None);
        assert_eq!(unescape(br"a\9zb\"), r"a\9zb\");
    }

    #[test]
    fn the_deepest_and_last_mount_shows_a_path() {
        let table = b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 /sub /mnt rw - btrfs b rw\n3 1 8:3 / /mnt rw - fuse c rw\n4 1 8:4 / /mnt2 rw - tmpfs d rw";
        let shown = |path: &str| shown_in(&parse(table), Path::new(path)).unwrap();
        assert_eq!(shown("/etc"), ((8, 1), "/etc".into()));
        assert_eq!(shown("/mnt"), ((8, 3), "/".into()));
        assert_eq!(shown("/mnt/p/x"), ((8, 3), "/p/x".into()));
        assert_eq!(shown("/mnt2/y"), ((8, 4), "/y".into()));
        assert_eq!(shown_in(&parse(&table[..60]), Path::new("/mnt/y")).unwrap(), ((8, 2), "/sub/y".into()));
        assert_eq!(shown_in(&[], Path::new("/")), None);
    }

    #[test]
    fn this_process_has_a_root_and_proc() {
        assert!(of_this_process().unwrap().iter().any(|m| m.at == Path::new("/")));
        assert_eq!(topmost(Path::new("/proc")).unwrap().unwrap().kind, "proc");
        assert_eq!(of_process(std::process::id()).unwrap(), of_this_process().unwrap());
        assert_eq!(of_process(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
