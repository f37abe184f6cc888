//! A program in the namespaces and control groups of a running container, without the start of a runtime.
//!
//! `Command` forks a first process, which joins the namespaces and forks a second one: only a child of a process that joined a PID namespace is in it. The second
//! one is a child of this process too (`CLONE_PARENT`). It joins the groups, gives up what the container's processes do not have, and becomes the program. It
//! reports its pid, and what failed, through a pipe that closes when the program runs.
//!
//! Source of the idea: `nsexec.c` of runc, `namespaces(7)`, `setns(2)` with a pidfd (Linux 5.8).

use nix::libc;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What the process gets, and what it gives up.
pub(crate) struct Entry {
    /// A process of the container, whose namespaces are joined.
    pub of: OwnedFd,
    /// `CLONE_NEW…` of the namespaces to join.
    pub namespaces: i32,
    /// The groups' `cgroup.procs`, open for writing.
    pub groups: Vec<OwnedFd>,
    /// The host's number for the container's root, who owns the standard streams.
    pub owner: u32,
    /// Open files, soft and hard; `None`: those of this process.
    pub open_files: Option<(u64, u64)>,
    /// Bounding, permitted and effective capabilities, a bit each.
    pub capabilities: u64,
    /// The system calls that are allowed.
    pub filter: Vec<libc::sock_filter>,
    /// The working directory, in the container.
    pub cwd: CString,
    /// The places at which the program may be, in this order.
    pub program: Vec<CString>,
    /// Its arguments, its own name first.
    pub args: Vec<CString>,
    /// Its environment.
    pub env: Vec<CString>,
}

/// How far a process came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It joins the namespaces: what a kernel or a restricted host may refuse.
    Join,
    /// It joins the groups.
    Groups,
    /// It gives up what the container does not have.
    Confine,
    /// It enters its working directory.
    Directory,
    /// It becomes the program.
    Program,
}

const STAGES: [Stage; 5] = [Stage::Join, Stage::Groups, Stage::Confine, Stage::Directory, Stage::Program];
const PID: u32 = 100;
/// Where the process keeps its descriptors while it closes all others.
const KEPT: i32 = 500;

/// The end of the pipe through which the process reports.
pub(crate) struct Report(OwnedFd);

/// What was reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// The process, once there is one.
    pub pid: Option<i32>,
    /// Where it failed, and the error of the kernel.
    pub failed: Option<(Stage, i32)>,
}

impl Report {
    /// What has been reported so far. To be called when the first process has ended, and again when the second one has.
    pub(crate) fn read(&self, so_far: &mut Reported) -> io::Result<()> {
        let mut word = [0u8; 8];
        loop {
            match nix::unistd::read(&self.0, &mut word) {
                Ok(8) => {}
                Ok(_) | Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let (a, b) = word.split_at(4);
            let (what, value) = (u32::from_ne_bytes(a.try_into().unwrap_or_default()), i32::from_ne_bytes(b.try_into().unwrap_or_default()));
            match STAGES.get(what as usize) {
                Some(stage) => so_far.failed = Some((*stage, value)),
                None => so_far.pid = Some(value),
            }
        }
    }
}

/// Makes the child of `command` fork one that becomes the program of `entry`. `command` names no program that is ever run; its streams are the program's.
pub(crate) fn enter(command: &mut Command, entry: Entry) -> io::Result<Report> {
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
    let mut first = First::new(entry, theirs);
    // SAFETY: between fork and exec, `First::run` and what it calls make system calls alone, by numbers and pointers that were prepared before the fork. They take
    // no lock, allocate nothing and unwind nowhere. Whatever they point to belongs to `first`, which `command` owns.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || first.run());
    }
    Ok(Report(ours))
}

/// What the processes need, with all memory allocated.
struct First {
    entry: Entry,
    report: OwnedFd,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
}

// SAFETY: the pointers are into the strings of `entry`, which is moved along with them and never changed; the heap blocks do not move.
#[allow(unsafe_code)]
unsafe impl Send for First {}
// SAFETY: as above; nothing is changed through a shared reference.
#[allow(unsafe_code)]
unsafe impl Sync for First {}

impl First {
    fn new(entry: Entry, report: OwnedFd) -> Self {
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        let (args, env) = (pointers(&entry.args), pointers(&entry.env));
        First { entry, report, args, env }
    }

    /// Never returns Ok: the first process ends here, and the second one becomes the program or ends.
    fn run(&mut self) -> io::Result<()> {
        let report = self.report.as_raw_fd();
        match self.join() {
            Ok(0) => self.second(),
            Ok(pid) => tell(report, PID, pid),
            Err(errno) => tell(report, Stage::Join as u32, errno),
        }
        exit(0)
    }

