//! Runs a command in a running container without starting the runtime, which takes 30 ms of an exec's 32.
//!
//! The command gets what `runc exec` would give it: the namespaces of init, the groups, user, capabilities, limits and filter of system calls of the configuration
//! that init was started with. A test compares the two. Where the kernel or the host refuses a part, the runtime is used as before.

use super::OciRuntime;
use super::exec::Execution;
use super::spec;
use crate::error::{Error, IoContext, Result};
use crate::id::ContainerId;
use crate::runtime::ExecSpec;
use crate::sys::enter::{Entry, Reported, Stage, enter};
use crate::sys::{filter, process};
use nix::libc;
use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The namespaces by their names in `/proc/<pid>/ns`.
const NAMESPACES: [(&str, i32); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("net", libc::CLONE_NEWNET),
];

/// The name of the file with the filter in a run's directory.
const FILTER: &str = "filter.bpf";
/// Bytes of an instruction of a filter.
const INSTRUCTION: usize = 8;

impl OciRuntime {
    /// Keeps the filter that the runtime gave init, for the commands that follow. A run without the file uses the runtime for them.
    pub(super) fn keep_filter(&self, bundle: &Path, pid: i32) {
        let kept = filter::of_process(pid).and_then(|f| {
            let bytes: Vec<u8> = f.iter().flat_map(|i| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat()).collect();
            let new = bundle.join("filter.new");
            fs::write(&new, bytes)?;
            fs::rename(new, filter_file(bundle))
        });
        if let Err(e) = kept {
            tracing::debug!(error = %e, "the filter of system calls cannot be read: commands are started by the runtime");
        }
    }

    /// The command as a child of this process; `None`: this run, kernel or host needs the runtime for it.
    pub(super) fn entered(&self, c: &ContainerId, init: (i32, &OwnedFd), bundle: &Path, spec: &ExecSpec, name: &str) -> Result<Option<Execution<'_>>> {
        let Some(filter) = read_filter(bundle) else { return Ok(None) };
        if let Some(e) = self.cgroups.out_of_tasks(c) {
            return Err(e);
        }
        let entry = self.entry(c, init, filter, spec, name)?;
        let mut command = Command::new("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let report = enter(&mut command, entry).io(|| "make a pipe")?;
        let mut helper = self.watcher.spawn(&mut command).io(|| "start a process")?;
        // Closes the ends of the pipe that the processes have.
        drop(command);
        let mut reported = Reported::default();
        // `wait` closes the standard input.
        let stdin = helper.child.stdin.take();
        helper.child.wait().io(|| "wait for a process")?;
        helper.child.stdin = stdin;
        report.read(&mut reported).io(|| "read a pipe")?;
        match reported {
            Reported { failed: Some((Stage::Join, errno)), .. } => {
                tracing::debug!(container = %c, errno, "its namespaces cannot be joined from here: the runtime is started");
                Ok(None)
            }
            Reported { pid: Some(pid), .. } => {
                // A child of ours that is dead but not reaped can be opened, and no other thread reaps it while it is expected.
                let pidfd = process::pidfd_open(pid).io(|| format!("open a pidfd of the command (process {pid})"))?;
                Ok(Some(Execution { helper, pid, pidfd, report, reported }))
            }
            Reported { pid: None, failed: _ } => Err(Error::internal("the process that enters a container said nothing")),
        }
    }

    fn entry(&self, c: &ContainerId, (pid, of): (i32, &OwnedFd), filter: Vec<libc::sock_filter>, spec: &ExecSpec, name: &str) -> Result<Entry> {
        let process = spec::exec_process(spec)?;
        let strings = |s: &[String]| s.iter().map(|s| c_string(s)).collect::<Result<Vec<_>>>();
        let (args, env) = (process.args().clone().unwrap_or_default(), process.env().clone().unwrap_or_default());
        let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(spec::PATH);
        let program = args.first().map_or("", String::as_str);
        let places: Vec<String> = if program.contains('/') {
            vec![program.to_owned()]
        } else {
            path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
        };
        let mut groups: Vec<OwnedFd> = self.cgroups.open_child(c, name)?.map(OwnedFd::from).into_iter().collect();
        groups.extend(self.cgroups.open_v1_runs(c)?.into_iter().map(OwnedFd::from));
        Ok(Entry {
            of: of.try_clone().io(|| "duplicate a pidfd")?,
            namespaces: namespaces_of(pid)?,
            groups,
            owner: self.config.id_base,
            open_files: Some(super::start::open_files()),
            capabilities: spec::CAPABILITY_BITS,
            filter,
            cwd: c_string(&process.cwd().to_string_lossy())?,
            program: strings(&places)?,
            args: strings(&args)?,
            env: strings(&env)?,
        })
    }
}

/// Those that the process does not share with this one: what is shared cannot be joined from another user namespace.
fn namespaces_of(pid: i32) -> Result<i32> {
    let at = |who: &str, kind: &str| fs::metadata(format!("/proc/{who}/ns/{kind}")).map(|m| (m.dev(), m.ino())).io(|| "look at a namespace");
    let mut flags = 0;
    for (kind, flag) in NAMESPACES {
        if at(&pid.to_string(), kind)? != at("self", kind)? {
            flags |= flag;
        }
    }
    Ok(flags)
}

fn filter_file(bundle: &Path) -> PathBuf {
    bundle.join(FILTER)
}

fn read_filter(bundle: &Path) -> Option<Vec<libc::sock_filter>> {
    let bytes = fs::read(filter_file(bundle)).ok().filter(|b| b.len() % INSTRUCTION == 0)?;
    let instruction =
        |b: &[u8]| Some(libc::sock_filter { code: u16::from_ne_bytes([b[0], b[1]]), jt: b[2], jf: b[3], k: u32::from_ne_bytes(b[4..8].try_into().ok()?) });
    bytes.chunks_exact(INSTRUCTION).map(instruction).collect()
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(crate::Code::InvalidCommand, "a command, its environment and its working directory cannot contain NUL"))
}
