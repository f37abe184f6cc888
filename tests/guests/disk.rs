//! The disks of a guest: network block devices that behave as disks with a volatile write cache.
//!
//! UML's own block driver (`ubd`) drops flush requests, at least in 6.1, so it cannot tell what a file system believes to be durable. The kernel's `nbd`
//! driver sends them. A write is kept in memory until the guest flushes the disk's cache. At a power cut each 4 KiB block that was written since the last
//! flush has, on the disk, either its old content or that of any of the writes to it, as [`Cache`] says. So writes are lost and reordered as a disk may do
//! it; single blocks are never torn.

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const BLOCK: u64 = 4096;
/// How long a flush takes: about what a turning disk needs.
const FLUSH: Duration = Duration::from_millis(6);

/// What becomes of writes that were not flushed when the power was cut.
#[derive(Debug, Clone, Copy)]
pub enum Cache {
    /// All reach the disk.
    Kept,
    /// None does.
    Lost,
    /// Each block for itself, by the random numbers of this seed.
    Mixed(u64),
}

/// One disk.
struct Disk {
    name: String,
    size: u64,
    file: File,
    /// The contents of blocks since the last flush, oldest first.
    cache: BTreeMap<u64, Vec<Box<[u8]>>>,
    flushes: u64,
}

impl Disk {
    fn block(&self, n: u64) -> Box<[u8]> {
        if let Some(newest) = self.cache.get(&n).and_then(|v| v.last()) {
            return newest.clone();
        }
        let mut block = vec![0; BLOCK as usize];
        self.file.read_exact_at(&mut block, n * BLOCK).expect("the disk's file is as long as the disk");
        block.into()
    }

    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = (offset + size as u64).min(self.size);
        let mut data = Vec::with_capacity(size);
        let mut at = offset;
        while at < end {
            let within = (at % BLOCK) as usize;
            let length = (BLOCK as usize - within).min((end - at) as usize);
            data.extend_from_slice(&self.block(at / BLOCK)[within..within + length]);
            at += length as u64;
        }
        data
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % BLOCK) as usize;
            let length = (BLOCK as usize - within).min(data.len() - done);
            let mut block = self.block(at / BLOCK);
            block[within..within + length].copy_from_slice(&data[done..done + length]);
            self.cache.entry(at / BLOCK).or_default().push(block);
            done += length;
        }
    }

    /// The guest discards blocks or has them zeroed. A disk may do so at once, and this one does.
    fn zero(&mut self, offset: u64, length: u64) -> bool {
        use nix::fcntl::{FallocateFlags, fallocate};
        if !offset.is_multiple_of(BLOCK) || !length.is_multiple_of(BLOCK) {
            return false;
        }
        let blocks: Vec<u64> = self.cache.range(offset / BLOCK..(offset + length) / BLOCK).map(|(n, _)| *n).collect();
        blocks.iter().for_each(|n| drop(self.cache.remove(n)));
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, offset.cast_signed(), length.cast_signed()).is_ok()
    }

    /// What was just written reaches the disk, and nothing else.
    fn force(&mut self, offset: u64, length: u64) {
        for n in offset / BLOCK..(offset + length).div_ceil(BLOCK) {
            if let Some(versions) = self.cache.remove(&n) {
                self.file.write_all_at(versions.last().expect("a block in the cache has a content"), n * BLOCK).expect("the host's disk takes it");
            }
        }
    }

    fn flush(&mut self) {
        self.flushes += 1;
        for (n, versions) in std::mem::take(&mut self.cache) {
            self.file.write_all_at(versions.last().expect("a block in the cache has a content"), n * BLOCK).expect("the host's disk takes it");
        }
    }

    fn cut(&mut self, cache: Cache) -> String {
        let blocks = self.cache.len();
        let mut rng = Rng::new(if let Cache::Mixed(seed) = cache { seed } else { 0 });
        let mut lost = 0;
        for (n, versions) in std::mem::take(&mut self.cache) {
            let kept = match cache {
                Cache::Kept => versions.len(),
                Cache::Lost => 0,
                Cache::Mixed(_) => rng.below(versions.len() as u64 + 1) as usize,
            };
            lost += usize::from(kept < versions.len());
            if kept > 0 {
                self.file.write_all_at(&versions[kept - 1], n * BLOCK).expect("the host's disk takes it");
            }
        }
        format!("{}: {lost} of {blocks} unflushed blocks lost, {} flushes before", self.name, std::mem::take(&mut self.flushes))
    }
}

/// The disks of one guest, each served on a port of its own.
pub struct Disks {
    all: Vec<Arc<Mutex<Disk>>>,
    listeners: Vec<TcpListener>,
    serving: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
    power: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
}

impl Disks {
    pub fn new(dir: &Path, address: &str, names: &[(&str, u16)], size: u64) -> Self {
        let make = |(name, _): &(&str, u16)| {
            let file = File::options().create(true).truncate(true).read(true).write(true).open(dir.join(format!("{name}.img"))).unwrap();
            file.set_len(size).unwrap();
            Arc::new(Mutex::new(Disk { name: (*name).to_owned(), size, file, cache: BTreeMap::new(), flushes: 0 }))
        };
        let all = names.iter().map(make).collect();
        Disks {
            all,
            listeners: names.iter().map(|(_, port)| TcpListener::bind((address, *port)).unwrap()).collect(),
            serving: Mutex::default(),
            power: Arc::default(),
            failing: Arc::default(),
        }
    }