    /// Joins the namespaces and forks; 0 in the second process, its pid in the first.
    fn join(&self) -> Result<i32, i32> {
        let e = &self.entry;
        // SAFETY: system calls with numbers, and with pointers to memory that lives as long as `self`. `clone` without a stack of its own and without CLONE_VM
        // is a fork: the second process has a copy of this single thread.
        #[allow(unsafe_code)]
        unsafe {
            for stream in 0..3 {
                // So that it can be opened anew through /dev/stdout. A stream that belongs to nobody, such as /dev/null, stays as it is.
                let mut stat: libc::stat = std::mem::zeroed();
                if libc::fstat(stream, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
                    libc::fchown(stream, e.owner, e.owner);
                }
            }
            let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if score >= 0 {
                libc::write(score, b"0".as_ptr().cast(), 1);
            }
            if let Some((_, hard)) = e.open_files {
                // The soft limit is set once the descriptors are in order.
                let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
                check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
            }
            // Until it is the program, no process of the container can look into it.
            check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
            check(libc::syscall(libc::SYS_setns, e.of.as_raw_fd(), e.namespaces) as i32)?;
            let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
            check(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as i32)
        }
    }

    fn second(&self) -> ! {
        if let Err(errno) = self.keep_descriptors() {
            tell(self.report.as_raw_fd(), Stage::Groups as u32, errno);
            exit(126);
        }
        let fail = |stage: Stage, errno: i32| -> ! {
            tell(KEPT, stage as u32, errno);
            exit(if errno == libc::ENOENT { 127 } else { 126 })
        };
        if let Err(errno) = self.join_groups() {
            fail(Stage::Groups, errno);
        }
        if let Err(errno) = self.confine() {
            fail(Stage::Confine, errno);
        }
        if let Err(errno) = self.change_directory() {
            fail(Stage::Directory, errno);
        }
        let errno = self.become_program();
        fail(Stage::Program, errno)
    }

    /// Closes all but the three streams, the pipe and the groups: no descriptor of the server is there when a path of the container is looked up.
    fn keep_descriptors(&self) -> Result<(), i32> {
        // SAFETY: system calls with numbers alone.
        #[allow(unsafe_code)]
        unsafe {
            check(libc::dup3(self.report.as_raw_fd(), KEPT, libc::O_CLOEXEC))?;
            for (i, group) in (1..).zip(&self.entry.groups) {
                check(libc::dup3(group.as_raw_fd(), KEPT + i, libc::O_CLOEXEC))?;
            }
            let last = KEPT + self.entry.groups.len() as i32;
            check(libc::syscall(libc::SYS_close_range, 3, KEPT - 1, 0) as i32)?;
            check(libc::syscall(libc::SYS_close_range, last + 1, u32::MAX, 0) as i32)?;
        }
        Ok(())
    }

    fn join_groups(&self) -> Result<(), i32> {
        for i in 1..=self.entry.groups.len() as i32 {
            // SAFETY: system calls with numbers, and a pointer to one byte of constant memory.
            #[allow(unsafe_code)]
            unsafe {
                // "0" is the writer itself.
                check(libc::write(KEPT + i, b"0".as_ptr().cast(), 1) as i32)?;
                libc::close(KEPT + i);
            }
        }
        Ok(())
    }

