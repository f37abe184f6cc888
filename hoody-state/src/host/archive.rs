//! A subtree of a container as a tar.

use super::Host;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::services::files::databases_in;
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
    /// # Errors
    /// As [`Host::open_path`].
    pub fn archive(&self, id: &ContainerId, at: &str, path: &TreePath, compress: bool) -> Result<FileArchive> {
        let (row, snapshot) = self.state_of(id, at)?;
        let files = self.files();
        let place = files.place(&row, snapshot.as_ref(), path)?;
        let node = place.find(Last::Follow)?;
        let graft = match (databases_in(path), files.project_databases(&row, snapshot.as_ref())?) {
            (Some(at), Some(volume)) => Some((at, files.open(&row, snapshot.as_ref(), &volume)?)),
            _ => None,
        };
        let tar = Archive::of(&node, path, files.view, graft)?;
        let encoder = if compress { Some(Encoder::new(Vec::new(), LEVEL).map_err(|e| Error::new(Code::Internal, format!("zstd: {e}")))?) } else { None };
        Ok(FileArchive { tar, encoder, ended: false })
    }
}
