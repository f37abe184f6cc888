//! A subtree of a container as a tar.

use super::Host;
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::name::SnapshotName;
use crate::ops::archive_live::{HeldState, hold};
use crate::services::files::{databases_in, own_volume};
use crate::tree::{Archive, Last, LeftOut, TreePath};
use std::io::Write;
use zstd::stream::write::Encoder;

/// How much an answer gathers before it is passed on, in bytes.
const PIECE: usize = 256 << 10;
/// The level of compression: zstd's own default.
const LEVEL: i32 = 3;

/// An archive that is made piece by piece, as somebody takes it. It can be read to its end whatever becomes of its snapshot or its container.
pub struct FileArchive {
    tar: Archive,
    /// `None`: not compressed, or ended.
    encoder: Option<Encoder<'static, Vec<u8>>>,
    ended: bool,
    /// What it is made from, if that is deleted afterwards.
    held: Option<HeldState>,
}

impl FileArchive {
    /// The next piece; `None` at the end. Memory: a piece.
    ///
    /// # Errors
    /// Those of [`Archive::fill`]. The archive is incomplete then.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>> {
        while !self.ended {
            let mut piece = Vec::with_capacity(PIECE);
            self.ended = !self.tar.fill(&mut piece, PIECE)?;
            if self.ended {
                self.held.take().map_or(Ok(()), HeldState::end)?;
            }
            if let Some(encoder) = &mut self.encoder {
                encoder.write_all(&piece).io(|| "compress an archive")?;
                piece = std::mem::take(encoder.get_mut());
            }
            if self.ended
                && let Some(encoder) = self.encoder.take()
            {
                piece.extend(encoder.finish().io(|| "compress an archive")?);
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// What it does not have as it was, so far.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.tar.left_out()
    }
}

impl Host {
    /// What stands at a path of a snapshot, or of the present state if `at` is `live`, with everything in it: as a tar, or with `compress` as a tar in zstd. The
    /// project's databases are in it where the container has them. A link in the last place is followed.
    ///
    /// The present state is archived from a temporary snapshot, which exists until the archive has been read or dropped: it has every name once, whatever the
    /// container does meanwhile. Where no snapshot can be taken, because the pool or the container's disk is full or nothing can be written, the files are read
    /// as they are at that moment.
    ///
    /// # Errors
    /// As [`Host::open_path`].
    pub fn archive(&self, id: &ContainerId, at: &str, path: &TreePath, compress: bool) -> Result<FileArchive> {
        let (row, snapshot) = self.state_of(id, at)?;
        let held = match snapshot {
            Some(_) => None,
            None => match hold(&self.0, &row) {
                Err(e) if matches!(e.code(), Code::PoolFull | Code::DiskLimitReached | Code::PoolReadOnly) => {
                    tracing::info!(error = %e, container = %id, "files are archived while they may change");
                    None
                }
                held => Some(held?),
            },
        };
        match self.archive_of(&row, snapshot.as_ref(), held.as_ref(), path, compress) {
            Ok(archive) => Ok(FileArchive { held, ..archive }),
            Err(e) => {
                held.map_or(Ok(()), HeldState::end)?;
                Err(e)
            }
        }
    }

    fn archive_of(
        &self,
        row: &ContainerRow,
        snapshot: Option<&SnapshotName>,
        held: Option<&HeldState>,
        path: &TreePath,
        compress: bool,
    ) -> Result<FileArchive> {
        let files = self.files();
        let (own, databases) = match held {
            Some(held) => (held.own.clone(), held.databases.clone()),
            None => (own_volume(row, snapshot), files.project_databases(row, snapshot)?),
        };
        let node = files.place_in(row, snapshot, (&own, databases.as_ref()), path)?.find(Last::Follow)?;
        let graft = match (databases_in(path), databases) {
            (Some(at), Some(volume)) => Some((at, files.open(row, snapshot, &volume)?)),
            _ => None,
        };
        let tar = Archive::of(&node, path, files.view, graft)?;
        let encoder = if compress { Some(Encoder::new(Vec::new(), LEVEL).map_err(|e| Error::new(Code::Internal, format!("zstd: {e}")))?) } else { None };
        Ok(FileArchive { tar, encoder, ended: false, held: None })
    }
}
