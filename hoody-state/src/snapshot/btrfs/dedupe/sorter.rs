//! Sorts records of a fixed size in bounded memory: what does not fit is kept as sorted runs in a temporary file without a name.

use crate::error::{IoContext, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// What is kept in memory before a run is written.
pub(super) const RUN_BYTES: usize = 32 << 20;
/// What is read of a run at a time: with 1,000 runs, which are 32 GiB of records, 16 MiB.
const READ_BYTES: usize = 16 << 10;

/// A record: its fields in the order in which it is compared.
pub(super) type Fields<const N: usize> = [u64; N];

/// Takes records in any order.
pub(super) struct Sorter<const N: usize> {
    records: Vec<Fields<N>>,
    most: usize,
    spilled: Option<File>,
    written: u64,
    /// Where each run begins and ends in the file.
    runs: Vec<(u64, u64)>,
}

impl<const N: usize> Sorter<N> {
    pub(super) fn new() -> Self {
        Self::with_run_bytes(RUN_BYTES)
    }

    pub(super) fn with_run_bytes(bytes: usize) -> Self {
        Sorter { records: Vec::new(), most: (bytes / (8 * N)).max(1), spilled: None, written: 0, runs: Vec::new() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// Of the temporary file.
    pub(super) fn push(&mut self, record: Fields<N>) -> Result<()> {
        self.records.push(record);
        if self.records.len() >= self.most { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let what = || format!("write records to {}", std::env::temp_dir().display());
        self.records.sort_unstable();
        let file = match &mut self.spilled {
            Some(file) => file,
            none => {
                let file = File::options().read(true).write(true).custom_flags(nix::libc::O_TMPFILE).mode(0o600).open(std::env::temp_dir());
                none.insert(file.io(what)?)
            }
        };
        let start = self.written;
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
        for word in self.records.drain(..).flatten() {
            out.write_all(&word.to_le_bytes()).io(what)?;
            self.written += 8;
        }
        out.flush().io(what)?;
        self.runs.push((start, self.written));
        Ok(())
    }

    /// All of them, sorted.
    ///
    /// # Errors
    /// Of the temporary file.
    pub(super) fn sorted(mut self) -> Result<Sorted<N>> {
        if self.spilled.is_some() && !self.records.is_empty() {
            self.spill()?;
        }
        self.records.sort_unstable();
        let mut sorted = Sorted { memory: self.records.into_iter(), file: self.spilled, runs: Vec::new(), heads: BinaryHeap::new() };
        for (at, end) in self.runs {
            sorted.runs.push(Run { at, end, buffer: Vec::new(), used: 0 });
        }
        for run in 0..sorted.runs.len() {
            sorted.refill(run)?;
        }
        Ok(sorted)
    }
}

struct Run {
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

/// Records in their order: either all in memory, or all in runs.
pub(super) struct Sorted<const N: usize> {
    memory: std::vec::IntoIter<Fields<N>>,
    file: Option<File>,
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Fields<N>, usize)>>,
}

impl<const N: usize> Sorted<N> {
    /// The next record.
    ///
    /// # Errors
    /// Of the temporary file.
    pub(super) fn next(&mut self) -> Result<Option<Fields<N>>> {
        match self.heads.pop() {
            Some(Reverse((record, run))) => {
                self.refill(run)?;
                Ok(Some(record))
            }
            None => Ok(self.memory.next()),
        }
    }

    fn refill(&mut self, index: usize) -> Result<()> {
        let (Some(file), Some(run)) = (&self.file, self.runs.get_mut(index)) else { return Ok(()) };
        if run.used >= run.buffer.len() {
            let whole = (READ_BYTES / (8 * N)).max(1) * 8 * N;
            let len = usize::try_from(run.end - run.at).unwrap_or(whole).min(whole);
            run.buffer.resize(len, 0);
            run.used = 0;
            file.read_exact_at(&mut run.buffer, run.at).io(|| "read sorted records")?;
            run.at += len as u64;
        }
        let Some(bytes) = run.buffer.get(run.used..run.used + 8 * N) else { return Ok(()) };
        run.used += 8 * N;
        let mut record = [0; N];
        for (word, bytes) in record.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
        self.heads.push(Reverse((record, index)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts_however_little_fits(mut records in proptest::collection::vec([0u64..50, 0u64..u64::MAX, 0u64..3], 0..200), run_bytes in 1usize..3000) {
            let mut sorter = Sorter::with_run_bytes(run_bytes);
            for r in &records {
                sorter.push(*r).unwrap();
            }
            let mut sorted = sorter.sorted().unwrap();
            let mut got = Vec::new();
            while let Some(r) = sorted.next().unwrap() {
                got.push(r);
            }
            records.sort_unstable();
            prop_assert_eq!(got, records);
        }
    }
}
