//! Which system calls a container may make: the default of Docker and Podman, without what needs more capabilities than a container has.
//!
//! Names that a runtime's libseccomp does not know are left out by it; calls newer than any in the table get ENOSYS from runc, so that
//! C libraries fall back.
//!
//! **Arguments.** A filter sees 64 bits of each argument. The kernel takes an `int` from most of them and drops the rest, so a rule that compares
//! 64 bits ("any family but 40") lets `1 << 32 | 40` through. Every rule here therefore compares the low 32 bits alone ([`low`]), and allows
//! listed values instead of refusing listed ones. Where only one value must be refused, [`all_but`] allows every other value.
//!
//! **Calling conventions.** 32-bit programs may run. Their `socketcall` takes its arguments from memory, where a filter cannot look: it is refused, so
//! that C libraries fall back to `socket` (musl does; glibc for i386 does not, and has no sockets in a container). The x32 convention is not in
//! the list of architectures: the runtime's filter kills what uses it.

use serde_json::{Value, json};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET: namespaces are made by a capability a container has not.
const CLONE_NEW: u64 = 0x7E02_0000;
const LOW_32: u64 = 0xffff_ffff;
/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET. What is left out reaches past the container (AF_VSOCK the hypervisor, AF_ALG the kernel's crypto) or
/// loads a module of the host for a protocol that a container has no network for.
const FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];
/// `BTRFS_IOC_SNAP_DESTROY_V2` can name a subvolume by its number, wherever it is in the pool. All containers have the same ids on the host, so the
/// kernel's checks of owners would let one delete what is another's. `BTRFS_IOC_SNAP_DESTROY` names it below a directory, and is enough.
const DESTROY_BY_ID: u64 = 0x5000_943f;

const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime \
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect \
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 \
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid \
getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown \
lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise \
map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr \
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync \
munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv \
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg \
recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity \
sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval \
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop \
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups \
setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit \
set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown \
sigaltstack signalfd signalfd4 sigpending sigprocmask sigreturn splice stat stat64 statfs statfs64 statmount statx symlink \
symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 \
ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev \
chroot";

/// The profile for containers on this processor.
pub(crate) fn profile() -> Value {
    let (architectures, own): (Value, &[&str]) = if cfg!(target_arch = "aarch64") {
        (json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]), &["arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls"])
    } else if cfg!(target_arch = "x86_64") {
        (json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), &["arch_prctl", "modify_ldt"])
    } else {
        // The runtime takes the processor it runs on.
        (json!([]), &[])
    };
    let names: Vec<&str> = ALLOWED.split_ascii_whitespace().chain(own.iter().copied()).collect();
    let mut calls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    calls.extend([0, 8, 0x2_0000, 0x2_0008, LOW_32].map(|value| low("personality", 0, LOW_32, value)));
    calls.push(low("clone", 0, CLONE_NEW, 0));
    // The flags of clone3 lie in memory, where a filter cannot look; the C library then takes clone.
    calls.push(json!({"names": ["clone3", "socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    for call in ["socket", "socketpair"] {
        calls.extend(FAMILIES.map(|family| low(call, 0, LOW_32, family)));
    }
    calls.extend(all_but("ioctl", 1, DESTROY_BY_ID));
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "architectures": architectures, "syscalls": calls})
}

/// Allows a call when these of the low 32 bits of an argument have this value, whatever the high 32 bits are.
fn low(call: &str, index: u32, mask: u64, value: u64) -> Value {
    let args = json!([{"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]);
    json!({"names": [call], "action": "SCMP_ACT_ALLOW", "args": args})
}

/// Allows a call unless the low 32 bits of an argument are this value: when any one of them is another.
fn all_but(call: &'static str, index: u32, value: u64) -> impl Iterator<Item = Value> {
    (0..32).map(move |bit| low(call, index, 1 << bit, !value & 1 << bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_named_once_and_the_dangerous_ones_never() {
        let mut names: Vec<&str> = ALLOWED.split_ascii_whitespace().collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
        for bad in [
            "mount",
            "umount2",
            "setns",
            "unshare",
            "bpf",
            "keyctl",
            "add_key",
            "kexec_load",
            "init_module",
            "open_by_handle_at",
            "io_uring_setup",
            "userfaultfd",
            "perf_event_open",
            "reboot",
            "swapon",
            "pivot_root",
            "clone3",
            "socket",
            "socketpair",
            "socketcall",
            "ioctl",
            "pidfd_getfd",
            "move_mount",
            "fsopen",
        ] {
            assert!(!names.contains(&bad), "{bad}");
        }
    }
}
