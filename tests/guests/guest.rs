//! A user-mode Linux guest: a whole machine as an ordinary process of the host, with a kernel, memory and disks of its own. Killing the process is a power
//! cut: the guest's page cache is gone.

use crate::disk::{Cache, Disks};
use hoody_state_workspace::programs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

const GUEST: &str = "10.99.0.2";
const HOST: &str = "10.99.0.1";
const AGENT_PORT: u16 = 7000;
/// A guest boots in 2 s; machines that build at the same time are slower.
const BOOT: Duration = Duration::from_secs(60);
/// What the kernel package installs.
const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";

/// What a guest is made of. It outlives the guest's process, so that the same disks can be booted again.
pub struct Machine {
    pub dir: PathBuf,
    disks: Disks,
    disk_bytes: u64,
    process: Option<Child>,
}

impl Machine {
    /// Makes the disks, the network and the directory of programs. The network lies in a namespace of the calling thread, and goes with it; threads and
    /// processes started by this thread are in it too.
    pub fn new(name: &str, disk_bytes: u64) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes a network interface");
        for (file, package) in
            [(KERNEL, "user-mode-linux"), ("/usr/sbin/depmod", "kmod"), ("/usr/sbin/mkfs.ext4", "e2fsprogs"), ("/usr/bin/btrfs", "btrfs-progs")]
        {
            assert!(Path::new(file).exists(), "this test needs {file}: apt-get install {package}");
        }
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        host("ip link set lo up");
        host("ip tuntap add dev guest0 mode tap");
        host(&format!("ip addr add {HOST}/24 dev guest0"));
        host("ip link set guest0 up");
        let dir = hoody_state_workspace::scratch(name);
        let shared = dir.join("shared");
        let version = std::fs::read_dir(MODULES).unwrap().next().expect("a directory of modules").unwrap().file_name();
        let modules = shared.join("lib/modules");
        std::fs::create_dir_all(&modules).unwrap();
        host(&format!("cp -r {MODULES}/{} {}", version.display(), modules.display()));
        host(&format!("depmod -b {} {}", shared.display(), version.display()));
        // Of an unoptimised program most is what debuggers read, and a guest would have to load it again after each cut.
        for (program, built) in
            [("guest-agent", Path::new(env!("CARGO_BIN_EXE_guest-agent"))), ("hoody-state-http", programs::server()), ("hoody-state-fuse", programs::daemon())]
        {
            host(&format!("strip --strip-debug -o {} {}", shared.join(program).display(), built.display()));
        }
        std::fs::write(shared.join("init"), include_str!("init.sh")).unwrap();
        host(&format!("chmod 755 {}/init", shared.display()));
        let disks = Disks::new(&dir, HOST, &[("data", 7001), ("pool", 7002)], disk_bytes);
        Machine { dir, disks, disk_bytes, process: None }
    }

    /// Switches the guest on and waits until its agent answers.
    pub fn boot(&mut self) {
        assert!(self.process.is_none(), "the guest is on");
        let console = std::fs::File::options().create(true).append(true).open(self.console()).unwrap();
        let shared = self.dir.join("shared");
        let mut linux = Command::new("setpriv");
        // The guest ends with the thread of the test, however that ends.
        linux.args(["--pdeathsig", "KILL", KERNEL]);
        linux.arg(format!("uml_dir={}", self.dir.join("uml").display())).args(["umid=guest", "mem=640M", "ubda=/dev/null"]);
        linux.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "con=null", "con0=null,fd:1"]);
        linux.arg(format!("init={}/init", shared.display())).arg(format!("SHARED={}", shared.display())).arg(format!("ADDRESS={GUEST}"));
        linux.arg(format!("HOST={HOST}")).arg(format!("DISK_BYTES={}", self.disk_bytes));
        linux.arg("vec0:transport=tap,ifname=guest0,depth=64,gro=1");
        let _ = std::fs::remove_dir_all(self.dir.join("uml"));
        linux.process_group(0).stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        self.process = Some(linux.spawn().unwrap());
        self.disks.connect();
        let end = Instant::now() + BOOT;
        while Agent::connect().is_none() {
            assert!(self.process.as_mut().unwrap().try_wait().unwrap().is_none(), "the guest has ended by itself:\n{}", self.console_tail());
            assert!(Instant::now() < end, "the guest does not boot:\n{}", self.console_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Cuts the power: every process of the guest is killed, and its memory is gone.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        self.disks.off();
        let group = nix::unistd::Pid::from_raw(process.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        process.wait().unwrap();
        connections(|all| all.drain(..).filter_map(|c| c.upgrade()).for_each(|c| drop(c.shutdown(Shutdown::Both))));
        // Processes of the guest are children of its kernel, and die after it.
        let end = Instant::now() + Duration::from_secs(20);
        while nix::sys::signal::killpg(group, None).is_ok() {
            assert!(Instant::now() < end, "processes of the guest are left in group {group}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Cuts the power, also of the disks: what becomes of writes that were issued and not flushed. Says how much was lost.
    pub fn cut(&mut self, cache: Cache) -> String {
        self.kill();
        self.disks.cut(cache)
    }

    /// From now on the disks answer every write and every flush with EIO, or no more.
    pub fn fail_writes(&self, fail: bool) {
        self.disks.fail_writes(fail);
    }

    /// What the guest's kernel, server and daemon said.
    pub fn console(&self) -> PathBuf {
        self.dir.join("console")
    }

    pub fn console_tail(&self) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(self.console()).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut(Cache::Kept);
        if std::thread::panicking() {
            println!("the guest's console ended with:\n{}", self.console_tail());
        }
        if std::thread::panicking() && std::env::var_os("HOODY_KEEP").is_some() {
            println!("kept: {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs a command on the host that must succeed.
pub fn host(line: &str) {
    let mut words = line.split(' ');
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A connection to the agent in the guest. Nothing, instead of an answer, means that the guest is gone.
pub struct Agent(BufReader<Connection>);

/// A connection that ends when the power is cut.
pub struct Connection(Arc<TcpStream>);

impl Read for Connection {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        (&*self.0).read(to)
    }
}

impl Write for Connection {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        (&*self.0).write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The open connections by network namespace, which is one machine's. A machine without power sends nothing that would end them, so the test does it.
static CONNECTIONS: Mutex<BTreeMap<PathBuf, Vec<Weak<TcpStream>>>> = Mutex::new(BTreeMap::new());

fn connections<T>(f: impl FnOnce(&mut Vec<Weak<TcpStream>>) -> T) -> T {
    let namespace = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    f(CONNECTIONS.lock().unwrap().entry(namespace).or_default())
}

impl Agent {
    pub fn connect() -> Option<Self> {
        let address: SocketAddr = format!("{GUEST}:{AGENT_PORT}").parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
        let stream = Arc::new(stream);
        connections(|all| {
            all.retain(|c| c.strong_count() > 0);
            all.push(Arc::downgrade(&stream));
        });
        Some(Agent(BufReader::new(Connection(stream))))
    }

    fn ask(&mut self, request: &Value) -> Option<Value> {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Runs a program to its end: its exit code, standard output and standard error.
    pub fn run(&mut self, command: &[&str]) -> Option<(Option<i64>, String, String)> {
        let a = self.ask(&json!({ "op": "run", "command": command }))?;
        Some((a["code"].as_i64(), a["out"].as_str()?.to_owned(), a["err"].as_str()?.to_owned()))
    }

    /// Runs a line of shell that must succeed.
    pub fn sh(&mut self, line: &str) -> String {
        let (code, out, err) = self.run(&["/bin/sh", "-c", line]).unwrap_or_else(|| panic!("{line}: the guest is gone"));
        assert_eq!(code, Some(0), "{line}: {out}{err}");
        out
    }

    /// Starts a program that goes on; what it says goes to the guest's console, or to a file of the guest.
    pub fn spawn(&mut self, command: &[&str], stdout: &str) -> Option<u64> {
        self.ask(&json!({ "op": "spawn", "command": command, "stdout": stdout, "stderr": "/dev/console" }))?["pid"].as_u64()
    }

    /// A file's text; an empty one if there is none.
    pub fn read(&mut self, path: &str) -> Option<String> {
        Some(self.ask(&json!({ "op": "read", "path": path }))?["text"].as_str().unwrap_or_default().to_owned())
    }

    /// Replaces a file's text durably; nothing if the power was cut meanwhile.
    pub fn write(&mut self, path: &str, text: &str) -> Option<()> {
        let a = self.ask(&json!({ "op": "write", "path": path, "text": text }))?;
        assert!(a["error"].is_null(), "write {path}: {}", a["error"]);
        Some(())
    }

    /// The lines that are added to a file, as they come.
    pub fn follow(mut self, path: &str) -> Option<impl Iterator<Item = String>> {
        self.0.get_mut().write_all(format!("{}\n", json!({ "op": "follow", "path": path })).as_bytes()).ok()?;
        // A stream that says nothing for long is no fault.
        self.0.get_mut().0.set_read_timeout(None).ok()?;
        Some(self.0.lines().map_while(Result::ok))
    }

    /// The connection becomes one to a UNIX socket of the guest.
    pub fn unix(mut self, path: &str) -> Option<Connection> {
        self.0.get_mut().write_all(format!("{}\n", json!({ "op": "unix", "path": path })).as_bytes()).ok()?;
        Some(self.0.into_inner())
    }
}
