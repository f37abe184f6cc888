//! Processors that stay awake while there is much to answer.
//!
//! A lock is a round trip between two processes. Where the processor of either went to sleep meanwhile, waking it costs more than everything else together
//! (in a guest: 45 µs a request instead of 10). So while requests come thick the kernel is asked, by its interface for that (PM QoS, `/dev/cpu_dma_latency`),
//! to let idle processors only doze. It is a wish of an open descriptor: whatever becomes of this process, it ends with it.
//!
//! **Cost**: idle processors use power, and in a guest processor time of the host, while it lasts: from [`BURST`] requests within [`QUICK`] on, until fewer than [`FEW`] came
//! in [`LOOK`]. A program that makes a transaction now and then never causes it.

use crate::threads;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many requests...
const BURST: u64 = 16;
/// ...in so long, in microseconds, are a burst.
const QUICK: u64 = 2_000;
/// How often is looked whether it goes on.
const LOOK: Duration = Duration::from_millis(2);
/// It does not, where fewer came since the last look.
const FEW: u64 = 4;

const DEVICE: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// What the thread that holds the wish is told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Burst,
    End,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    /// When the last multiple of [`BURST`] was counted.
    mark: AtomicU64,
    /// There is nobody to tell, or nothing to be told.
    deaf: AtomicBool,
    told: Mutex<Told>,
    news: Condvar,
    held_us: AtomicU64,
}

impl Shared {
    fn tell(&self, what: Told) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Told::End {
            *told = what;
        }
        drop(told);
        self.news.notify_one();
    }

    fn wait(&self) -> Told {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while *told == Told::Nothing {
            told = self.news.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
        let news = *told;
        if news == Told::Burst {
            *told = Told::Nothing;
        }
        news
    }

    /// Counts a request; whether it completes a burst.
    fn count(&self, now: u64) -> bool {
        let n = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        n.is_multiple_of(BURST) && now.saturating_sub(self.mark.swap(now, Ordering::Relaxed)) <= QUICK && n > BURST
    }
}

/// Keeps processors awake while requests come thick. Dropped, it lets them sleep.
#[derive(Debug, Default)]
pub(crate) struct CpuLatency(Arc<Shared>);

impl CpuLatency {
    /// Where there is nothing to gain, or `wanted` is not set, requests are only counted.
    pub fn start(wanted: bool) -> Self {
        let shared = Arc::new(Shared { deaf: AtomicBool::new(true), ..Shared::default() });
        let driver = std::fs::read_to_string(DRIVER).unwrap_or_default();
        let Some(micros) = wish(driver.trim()).filter(|_| wanted) else { return CpuLatency(shared) };
        let holder = shared.clone();
        match threads::spawn("cpu-latency", move || hold(&holder, micros)) {
            Ok(()) => shared.deaf.store(false, Ordering::Relaxed),
            Err(e) => tracing::warn!("no thread to keep processors awake ({e}): locks take longer"),
        }
        CpuLatency(shared)
    }

    /// A request came, at `now` microseconds. Costs two additions; once a burst, waking a thread.
    pub fn request(&self, now: u64) {
        if self.0.count(now) && !self.0.deaf.swap(true, Ordering::Relaxed) {
            self.0.tell(Told::Burst);
        }
    }

    /// For how long processors were kept awake, in microseconds.
    pub fn held_us(&self) -> u64 {
        self.0.held_us.load(Ordering::Relaxed)
    }
}

impl Drop for CpuLatency {
    fn drop(&mut self) {
        self.0.tell(Told::End);
    }
}

/// From which a processor must wake up again, in microseconds. A guest that halts costs a way through the host, so there it polls, which the value 0 means to
/// `haltpoll`; real processors doze at 10 (C1, C1E) and wake in less. Without a driver the wish has no effect.
fn wish(driver: &str) -> Option<i32> {
    match driver {
        "" | "none" => None,
        "haltpoll" => Some(0),
        _ => Some(10),
    }
}

fn express(micros: i32) -> io::Result<File> {
    let mut device = OpenOptions::new().write(true).open(DEVICE)?;
    device.write_all(&micros.to_ne_bytes())?;
    Ok(device)
}

fn hold(shared: &Shared, micros: i32) {
    while shared.wait() == Told::Burst {
        let held = match express(micros) {
            Ok(device) => device,
            Err(e) => {
                tracing::info!("processors cannot be kept awake ({DEVICE}: {e}): locks take longer");
                return;
            }
        };
        let since = Instant::now();
        loop {
            let before = shared.requests.load(Ordering::Relaxed);
            std::thread::sleep(LOOK);
            if shared.requests.load(Ordering::Relaxed) - before < FEW {
                break;
            }
        }
        drop(held);
        shared.held_us.fetch_add(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        shared.deaf.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_so_many_requests_in_so_short_a_time() {
        let shared = Shared::default();
        let mut at = 1_000_000;
        let mut told = |gap: u64, n: u64| {
            (0..n)
                .filter(|_| {
                    at += gap;
                    shared.count(at)
                })
                .count()
        };
        assert_eq!(told(QUICK / BURST + 1, 10 * BURST), 0, "just too slow");
        assert_eq!(told(QUICK / BURST, 10 * BURST), 10);
        assert_eq!(told(1_000_000, 100), 0);
    }

    #[test]
    fn the_first_requests_are_no_burst() {
        let shared = Shared::default();
        assert_eq!((0..BURST).filter(|i| shared.count(*i)).count(), 0, "there is nothing to measure from yet");
    }

    #[test]
    fn what_is_wished_depends_on_what_idle_processors_do() {
        assert_eq!(wish("haltpoll"), Some(0));
        assert_eq!(wish("intel_idle"), Some(10));
        assert_eq!((wish("none"), wish("")), (None, None));
    }

    #[test]
    fn its_thread_ends_with_it() {
        let latency = CpuLatency(Arc::new(Shared::default()));
        let holder = latency.0.clone();
        let thread = std::thread::spawn(move || hold(&holder, 0));
        drop(latency);
        thread.join().unwrap();
    }
}
