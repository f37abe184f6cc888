//! Tests of the import as a whole. They need root: owners and device nodes are part of what is imported.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hostile;
mod properties;
mod round_trip;

use super::{ImportOptions, ImportReport, import};
use crate::error::Result;
use crate::units::Bytes;
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

pub(super) const BASE: u32 = 100_000;

pub(super) fn options() -> ImportOptions<'static> {
    ImportOptions { id_base: BASE, max_bytes: Some(Bytes::mib(64)), cancelled: &|| false, progress: &|_| () }
}

/// A directory with the image's root in it, and beside the root something that must never change.
pub(super) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hs-image-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::create_dir(dir.path().join("canary")).unwrap();
        std::fs::write(dir.path().join("canary/file"), "untouched").unwrap();
        Place { dir }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(super) fn import(&self, tar: &[u8]) -> Result<ImportReport> {
        import(tar, &self.root(), &options())
    }

    /// Nothing but the root and the canary is there, and the canary is what it was.
    pub(super) fn assert_canary(&self) {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "root"]);
        let inside: Vec<_> = std::fs::read_dir(self.dir.path().join("canary")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(inside, ["file"]);
        let file = self.dir.path().join("canary/file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "untouched");
        let meta = std::fs::metadata(&file).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((meta.uid(), meta.nlink()), (0, 1));
    }
}

/// An archive under construction; headers are written raw, so that names may be anything.
#[derive(Default, Clone)]
pub(super) struct Archive(pub(super) Vec<u8>);

impl Archive {
    pub(super) fn raw(mut self, kind: u8, path: &[u8], link: &[u8], data: &[u8], change: impl FnOnce(&mut Header)) -> Self {
        let mut h = Header::new_gnu();
        h.as_old_mut().name[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
        h.as_old_mut().linkname[..link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        h.set_entry_type(EntryType::new(kind));
        h.set_mode(0o755);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(1_700_000_000);
        h.set_size(data.len() as u64);
        if kind == b'3' || kind == b'4' {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        }
        change(&mut h);
        h.set_cksum();
        self.0.extend_from_slice(h.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn entry(self, kind: u8, path: &str, link: &str) -> Self {
        self.raw(kind, path.as_bytes(), link.as_bytes(), b"", |_| ())
    }

    pub(super) fn file(self, path: &str, data: &[u8]) -> Self {
        self.raw(b'0', path.as_bytes(), b"", data, |_| ())
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = 3 + key.len() + value.len();
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b'x', b"PaxHeader", b"", &data, |_| ())
    }

    /// What makes it a root file system.
    pub(super) fn bootable() -> Self {
        Archive::default().file("bin/sh", b"#!")
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

pub(super) fn zst(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).unwrap()
}

pub(super) fn listing(root: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<String>) {
        for e in std::fs::read_dir(dir).unwrap() {
            let e = e.unwrap();
            out.push(e.path().strip_prefix(root).unwrap().to_string_lossy().into_owned());
            if e.file_type().unwrap().is_dir() {
                walk(&e.path(), root, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}