    /// Becomes the container's root, with its capabilities and its filter of system calls.
    fn confine(&self) -> Result<(), i32> {
        let e = &self.entry;
        // SAFETY: system calls with numbers, and with pointers to structures on this stack or in `self`, which the kernel only reads.
        #[allow(unsafe_code)]
        unsafe {
            if let Some((soft, hard)) = e.open_files {
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
            }
            check(libc::setsid())?;
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(0, 0, 0))?;
            check(libc::setresuid(0, 0, 0))?;
            libc::umask(0o022);
            for capability in 0..64u64 {
                // EINVAL: the kernel knows no such capability.
                if e.capabilities >> capability & 1 == 0 && libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno() != libc::EINVAL {
                    return Err(errno());
                }
            }
            check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
            // While it still has the right to, and before it gives it up.
            if !e.filter.is_empty() {
                let filter = libc::sock_fprog { len: e.filter.len() as u16, filter: e.filter.as_ptr().cast_mut() };
                check(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter) as i32)?;
            }
            let header = CapHeader { version: CAPABILITIES_3, pid: 0 };
            let set = |bits: u64| CapData { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
            let data = [set(e.capabilities & 0xFFFF_FFFF), set(e.capabilities >> 32)];
            check(libc::syscall(libc::SYS_capset, &header, data.as_ptr()) as i32)?;
        }
        Ok(())
    }

    /// Links of the container cannot lead to what is open here.
    fn change_directory(&self) -> Result<(), i32> {
        // SAFETY: system calls with numbers, and with pointers to a string in `self` and to a structure on this stack; `open_how` is plain integers.
        #[allow(unsafe_code)]
        unsafe {
            let mut how: libc::open_how = std::mem::zeroed();
            how.flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
            how.resolve = libc::RESOLVE_NO_MAGICLINKS;
            let dir = check(libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, self.entry.cwd.as_ptr(), &how, size_of::<libc::open_how>()) as i32)?;
            check(libc::fchdir(dir))?;
            libc::close(dir);
        }
        Ok(())
    }

    /// The error if no place has a program that runs: the first that says more than "not there".
    fn become_program(&self) -> i32 {
        let mut error = libc::ENOENT;
        for place in &self.entry.program {
            // SAFETY: all three point to strings that end in NUL, and to arrays of such that end in a null pointer; they live as long as `self`.
            #[allow(unsafe_code)]
            unsafe {
                libc::execve(place.as_ptr(), self.args.as_ptr(), self.env.as_ptr());
            }
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => error = libc::EACCES,
                other => return other,
            }
        }
        error
    }
}

const CAPABILITIES_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn tell(to: i32, what: u32, value: i32) {
    let (a, b) = (what.to_ne_bytes(), value.to_ne_bytes());
    let word = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
    // SAFETY: a system call with a pointer to eight bytes on this stack. So few bytes are written to a pipe at once or not at all.
    #[allow(unsafe_code)]
    unsafe {
        libc::write(to, word.as_ptr().cast(), word.len());
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends this process at once, without anything of the server's being run.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code)
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(result: i32) -> Result<i32, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sys::process::pidfd_open;
    use std::io::Read;
    use std::process::Stdio;

    fn c(s: &str) -> CString {
        CString::new(s).unwrap()
    }

    /// What the program writes, and what the process reports, in the host name of `of`.
    fn run(of: i32, cwd: &str, args: &[&str]) -> (String, Reported) {
        let entry = Entry {
            of: pidfd_open(of).unwrap(),
            namespaces: libc::CLONE_NEWUTS,
            groups: Vec::new(),
            owner: 0,
            open_files: Some((100, 1000)),
            capabilities: 1 << 5,
            filter: Vec::new(),
            cwd: c(cwd),
            program: vec![c(&format!("/nowhere/{}", args[0])), c(&format!("/bin/{}", args[0]))],
            args: args.iter().map(|a| c(a)).collect(),
            env: vec![c("K=v")],
        };
        let mut command = Command::new("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let report = enter(&mut command, entry).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        child.wait().unwrap();
        let mut reported = Reported::default();
        report.read(&mut reported).unwrap();
        let pid = nix::unistd::Pid::from_raw(reported.pid.unwrap());
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        nix::sys::wait::waitpid(pid, None).unwrap();
        report.read(&mut reported).unwrap();
        (out, reported)
    }

    #[test]
    fn a_program_runs_in_the_namespaces_of_another_process_and_says_why_it_does_not() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it joins namespaces");
        let mut other = Command::new("unshare").args(["--uts", "sh", "-c", "hostname inside; echo; exec sleep 60"]).stdout(Stdio::piped()).spawn().unwrap();
        other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let of = other.id().cast_signed();
        let (out, reported) =
            run(of, "/tmp", &["sh", "-c", "hostname; pwd; echo $K; umask; ulimit -n; ls /proc/self/fd; grep -E 'CapEff|CapBnd|CapPrm' /proc/self/status"]);
        let lines: Vec<&str> = out.split_ascii_whitespace().collect();
        assert_eq!(lines[..5], ["inside", "/tmp", "v", "0022", "100"]);
        assert_eq!(lines[5..9], ["0", "1", "2", "3"], "3 is the listing's own");
        assert_eq!(lines[9..], ["CapPrm:", "0000000000000020", "CapEff:", "0000000000000020", "CapBnd:", "0000000000000020"]);
        assert_eq!(reported.failed, None);
        assert_eq!(run(of, "/", &["no-such-program"]).1.failed, Some((Stage::Program, libc::ENOENT)));
        assert_eq!(run(of, "/no-such-directory", &["true"]).1.failed, Some((Stage::Directory, libc::ENOENT)));
        assert_eq!(run(of, "/proc/self/fd/0", &["true"]).1.failed, Some((Stage::Directory, libc::ELOOP)), "no link leads to what is open");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
