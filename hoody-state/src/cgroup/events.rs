//! `cgroup.events` of v2: the file that notifies when a group becomes empty or frozen.

use crate::error::{IoContext, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The content of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// Whether a live process is in the group or below it.
    pub populated: bool,
    /// Whether every process of the group is frozen.
    pub frozen: bool,
}

fn parse(text: &str) -> Events {
    let set = |key: &str| text.lines().any(|l| l.strip_prefix(key) == Some(" 1"));
    Events { populated: set("populated"), frozen: set("frozen") }
}

/// Reads the events of a group. ENOENT and ENODEV are returned as they are: the group was removed.
pub(crate) fn read(group: &Path) -> std::io::Result<Events> {
    std::fs::read_to_string(group.join("cgroup.events")).map(|t| parse(&t))
}

/// How long the file is read again and again before sleeping in poll: the kernel holds the notifications of one file back to one in 10 ms
/// (`CGROUP_FILE_NOTIFY_MIN_INTV`), and most changes are done in a tenth of a millisecond.
const EAGER: Duration = Duration::from_millis(1);

/// Waits until `done` holds; false when it did not in time. The file is read first and polled then: a change in between is not lost,
/// since kernfs compares the counter of the last read.
pub(crate) fn wait(group: &Path, timeout: Duration, done: impl Fn(Events) -> bool) -> Result<bool> {
    let path = group.join("cgroup.events");
    let began = Instant::now();
    let deadline = began + timeout;
    let mut file = match File::open(&path) {
        Ok(f) => f,
        // A group that was removed is empty, and none of its tasks runs.
        Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(done(Events { populated: false, frozen: false })),
        Err(e) => return Err(e).io(|| format!("open {}", path.display())),
    };
    let mut text = String::new();
    loop {
        text.clear();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
        match read {
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(done(Events::default())),
            r => r.io(|| format!("read {}", path.display()))?,
        };
        if done(parse(&text)) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if began.elapsed() < EAGER {
            std::thread::yield_now();
            if began.elapsed() > EAGER / 10 {
                std::thread::sleep(Duration::from_micros(50));
            }
            continue;
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).io(|| format!("poll {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_by_key() {
        assert_eq!(parse("populated 1\nfrozen 0\n"), Events { populated: true, frozen: false });
        assert_eq!(parse("frozen 1\nnew_key 1\npopulated 0\n"), Events { populated: false, frozen: true });
        assert_eq!(parse(""), Events::default());
    }
}
