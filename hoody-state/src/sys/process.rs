//! Processes: what a child does between fork and exec, and how a process ended that is not our child.

use crate::error::{IoContext, Result};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Opens a pidfd. ESRCH: no such process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Signals the process behind a pidfd. ESRCH: it has ended.
pub(crate) fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or_else(|| io::Error::from_raw_os_error(nix::libc::EINVAL))?;
    Ok(rustix::process::pidfd_send_signal(pidfd, signal)?)
}

/// Whether the process behind a pidfd has ended, reaped or not.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Makes the child of `command` enter a cgroup (a `cgroup.procs` opened for writing) and a session of its own before it becomes the
/// program, so that no instant exists in which it is outside and no signal to our group reaches it.
pub(crate) fn enter_before_exec(command: &mut Command, cgroup_procs: Vec<OwnedFd>) {
    let enter = move || -> io::Result<()> {
        nix::unistd::setsid().map_err(io::Error::from)?;
        for fd in &cgroup_procs {
            // "0" is the writer itself.
            nix::unistd::write(fd, b"0").map_err(io::Error::from)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes the system calls setsid and write alone, both async-signal-safe. It takes no
    // lock and allocates nothing (io::Error::from an errno does not allocate), and the descriptors live as long as `command`.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(enter);
    }
}

/// Whether this process may set the limits of processes in a user namespace that another user owns (CAP_SYS_RESOURCE). root in a restricted service or a
/// container may not.
pub(crate) fn may_limit_resources() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
}

/// Makes the child of `command` start with these limits of open files, soft and hard.
pub(crate) fn limit_open_files(command: &mut Command, (soft, hard): (u64, u64)) {
    let limit = move || nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes the system call setrlimit alone, which is async-signal-safe, takes no lock and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(limit);
    }
}

/// `struct pidfd_info` of its first version (Linux 6.13).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
const PIDFD_GET_INFO: nix::libc::c_ulong = nix::request_code_readwrite!(0xFF, 11, std::mem::size_of::<PidfdInfo>()) as nix::libc::c_ulong;

/// How the process behind a pidfd ended: its code, or 128 + the signal. `None` as below.
pub(crate) fn pidfd_exit_code(pidfd: impl AsFd) -> Option<i32> {
    pidfd_exit_status(pidfd).map(wait_status_code)
}

/// The wait status of the process behind a pidfd. `None` while its parent has not reaped it, and on kernels before 6.15.
pub(crate) fn pidfd_exit_status(pidfd: impl AsFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's size is that of `info`, which is #[repr(C)], writable and outlives the call; the kernel writes at most that
    // many bytes, all of them integers, for which every bit pattern is valid. A kernel that does not know the request answers ENOTTY.
    #[allow(unsafe_code)]
    let rc = unsafe { nix::libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
    (rc == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// A wait status as shells write it.
pub(crate) fn wait_status_code(status: i32) -> i32 {
    if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) }
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcStat {
    /// Its command name.
    pub comm: String,
    /// `R`, `S`, `D`, `Z`…
    pub state: char,
    /// Its parent.
    pub ppid: i32,
    /// Ticks after boot of its start: with the pid it names a process for good.
    pub start_time: u64,
}

/// Reads `/proc/<pid>/stat`; `None` when there is no such process.
pub(crate) fn proc_stat(pid: i32) -> Option<ProcStat> {
    parse_stat(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
}

fn parse_stat(text: &str) -> Option<ProcStat> {
    // The name is in brackets and may hold brackets and blanks itself: the last bracket ends it.
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let mut rest = text.get(close + 1..)?.split_ascii_whitespace();
    Some(ProcStat {
        comm: text.get(open + 1..close)?.to_owned(),
        state: rest.next()?.chars().next()?,
        ppid: rest.next()?.parse().ok()?,
        start_time: rest.nth(17)?.parse().ok()?,
    })
}

/// This boot of this machine.
pub(crate) fn boot_id() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").io(|| "read /proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::zombie_processes)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_stat_line() {
        let line = "42 (a) R (b) Z 7 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 98765 0 0 18446744073709551615 0";
        let s = parse_stat(line).unwrap();
        assert_eq!((s.comm.as_str(), s.state, s.ppid, s.start_time), ("a) R (b", 'Z', 7, 98765));
        assert_eq!(parse_stat("42 (x"), None);
        assert!(proc_stat(std::process::id() as i32).unwrap().start_time > 0);
    }

    #[test]
    fn a_child_is_in_its_own_session_before_it_runs() {
        let mut c = Command::new("cat");
        c.arg("/proc/self/stat").stdout(std::process::Stdio::piped());
        enter_before_exec(&mut c, Vec::new());
        let child = c.spawn().unwrap();
        let pid = child.id();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let session: u32 = out.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
        assert_eq!(session, pid);
    }

    #[test]
    fn the_exit_code_is_read_from_a_pidfd_after_somebody_else_reaped() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let fd = pidfd_open(child.id() as i32).unwrap();
        assert_eq!(pidfd_exit_code(&fd), None, "not before it is reaped");
        child.wait().unwrap();
        // Kernels before 6.15 cannot say.
        assert!(matches!(pidfd_exit_code(&fd), Some(7) | None));
        assert_eq!(pidfd_signal(&fd, 15).unwrap_err().raw_os_error(), Some(nix::libc::ESRCH));
        assert_eq!((wait_status_code(9), wait_status_code(3 << 8)), (137, 3));
    }
}
