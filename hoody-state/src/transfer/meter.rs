//! Bytes on their way: counted, slowed, stopped, compressed.

use crate::error::{Error, Result};
use crate::progress::Progress;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One of the fast levels: a root file system comes to well under half, at a third of the processor time of level 1.
const LEVEL: i32 = -3;
/// As a power of two: what decompressing may keep in memory, 8 MiB. `LEVEL` needs 512 KiB.
const LARGEST_WINDOW: u32 = 23;

/// Counts what comes over the network, keeps it under a rate, and ends it when the operation is cancelled.
pub(crate) struct Meter<R> {
    input: R,
    progress: Arc<Progress>,
    limit: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl<R: Read> Meter<R> {
    pub(crate) fn new(input: R, progress: Arc<Progress>, limit: Option<u64>) -> Self {
        Meter { input, progress, limit: limit.filter(|l| *l > 0), began: Instant::now(), bytes: 0 }
    }

    fn stopped(&self) -> bool {
        self.progress.cancelled.load(Ordering::Relaxed)
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(limit) = self.limit {
            // How long what came so far should have taken; in steps, so that a cancel is heard.
            let due = Duration::from_secs_f64(self.bytes as f64 / limit as f64);
            while let Some(wait) = due.checked_sub(self.began.elapsed()).filter(|w| !w.is_zero() && !self.stopped()) {
                std::thread::sleep(wait.min(Duration::from_millis(100)));
            }
        }
        if self.stopped() {
            return Err(io::Error::other("it was cancelled"));
        }
        // Small reads keep a slow rate even.
        let most = self.limit.map_or(buffer.len(), |l| buffer.len().min(usize::try_from(l / 10).unwrap_or(usize::MAX).max(1)));
        let n = self.input.read(&mut buffer[..most])?;
        self.bytes += n as u64;
        self.progress.sent.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The bytes before they were compressed, counted as the operation's progress.
pub(crate) fn decompressed<R: Read>(input: R, progress: Arc<Progress>) -> Result<impl Read> {
    struct Done<R>(R, Arc<Progress>);
    impl<R: Read> Read for Done<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.read(buffer)?;
            self.1.done.fetch_add(n as u64, Ordering::Relaxed);
            Ok(n)
        }
    }
    let what = |e| Error::io("start decompressing", e);
    // One frame, so that a peer that goes on for ever after its end is not listened to; and a window that no peer can make large.
    let mut decoder = zstd::stream::read::Decoder::new(input).map_err(what)?.single_frame();
    decoder.window_log_max(LARGEST_WINDOW).map_err(what)?;
    Ok(Done(io::BufReader::with_capacity(256 << 10, decoder), progress))
}

/// Compresses what is written to it, with a checksum at the end.
pub(crate) struct Compressor<'a>(zstd::stream::write::Encoder<'static, &'a mut dyn Write>);

impl<'a> Compressor<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Result<Self> {
        let what = |e| Error::io("start compressing", e);
        let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL).map_err(what)?;
        encoder.include_checksum(true).map_err(what)?;
        Ok(Compressor(encoder))
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.finish()?.flush()
    }
}

impl Write for Compressor<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_a_changed_byte_or_an_early_end_is_seen() {
        let data: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut bytes = Vec::new();
        let mut out = Compressor::new(&mut bytes).unwrap();
        out.write_all(&data).unwrap();
        out.finish().unwrap();
        assert!(bytes.len() < data.len() / 2);
        let read = |bytes: &[u8]| {
            let progress = Arc::new(Progress::default());
            let mut out = Vec::new();
            let done = decompressed(Meter::new(bytes, Arc::clone(&progress), None), Arc::clone(&progress)).unwrap().read_to_end(&mut out);
            assert_eq!(progress.done.load(Ordering::Relaxed), out.len() as u64);
            done.map(|_| out)
        };
        assert_eq!(read(&bytes).unwrap(), data);
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
        let mut bad = bytes.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert!(read(&bad).is_err(), "the checksum of the whole");
    }

    #[test]
    fn what_a_peer_sends_after_the_end_is_not_read() {
        let mut bytes = Vec::new();
        let mut out = Compressor::new(&mut bytes).unwrap();
        out.write_all(b"all").unwrap();
        out.finish().unwrap();
        for more in [Box::new(io::repeat(0)) as Box<dyn Read>, Box::new(bytes.clone().repeat(1000).leak().chain(io::repeat(7)))] {
            let mut read = Vec::new();
            decompressed(bytes.chain(more), Arc::new(Progress::default())).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, b"all");
        }
    }

    #[test]
    fn a_window_that_takes_much_memory_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[1; 1000]).unwrap();
        encoder.flush().unwrap();
        encoder.write_all(&[2; 1000]).unwrap();
        let bytes = encoder.finish().unwrap();
        let mut out = Vec::new();
        assert!(decompressed(&bytes[..], Arc::new(Progress::default())).unwrap().read_to_end(&mut out).is_err());
    }

    #[test]
    fn a_cancelled_operation_reads_no_further() {
        let progress = Arc::new(Progress::default());
        let mut meter = Meter::new(io::repeat(1), Arc::clone(&progress), Some(1000));
        assert_eq!(meter.read(&mut [0; 500]).unwrap(), 100);
        progress.cancelled.store(true, Ordering::Relaxed);
        assert!(meter.read(&mut [0; 500]).is_err());
    }
}
