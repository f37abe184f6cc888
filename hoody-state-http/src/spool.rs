//! An answer that is complete before its first byte is sent: in memory while it is small, else in a temporary file without a name.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hoody_state::error::IoContext;
use hoody_state::{Code, Error, Result};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What is kept in memory.
const IN_MEMORY: usize = 4 << 20;
/// The longest answer. What is longer would fill the disk of temporary files.
const LONGEST: u64 = 1 << 30;
/// What is read at a time.
const PIECE: u64 = 256 << 10;

/// Bytes that are written once and then sent.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    written: u64,
}

impl Spool {
    /// Writes a value as a line of JSON.
    pub(crate) fn line(&mut self, value: &impl serde::Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.memory, value).map_err(|e| Error::internal(format!("cannot write an answer: {e}")))?;
        self.memory.push(b'\n');
        if self.memory.len() > IN_MEMORY { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        if self.written + self.memory.len() as u64 > LONGEST {
            return Err(Error::new(Code::DiffTooLarge, "the answer is longer than 1 GiB: ask for a path, for pages (limit, cursor) or for counts (stat)"));
        }
        let what = || format!("write an answer to {}", std::env::temp_dir().display());
        if self.file.is_none() {
            let file = File::options().read(true).write(true).custom_flags(nix::libc::O_TMPFILE).mode(0o600).open(std::env::temp_dir());
            self.file = Some(file.io(what)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory).io(what)?;
            self.written += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }

    /// All of it as a body. `keep` is dropped when it has been sent, or the client has left.
    pub(crate) fn body(mut self, keep: impl Send + Sync + 'static) -> Result<Body> {
        if self.file.is_some() {
            self.spill()?;
        }
        let Some(file) = self.file else { return Ok(Body::from(self.memory)) };
        let state = Some((file, 0, self.written, keep));
        Ok(Body::from_stream(stream::unfold(state, |state| async move {
            let (file, at, end, keep) = state?;
            let len = PIECE.min(end - at);
            if len == 0 {
                return None;
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(len).unwrap_or_default()];
                file.read_exact_at(&mut piece, at).map(|()| (Bytes::from(piece), file))
            });
            match read.await {
                Ok(Ok((piece, file))) => Some((Ok::<_, io::Error>(piece), Some((file, at + len, end, keep)))),
                Ok(Err(e)) => Some((Err(e), None)),
                Err(e) => Some((Err(io::Error::other(e)), None)),
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn an_answer_that_would_fill_the_disk_is_refused() {
        let mut spool = Spool { written: LONGEST, ..Spool::default() };
        let long = "x".repeat(IN_MEMORY);
        assert_eq!(spool.line(&long).unwrap_err().code(), Code::DiffTooLarge);
    }

    #[tokio::test]
    async fn a_large_answer_comes_back_as_it_was_written() {
        for lines in [3, 200_000] {
            let mut spool = Spool::default();
            (0..lines).for_each(|n| spool.line(&format!("line number {n} of many")).unwrap());
            assert_eq!(spool.file.is_some(), lines > 3);
            let all = spool.body(()).unwrap().collect().await.unwrap().to_bytes();
            let text = std::str::from_utf8(&all).unwrap();
            assert_eq!(text.lines().count(), lines);
            assert!(text.lines().enumerate().all(|(n, l)| l == format!("\"line number {n} of many\"")));
        }
    }
}
