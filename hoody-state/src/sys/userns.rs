//! A user namespace that is made before what runs in it.

use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

/// `SECBIT_NO_SETUID_FIXUP` and `SECBIT_KEEP_CAPS`: a change of the user takes no capability away.
const KEEP_CAPABILITIES: libc::c_ulong = 1 << 2 | 1 << 4;

/// Makes a user namespace with `count` ids, of which the first is `base` on the host, and whose owner is the user `owner` of the host.
///
/// The owner matters for what the kernel counts by user (inotify instances and watches, POSIX message queues, pending signals, locked memory, namespaces): what
/// is counted in the namespace is counted once more for its owner on the host, against the host's limit. No namespaces may be made in it that are user
/// namespaces themselves.
///
/// It lives as long as the descriptor, a mount of it, or a process in it. Errors of the kernel.
pub(crate) fn make(owner: u32, base: u32, count: u32) -> io::Result<OwnedFd> {
    let (said, say) = io::pipe()?;
    let (heard, answer) = io::pipe()?;
    // SAFETY: this process may have other threads, so the child makes system calls alone until it ends by _exit: it allocates nothing, takes no lock,
    // and touches no memory of ours but its copy of the descriptors' numbers.
    #[allow(unsafe_code)]
    let child = unsafe {
        match libc::fork() {
            0 => libc::_exit(in_child(owner, said.as_raw_fd(), say.as_raw_fd(), heard.as_raw_fd(), answer.as_raw_fd())),
            pid => Errno::result(pid)?,
        }
    };
    drop((say, heard));
    let made = map(child, said, answer, base, count);
    // It ends by itself: it was answered, or the pipe is closed.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
    made
}

/// What the parent does while the child is in the new namespace and waits.
fn map(child: i32, mut said: io::PipeReader, mut answer: io::PipeWriter, base: u32, count: u32) -> io::Result<OwnedFd> {
    let mut errno = [0; 4];
    said.read_exact(&mut errno)?;
    if let n @ 1.. = i32::from_ne_bytes(errno) {
        return Err(io::Error::from_raw_os_error(n));
    }
    let ns = File::open(format!("/proc/{child}/ns/user"))?;
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{file}"), format!("0 {base} {count}\n"))?;
    }
    answer.write_all(&[0])?;
    said.read_exact(&mut errno)?;
    match i32::from_ne_bytes(errno) {
        0 => Ok(ns.into()),
        n => Err(io::Error::from_raw_os_error(n)),
    }
}

/// Between fork and _exit; system calls alone. Its result is the exit code.
fn in_child(owner: u32, said: i32, say: i32, heard: i32, answer: i32) -> i32 {
    let entered = enter(owner);
    // SAFETY: the buffers live on this stack for the time of each call, and the lengths are theirs.
    #[allow(unsafe_code)]
    unsafe {
        // The parent's ends: its death is then seen as the end of the pipe.
        libc::close(said);
        libc::close(answer);
        if libc::write(say, entered.to_ne_bytes().as_ptr().cast(), 4) != 4 || entered != 0 {
            return 1;
        }
        let mut byte = [0u8; 1];
        if libc::read(heard, byte.as_mut_ptr().cast(), 1) != 1 {
            return 1;
        }
        let limited = forbid_nesting();
        i32::from(libc::write(say, limited.to_ne_bytes().as_ptr().cast(), 4) != 4)
    }
}

/// Becomes `owner` with every capability, and enters a new user namespace. 0 or an errno.
fn enter(owner: u32) -> i32 {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: every pointer is to a value on this stack that outlives the call. The raw calls change the calling thread alone, which is all there is in
    // this process.
    #[allow(unsafe_code)]
    unsafe {
        // Cgroups limit the number of processes; what the server may have would be passed on as a limit otherwise. Without CAP_SYS_RESOURCE it is.
        libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NPROC, &raw const unlimited, std::ptr::null_mut::<libc::rlimit>());
        if libc::prctl(libc::PR_SET_SECUREBITS, KEEP_CAPABILITIES, 0, 0, 0) != 0
            || libc::syscall(libc::SYS_setresuid, owner, owner, owner) != 0
            || libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) != 0
        {
            return Errno::last_raw();
        }
    }
    0
}

/// No user namespaces in this one. 0 or an errno.
fn forbid_nesting() -> i32 {
    // SAFETY: the path is a C string, and the buffer is static.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libc::open(c"/proc/sys/user/max_user_namespaces".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        // A kernel without these limits.
        if fd < 0 && Errno::last_raw() == libc::ENOENT {
            return 0;
        }
        if fd < 0 || libc::write(fd, b"0".as_ptr().cast(), 1) != 1 { Errno::last_raw() } else { 0 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_namespace_has_its_ids_and_its_owner_and_none_below_it() {
        let (owner, base) = (100_123, 100_000);
        let ns = make(owner, base, 65_536).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), ns.as_raw_fd());
        let inside = |args: &[&str]| {
            let out = Command::new("nsenter").arg(format!("--user={path}")).args(["--setuid", "0", "--setgid", "0"]).args(args).output().unwrap();
            (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
        };
        assert_eq!(inside(&["cat", "/proc/self/uid_map"]).1.split_ascii_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
        assert_eq!(inside(&["id", "-u"]), (true, "0\n".into()));
        assert!(!inside(&["unshare", "--user", "true"]).0, "no user namespace inside it");
        assert!(Command::new("unshare").args(["--user", "true"]).status().unwrap().success(), "while there may be outside");
        let mut said = 0u32;
        nix::ioctl_read_bad!(owner_of, 0xb704, u32);
        // SAFETY: NS_GET_OWNER_UID writes one uid_t.
        #[allow(unsafe_code)]
        unsafe {
            owner_of(ns.as_raw_fd(), &raw mut said).unwrap();
        }
        assert_eq!(said, owner);
    }

    #[test]
    fn a_map_that_the_kernel_refuses_is_an_error_and_leaves_nobody() {
        assert_eq!(make(100_001, 4_294_967_000, 65_536).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
