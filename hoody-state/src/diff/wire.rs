//! Records as the wire shows them, and the places between two answers. Pure.

use super::{Field, Kind, Record};
use crate::error::{Code, Error, Result};
use crate::model::{DiffKind, DiffRecord};
use crate::tree::{TreePath, encoded, percent_encoded, shown};
use crate::units::Bytes;

fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

impl Field {
    /// Its word on the wire. Bytes of an attribute's name that are not UTF-8 are shown as U+FFFD.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Field::Mode => "mode".into(),
            Field::Uid => "uid".into(),
            Field::Gid => "gid".into(),
            Field::Mtime => "mtime".into(),
            Field::Atime => "atime".into(),
            Field::Flags => "flags".into(),
            Field::Device => "device".into(),
            Field::Acl => "acl".into(),
            Field::DefaultAcl => "default_acl".into(),
            Field::Xattr(name) => format!("xattr:{}", shown(name)),
        }
    }
}

impl From<&Record> for DiffRecord {
    fn from(r: &Record) -> Self {
        let path = absolute(&r.path);
        let link_of = r.link_of.as_ref().map(|p| absolute(p));
        let (kind, from, to) = match &r.kind {
            Kind::Deleted => (DiffKind::Deleted, None, None),
            Kind::Added => (DiffKind::Added, None, None),
            Kind::Modified => (DiffKind::Modified, None, None),
            Kind::Metadata => (DiffKind::Metadata, None, None),
            Kind::Renamed { from } => (DiffKind::Renamed, Some(absolute(from)), None),
            Kind::TypeChanged { from, to } => (DiffKind::TypeChanged, Some(from.as_str().as_bytes().to_vec()), Some(*to)),
        };
        DiffRecord {
            kind,
            path: shown(&path),
            path_encoded: encoded(&path),
            from_encoded: from.as_deref().and_then(encoded),
            from: from.as_deref().map(shown),
            to,
            file_type: r.file_type,
            bytes: Bytes(r.bytes),
            fields: r.fields.iter().map(Field::word).collect(),
            link_of_encoded: link_of.as_deref().and_then(encoded),
            link_of: link_of.as_deref().map(shown),
            replaces: r.replaces,
        }
    }
}

/// A place in the order of records: behind one of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    path: Vec<u8>,
    /// Whether the record is not `Deleted`: of one path that one comes first.
    present: bool,
}

impl Cursor {
    /// Behind this record.
    #[must_use]
    pub fn behind(r: &Record) -> Self {
        Cursor { path: r.path.clone(), present: r.kind != Kind::Deleted }
    }

    /// The smallest path that may come behind it.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", if self.present { '1' } else { '0' }, percent_encoded(&absolute(&self.path)))
    }

    /// Reads it again.
    ///
    /// # Errors
    /// `invalid_page`.
    pub fn read(text: &str) -> Result<Self> {
        let wrong = || Error::new(Code::InvalidPage, "cursor: it is none of a diff; begin without one");
        let (present, path) = match text.split_at_checked(1) {
            Some(("0", path)) => (false, path),
            Some(("1", path)) => (true, path),
            _ => return Err(wrong()),
        };
        Ok(Cursor { path: TreePath::decode(path).map_err(|_| wrong())?.as_bytes().to_vec(), present })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::diff::{FileType, Inode};

    fn record(path: &[u8], kind: Kind) -> Record {
        let inode = Inode { ino: 257, generation: 9 };
        Record { path: path.into(), kind, file_type: FileType::File, inode, bytes: 7, content: true, fields: vec![], link_of: None, replaces: None }
    }

    #[test]
    fn names_that_are_not_utf8_are_shown_twice() {
        let r = Record { fields: vec![Field::Mode, Field::Xattr(b"user.a".to_vec())], ..record(b"a\xffb", Kind::Renamed { from: b"c d".to_vec() }) };
        let wire = serde_json::to_value(DiffRecord::from(&r)).unwrap();
        let expected = serde_json::json!({
            "kind": "renamed", "path": "/a\u{fffd}b", "path_encoded": "/a%FFb", "from": "/c d", "type": "file", "bytes": 7, "fields": ["mode", "xattr:user.a"]
        });
        assert_eq!(wire, expected);
    }

    #[test]
    fn a_changed_type_names_both() {
        let wire = serde_json::to_value(DiffRecord::from(&record(b"x", Kind::TypeChanged { from: FileType::Directory, to: FileType::File }))).unwrap();
        assert_eq!((&wire["from"], &wire["to"]), (&serde_json::json!("directory"), &serde_json::json!("file")));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for (path, kind) in [(&b"a/b"[..], Kind::Added), (b"\xff\n%", Kind::Deleted), (b"", Kind::Metadata)] {
            let cursor = Cursor::behind(&record(path, kind));
            assert_eq!(Cursor::read(&cursor.text()).unwrap(), cursor);
        }
        for bad in ["", "2/a", "x", "1/..", "1/%zz"] {
            assert_eq!(Cursor::read(bad).unwrap_err().code(), Code::InvalidPage, "{bad}");
        }
    }
}
