//! Recognises the compression by the first bytes, and decompresses.

use super::options::{ImportOptions, cancelled};
use crate::error::{Code, Error, Result};
use crate::units::Bytes;
use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, Read};
use zstd::stream::read::Decoder as ZstdDecoder;

const BUFFER: usize = 128 << 10;
/// The largest window that zstd makes by default (as with `--long=27`): 128 MiB of memory.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The error for a damaged archive.
pub(super) fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::new(Code::ImageCorrupt, format!("the image's archive is damaged or cut short ({why}): make it again or send it again"))
}

/// The error for headers of one entry that need more memory than an import may take.
pub(super) fn header_too_large(why: impl std::fmt::Display) -> Error {
    let message = format!("an entry of the image's archive has headers that are too large ({why}): make the archive again without them");
    Error::new(Code::ImageHeaderTooLarge, message)
}

fn unknown(what: &str) -> Error {
    Error::new(Code::ImageFormat, format!("{what}: an image must be a tar, plain or compressed with gzip or zstd"))
}

/// The error inside an `io::Error` of these readers; any other error is from a decoder.
pub(super) fn carried(e: io::Error) -> Error {
    e.downcast::<Error>().unwrap_or_else(corrupt)
}

/// The caller's reader, counted and interruptible. Its errors are distinguished from those of a decoder.
pub(super) struct Source<'a, R> {
    inner: R,
    read: u64,
    options: &'a ImportOptions<'a>,
}

impl<'a, R: Read> Source<'a, R> {
    pub(super) fn new(inner: R, options: &'a ImportOptions<'a>) -> Self {
        Source { inner, read: 0, options }
    }
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if (self.options.cancelled)() {
                return Err(io::Error::other(cancelled()));
            }
            match self.inner.read(buf) {
                Ok(n) => {
                    self.read += n as u64;
                    (self.options.progress)(Bytes(self.read));
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io::Error::other(e.downcast::<Error>().unwrap_or_else(|e| Error::io("read the image's archive", e)))),
            }
        }
    }
}

/// A buffered reader with a lookahead of a few bytes.
struct Peek<R> {
    inner: R,
    buf: Vec<u8>,
    at: usize,
    end: usize,
}

impl<R: Read> Peek<R> {
    fn new(inner: R) -> Self {
        Peek { inner, buf: vec![0; BUFFER], at: 0, end: 0 }
    }

    /// The next `n` bytes, or fewer at the end.
    fn peek(&mut self, n: usize) -> io::Result<&[u8]> {
        if self.end - self.at < n {
            self.buf.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            while self.end < n {
                match self.inner.read(&mut self.buf[self.end..])? {
                    0 => break,
                    got => self.end += got,
                }
            }
        }
        Ok(&self.buf[self.at..self.end.min(self.at + n)])
    }
}

impl<R: Read> BufRead for Peek<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            self.end = self.inner.read(&mut self.buf)?;
        }
        Ok(&self.buf[self.at..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.at = self.end.min(self.at + n);
    }
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let n = have.len().min(out.len());
        out[..n].copy_from_slice(&have[..n]);
        self.consume(n);
        Ok(n)
    }
}

fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
}

/// A zstd frame, or one of those that may be skipped (pzstd begins with one).
fn is_zstd(head: &[u8]) -> bool {
    head.len() >= 4 && (head[..4] == [0x28, 0xb5, 0x2f, 0xfd] || (head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18]))
}

enum Stage<R: Read> {
    Plain(Peek<R>),
    Gzip(GzDecoder<Peek<R>>),
    Zstd(ZstdDecoder<'static, Peek<R>>),
    End,
}

/// The decompressed archive, up to the limit.
pub(super) struct Decompressed<R: Read> {
    stage: Stage<R>,
    out: u64,
    limit: Option<Bytes>,
}

impl<R: Read> Decompressed<R> {
    /// Chooses the decoder by the first bytes.
    pub(super) fn open(reader: R, limit: Option<Bytes>) -> Result<Self> {
        let mut reader = Peek::new(reader);
        let head = reader.peek(6).map_err(carried)?;
        let stage = match head {
            [] => return Err(unknown("the image's archive is empty")),
            h if is_gzip(h) => Stage::Gzip(GzDecoder::new(reader)),
            h if is_zstd(h) => zstd(reader).map_err(carried)?,
            h if h.starts_with(b"BZh") => return Err(unknown("the image's archive is compressed by bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unknown("the image's archive is compressed by xz")),
            h if h.starts_with(b"PK\x03\x04") => return Err(unknown("the image's archive is a zip")),
            _ => Stage::Plain(reader),
        };
        Ok(Decompressed { stage, out: 0, limit })
    }

    /// After a member or frame: another of the same kind, or the end. Anything else there is ignored, as gzip and tar do.
    fn next_member(&mut self) -> io::Result<()> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Gzip(d) => {
                let mut reader = d.into_inner();
                if is_gzip(reader.peek(2)?) { Stage::Gzip(GzDecoder::new(reader)) } else { Stage::End }
            }
            Stage::Zstd(d) => {
                let mut reader = d.finish();
                if is_zstd(reader.peek(4)?) { zstd(reader)? } else { Stage::End }
            }
            Stage::Plain(_) | Stage::End => Stage::End,
        };
        Ok(())
    }
}

fn zstd<R: Read>(reader: Peek<R>) -> io::Result<Stage<R>> {
    let mut d = ZstdDecoder::with_buffer(reader)?.single_frame();
    d.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Stage::Zstd(d))
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let n = match &mut self.stage {
                Stage::Plain(r) => r.read(buf)?,
                Stage::Gzip(r) => r.read(buf)?,
                Stage::Zstd(r) => r.read(buf)?,
                Stage::End => return Ok(0),
            };
            if n == 0 {
                self.next_member()?;
                continue;
            }
            self.out += n as u64;
            if let Some(limit) = self.limit.filter(|l| self.out > l.0) {
                return Err(io::Error::other(Error::new(
                    Code::ImageTooLarge,
                    format!("the image unpacks to more than {limit}, the most that is allowed here: make it smaller or raise the limit"),
                )));
            }
            return Ok(n);
        }
    }
}