    /// Waits for the guest that boots to connect its disks; they then work until the cut.
    pub fn connect(&self) {
        self.power.store(true, Ordering::SeqCst);
        for (disk, listener) in self.all.iter().zip(&self.listeners) {
            let (stream, disk) = (listener.accept().unwrap().0, Arc::clone(disk));
            let (power, failing) = (Arc::clone(&self.power), Arc::clone(&self.failing));
            let same = stream.try_clone().unwrap();
            // The connection ends with the guest, at any point of a request.
            self.serving.lock().unwrap().push((same, std::thread::spawn(move || drop(serve(stream, &disk, &power, &failing)))));
        }
    }

    /// From now on every write and every flush is answered with EIO, or no more.
    pub fn fail_writes(&self, fail: bool) {
        self.failing.store(fail, Ordering::SeqCst);
    }

    /// The power goes: no flush that is under way ends any more.
    pub fn off(&self) {
        self.power.store(false, Ordering::SeqCst);
    }

    /// The guest is gone: what its disks hold now. Says how much was lost.
    pub fn cut(&self, cache: Cache) -> String {
        self.off();
        for (stream, thread) in self.serving.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
            thread.join().unwrap();
        }
        self.all.iter().map(|d| d.lock().unwrap().cut(cache)).collect::<Vec<_>>().join("; ")
    }
}

/// Answers the requests of the guest's `nbd` driver, one after the other.
fn serve(stream: TcpStream, disk: &Mutex<Disk>, power: &AtomicBool, failing: &AtomicBool) -> std::io::Result<()> {
    const REQUEST: u32 = 0x2560_9513;
    const REPLY: u32 = 0x6744_6698;
    const FORCE_UNIT_ACCESS: u16 = 1;
    stream.set_nodelay(true)?;
    let (mut from, mut to) = (BufReader::with_capacity(1 << 18, stream.try_clone()?), stream);
    loop {
        let mut head = [0; 28];
        from.read_exact(&mut head)?;
        let number = |range: std::ops::Range<usize>| head[range].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        assert_eq!(number(0..4), u64::from(REQUEST), "a request of the nbd driver begins with its magic number");
        let (flags, kind, offset, length) = (number(4..6) as u16, number(6..8), number(16..24), number(24..28));
        let mut error = 0u32;
        let mut answer = Vec::new();
        match kind {
            0 => answer = disk.lock().unwrap().read(offset, length as usize),
            1 => {
                let mut data = vec![0; length as usize];
                from.read_exact(&mut data)?;
                let mut disk = disk.lock().unwrap();
                if failing.load(Ordering::SeqCst) {
                    error = nix::libc::EIO.cast_unsigned();
                } else {
                    disk.write(offset, &data);
                }
                if error == 0 && flags & FORCE_UNIT_ACCESS != 0 {
                    disk.force(offset, length);
                }
            }
            2 => return Ok(()),
            3 | 4 if failing.load(Ordering::SeqCst) => error = nix::libc::EIO.cast_unsigned(),
            3 => {
                // Meanwhile writes are lost if the power goes.
                std::thread::sleep(FLUSH);
                if !power.load(Ordering::SeqCst) {
                    return Ok(());
                }
                disk.lock().unwrap().flush();
            }
            4 => error = if disk.lock().unwrap().zero(offset, length) { 0 } else { nix::libc::EINVAL.cast_unsigned() },
            _ => error = nix::libc::EINVAL.cast_unsigned(),
        }
        let mut reply = [REPLY.to_be_bytes(), error.to_be_bytes()].concat();
        reply.extend_from_slice(&head[8..16]);
        reply.append(&mut answer);
        to.write_all(&reply)?;
    }
}

#[test]
fn a_cut_leaves_of_each_unflushed_block_one_of_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::options().create(true).truncate(true).read(true).write(true).open(dir.path().join("d")).unwrap();
    file.set_len(1 << 20).unwrap();
    let mut disk = Disk { name: "d".into(), size: 1 << 20, file, cache: BTreeMap::new(), flushes: 0 };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        disk.write(0, &[1; 8192]);
        disk.flush();
        disk.write(4096, &[2; 4096]);
        disk.write(4096 + 10, &[3; 100]);
        assert_eq!(disk.read(4090, 20), [[1; 6].as_slice(), &[2; 10], &[3; 4]].concat(), "the guest sees what it wrote");
        disk.cut(Cache::Mixed(seed));
        let now = disk.read(4090, 20);
        assert_eq!(now[..6], [1; 6], "what was flushed stays");
        seen.insert((now[6], now[16]));
    }
    assert_eq!(seen, [(1, 1), (2, 2), (2, 3)].into(), "the old content, or either of the writes");
    disk.write(0, &[9; 4096]);
    disk.cut(Cache::Lost);
    assert_eq!(disk.read(0, 1), [1]);
    disk.write(0, &[9; 4096]);
    disk.cut(Cache::Kept);
    assert_eq!(disk.read(0, 1), [9]);
}
