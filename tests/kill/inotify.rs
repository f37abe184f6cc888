//! A server on a host where no inotify instance is left.

use crate::leftovers;
use crate::server::Server;
use crate::world::{World, new_container};
use nix::libc;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Lets the kernel answer EMFILE to every request for an inotify instance of this command and all it starts.
pub fn refuse(command: &mut Command) {
    let op = |code: u32, jt, jf, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let number = |nr: libc::c_long| u32::try_from(nr).unwrap();
    // Load the number of the call; an errno for the two calls that make an instance, and everything else passes.
    let filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, 0, number(libc::SYS_inotify_init1)),
        #[cfg(target_arch = "x86_64")]
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, number(libc::SYS_inotify_init)),
        #[cfg(not(target_arch = "x86_64"))]
        op(libc::BPF_JMP | libc::BPF_JA, 0, 0, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EMFILE.cast_unsigned()),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program and its filter live in this closure for the time of the call, which copies them.
        #[allow(unsafe_code)]
        let rc = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
        if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call, and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(install);
    }
}

/// From the first start to `unmount`, with a console that is bounded all the same.
pub fn a_servers_life_without() {
    let mut server = Server::new("kill-inotify");
    server.prepare = Some(refuse);
    let mut w = World::with(server);
    assert!(w.server.log_tail().contains("fs.inotify.max_user_instances"), "it says so: {}", w.server.log_tail());
    let c = w.create(&json!({ "name": "flood", "command": ["/bin/sh", "-c", "yes 0123456789 | head -c 8000000; echo the end; while :; do sleep 1000; done"] }));
    let console = w.server.pool().join(format!("consoles/{c}.log"));
    let end = Instant::now() + Duration::from_secs(20);
    let bounded = || {
        let text = std::fs::read(&console).unwrap_or_default();
        text.ends_with(b"the end\n") && std::fs::metadata(&console).unwrap().blocks() * 512 <= (1 << 20) + (128 << 10)
    };
    while !bounded() {
        assert!(Instant::now() < end, "the console is not bounded");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(w.server.check().status.success());
    w.server.end();
    w.server.start();
    let other = w.create(&new_container("other"));
    assert_eq!(w.status(&other).as_deref(), Some("running"));
    assert!(w.server.check().status.success());
    w.server.end();
    w.server.take_down().unwrap();
    assert_eq!(leftovers::of_machine(&w.server.dir), Vec::<String>::new());
}
