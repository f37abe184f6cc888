//! The record by which a file system is recognised as a pool of ours: `hoody-pool.json` in its root.

use crate::error::{Code, Error, IoContext, Result};
use crate::id::ServerId;
use crate::pool::layout;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use uuid::Uuid;

/// The pool format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Which server's pool it is, and the settings from its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// The format of the layout.
    pub format: u32,
    /// The pool's id, which is the id of its file system too.
    pub pool_id: Uuid,
    /// The first host id of the containers' range.
    pub id_base: u32,
    /// The id of the server whose pool it is.
    pub server_id: ServerId,
    /// When the pool was created.
    pub created_at: Timestamp,
    /// The server's name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// The record of the pool mounted at `root`; `None` if there is none.
pub(super) fn read(root: &Path) -> Result<Option<PoolRecord>> {
    let path = root.join(layout::RECORD);
    match std::fs::read(&path) {
        Ok(text) => parse(&text).map(Some).map_err(|e| e.context(path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
    }
}

fn parse(text: &[u8]) -> Result<PoolRecord> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let broken = |e| Error::new(Code::PoolRecordBroken, format!("the pool's record cannot be read ({e}): restore it from a backup")).with_source(e);
    // The version is read alone first, because a newer record may lack fields of this one.
    let Version { format } = serde_json::from_slice(text).map_err(broken)?;
    if format > FORMAT {
        return Err(Error::new(Code::PoolTooNew, format!("the pool has format {format}, this server knows formats up to {FORMAT}: use a newer server")));
    }
    serde_json::from_slice(text).map_err(broken)
}

/// Writes the record atomically and durably.
pub(super) fn write(root: &Path, record: &PoolRecord) -> Result<()> {
    let path = root.join(layout::RECORD);
    let new_file = root.join(format!("{}.new", layout::RECORD));
    let what = || format!("write {}", path.display());
    let mut text = serde_json::to_vec_pretty(record).map_err(|e| Error::internal(e.to_string()))?;
    text.push(b'\n');
    let mut file = File::create(&new_file).io(what)?;
    file.write_all(&text).io(what)?;
    file.sync_all().io(what)?;
    std::fs::rename(&new_file, &path).io(what)?;
    File::open(root).and_then(|d| d.sync_all()).io(what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_newer_record_is_refused_whatever_else_it_holds() {
        assert_eq!(parse(br#"{"format": 2, "anything": []}"#).unwrap_err().code(), Code::PoolTooNew);
        assert_eq!(parse(b"").unwrap_err().code(), Code::PoolRecordBroken);
        assert_eq!(parse(br#"{"format": 1}"#).unwrap_err().code(), Code::PoolRecordBroken);
    }
}
