//! Keeps processors awake while there are many requests.
//!
//! A lock is a round trip between two processes. If the processor of either goes to sleep meanwhile, waking it costs more than everything else together (in a
//! virtual machine: 45 µs for a request instead of 10). So while there are many requests the kernel is asked, through its interface for this (PM QoS,
//! `/dev/cpu_dma_latency`), to use only light sleep states. The request belongs to an open descriptor, so it ends with this process.
//!
//! **Cost**: idle processors use power, and in a virtual machine processor time of the host. It lasts from [`BURST`] requests within [`QUICK`] until there are
//! fewer than [`FEW`] in [`LOOK`]. A program with an occasional transaction never causes it.

use crate::threads;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// This many requests...
const BURST: u64 = 16;
/// ...within this time, in microseconds, are a burst.
const QUICK: u64 = 2_000;
/// How often it is checked whether the burst continues.
const LOOK: Duration = Duration::from_millis(2);
/// The burst is over if there were fewer requests since the last check.
const FEW: u64 = 4;

const DEVICE: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// A message for the thread that keeps processors awake.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Message {
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
    /// Whether requests are only counted: there is no thread, or it is already keeping processors awake.
    only_counts: AtomicBool,
    message: Mutex<Message>,
    news: Condvar,
    held_us: AtomicU64,
}

impl Shared {
    fn tell(&self, what: Message) {
        let mut message = self.message.lock().unwrap_or_else(PoisonError::into_inner);
        if *message != Message::End {
            *message = what;
        }
        drop(message);
        self.news.notify_one();
    }

    fn wait(&self) -> Message {
        let mut message = self.message.lock().unwrap_or_else(PoisonError::into_inner);
        while *message == Message::Nothing {
            message = self.news.wait(message).unwrap_or_else(PoisonError::into_inner);
        }
        let news = *message;
        if news == Message::Burst {
            *message = Message::Nothing;
        }
        news
    }

    /// Counts a request. Returns whether it completes a burst.
    fn count(&self, now: u64) -> bool {
        let n = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        n.is_multiple_of(BURST) && now.saturating_sub(self.mark.swap(now, Ordering::Relaxed)) <= QUICK && n > BURST
    }
}

/// Keeps processors awake while there are many requests. Dropping it lets them sleep.
#[derive(Debug, Default)]
pub(crate) struct CpuLatency(Arc<Shared>);

impl CpuLatency {
    /// If it would have no effect, or `wanted` is not set, requests are only counted.
    pub fn start(wanted: bool) -> Self {
        let shared = Arc::new(Shared { only_counts: AtomicBool::new(true), ..Shared::default() });
        let driver = std::fs::read_to_string(DRIVER).unwrap_or_default();
        let Some(micros) = wish(driver.trim()).filter(|_| wanted) else { return CpuLatency(shared) };
        let holder = shared.clone();
        match threads::spawn("cpu-latency", move || hold(&holder, micros)) {
            Ok(()) => shared.only_counts.store(false, Ordering::Relaxed),
            Err(e) => tracing::warn!("the thread that keeps processors awake cannot be started ({e}): locks take longer"),
        }
        CpuLatency(shared)
    }

    /// Notes a request at `now` microseconds. It costs two additions, and once in a burst the waking of a thread.
    pub fn request(&self, now: u64) {
        if self.0.count(now) && !self.0.only_counts.swap(true, Ordering::Relaxed) {
            self.0.tell(Message::Burst);
        }
    }

    /// How long processors were kept awake, in microseconds.
    pub fn held_us(&self) -> u64 {
        self.0.held_us.load(Ordering::Relaxed)
    }
}

impl Drop for CpuLatency {
    fn drop(&mut self) {
        self.0.tell(Message::End);
    }
}

/// The longest wake-up time to ask for, in microseconds. In a virtual machine a halt costs a switch to the host, so 0 is asked for, which makes `haltpoll`
/// poll; real processors use C1 or C1E at 10, and wake up faster. `None`: without a driver the request has no effect.
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
    while shared.wait() == Message::Burst {
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
        shared.only_counts.store(false, Ordering::Relaxed);
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
        let mut message = |gap: u64, n: u64| {
            (0..n)
                .filter(|_| {
                    at += gap;
                    shared.count(at)
                })
                .count()
        };
        assert_eq!(message(QUICK / BURST + 1, 10 * BURST), 0, "just too slow");
        assert_eq!(message(QUICK / BURST, 10 * BURST), 10);
        assert_eq!(message(1_000_000, 100), 0);
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
