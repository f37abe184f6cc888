//! The filter of system calls that a process has, as the kernel holds it.

use nix::libc;
use std::io;
use std::time::{Duration, Instant};

/// How long to wait until the kernel has stopped the process.
const PATIENCE: Duration = Duration::from_millis(500);
const GET_FILTER: libc::c_uint = 0x420c;

/// The filter that a process got first, from whoever started it. Empty: it has none. The process stands still for a moment, so this is for one that has just been
/// started: a wait of an older one could end with EINTR.
///
/// Needs CAP_SYS_ADMIN, and a caller that has no filter itself. Source: `PTRACE_SECCOMP_GET_FILTER` in `ptrace(2)`.
pub(crate) fn of_process(pid: i32) -> io::Result<Vec<libc::sock_filter>> {
    // A tracer is a thread. If it ends before it has let the process go, the kernel does that.
    std::thread::scope(|s| {
        let tracer = std::thread::Builder::new().name("filter".into()).spawn_scoped(s, || traced(pid))?;
        tracer.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads a filter panicked")))
    })
}

fn traced(pid: i32) -> io::Result<Vec<libc::sock_filter>> {
    request(libc::PTRACE_SEIZE, pid, 0, std::ptr::null_mut())?;
    let read = stopped(pid).and_then(|()| read(pid));
    // It is gone, or this thread ends now.
    let _ = request(libc::PTRACE_DETACH, pid, 0, std::ptr::null_mut());
    read
}

fn stopped(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, std::ptr::null_mut())?;
    let end = Instant::now() + PATIENCE;
    loop {
        let mut info = WaitInfo::default();
        let flags = libc::WSTOPPED | libc::__WALL | libc::WNOHANG;
        // SAFETY: the kernel writes one `siginfo_t`, for which there is room, and which is plain integers.
        #[allow(unsafe_code)]
        let rc = unsafe { libc::waitid(libc::P_PID, pid.cast_unsigned(), (&raw mut info).cast(), flags) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        if info.words[0] != 0 {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Room for a `siginfo_t`; its first word is the signal.
#[repr(C, align(8))]
#[derive(Default)]
struct WaitInfo {
    words: [i32; 32],
}

fn read(pid: i32) -> io::Result<Vec<libc::sock_filter>> {
    let count = |number: usize| match request(GET_FILTER, pid, number, std::ptr::null_mut()) {
        // It has no filter at all, or none of this number.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(None),
        r => r.map(Some),
    };
    // Number 0 is the newest.
    let (mut number, mut length) = (0, None);
    while let Some(found) = count(number)? {
        length = Some(found);
        number += 1;
    }
    let Some(length) = length else { return Ok(Vec::new()) };
    let mut filter = vec![libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; usize::try_from(length).unwrap_or_default()];
    // The kernel writes as many instructions as it said, and the process stands still.
    request(GET_FILTER, pid, number - 1, filter.as_mut_ptr().cast())?;
    Ok(filter)
}

fn request(what: libc::c_uint, pid: i32, address: usize, data: *mut libc::c_void) -> io::Result<libc::c_long> {
    // SAFETY: the requests of this module write nothing, except for GET_FILTER with `data`, for which `read` makes room for what the kernel said it writes.
    #[allow(unsafe_code)]
    let rc = unsafe { libc::ptrace(what as _, pid, address, data) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_filter_has_none_and_one_that_is_gone_is_an_error() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it reads filters of other processes");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(of_process(child.id().cast_signed()).unwrap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of_process(child.id().cast_signed()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
