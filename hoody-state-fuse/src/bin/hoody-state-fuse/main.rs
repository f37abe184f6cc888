//! `hoody-state-fuse`: mounts a directory so that nobody finds its SQLite databases locked.

mod log;
mod supervise;

use clap::{Parser, Subcommand};
use hoody_state::locked_db::fuse::{Ask, Client, Reply, left_socket};
use hoody_state_fuse::control;
use hoody_state_fuse::mount::{Mount, MountOptions};
use nix::sys::signal::{SigSet, Signal};
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// SQLite that nobody finds locked, on any directory.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Mount BACKING on MOUNTPOINT, or a directory over itself. Returns when it is mounted; the daemon goes on.
    Mount {
        /// The directory that holds the files; `-` for volumes, added by the control socket.
        backing: PathBuf,
        /// An empty directory. Without it BACKING is mounted over itself: nobody reaches its files beside the mount then, and no path changes.
        mountpoint: Option<PathBuf>,
        /// Control socket, for root. Default: /run/hoody-state-fuse<MOUNTPOINT with dashes>.sock
        #[arg(long)]
        control: Option<PathBuf>,
        /// Stay in the foreground.
        #[arg(long)]
        foreground: bool,
        /// Where the daemon in the background writes its log. Default: the system's log.
        #[arg(long)]
        log: Option<PathBuf>,
        /// Mount again whenever the daemon dies.
        #[arg(long)]
        supervise: bool,
        /// Let go of the caller's streams once it is mounted.
        #[arg(long, hide = true)]
        detached: bool,
        /// Somebody keeps the locks at the other end of standard input.
        #[arg(long, hide = true)]
        kept: bool,
        /// It was mounted before; nobody listens any more.
        #[arg(long, hide = true)]
        again: bool,
        /// Let the page cache serve the files even where the kernel could pass through.
        #[arg(long)]
        no_passthrough: bool,
        /// Threads that take requests.
        #[arg(long, default_value_t = 1)]
        event_loops: usize,
        /// Let idle processors sleep also while requests come thick. A transaction takes up to four times as long then.
        #[arg(long)]
        save_power: bool,
        /// Descriptors that the files open in one volume may use. Default: an eighth of all there may be; all, with one directory.
        #[arg(long)]
        volume_descriptors: Option<usize>,
        /// With volumes: let only root and the members of this group (a number) in.
        #[arg(long, value_name = "GID")]
        group: Option<u32>,
    },
    /// Who holds and who waits for which database, and what happened so far.
    Status {
        /// Where it is mounted.
        mountpoint: PathBuf,
        #[arg(long)]
        control: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hold every write transaction while COMMAND runs: for a snapshot or a copy of the backing, which it finds in $BACKING.
    Quiesce {
        /// Where it is mounted.
        mountpoint: PathBuf,
        #[arg(long)]
        control: Option<PathBuf>,
        /// How long to wait for writers, in ms.
        #[arg(long, default_value_t = 5000)]
        timeout_ms: u64,
        /// How long to hold at most, in ms.
        #[arg(long, default_value_t = 10_000)]
        lease_ms: u64,
        /// What to run meanwhile.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// End a mount and its daemon.
    Unmount {
        /// Where it is mounted.
        mountpoint: PathBuf,
        #[arg(long)]
        control: Option<PathBuf>,
    },
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOODY_STATE_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log::Log).init();
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// The socket of a mount, if none is named: from the mountpoint, so that `status` finds it.
fn socket(named: Option<PathBuf>, mountpoint: &Path) -> Result<PathBuf> {
    if let Some(socket) = named {
        return Ok(std::path::absolute(socket)?);
    }
    // Not canonicalize: that would look at a mount whose daemon may be dead.
    let name: String = std::path::absolute(mountpoint)?.to_string_lossy().trim_end_matches('/').replace('-', "--").replace('/', "-");
    Ok(PathBuf::from(format!("/run/hoody-state-fuse{name}.sock")))
}

fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Mount {
            backing,
            mountpoint,
            control,
            foreground,
            log,
            supervise,
            detached,
            kept,
            again,
            no_passthrough,
            event_loops,
            save_power,
            volume_descriptors,
            group,
        } => {
            let mountpoint = match mountpoint {
                Some(mountpoint) => mountpoint,
                None if backing == Path::new("-") => return Err("volumes (`-`) need a mountpoint: `hoody-state-fuse mount - MOUNTPOINT`".into()),
                None => backing.clone(),
            };
            let socket = socket(control, &mountpoint)?;
            let control = Some(socket.clone());
            let options = MountOptions {
                passthrough: !no_passthrough,
                event_loops,
                stay_awake: !save_power,
                volume_descriptors,
                group,
                control,
                ..MountOptions::default()
            };
            if supervise && backing == Path::new("-") {
                return Err("volumes (`-`) are supervised by who adds them: leave out --supervise".into());
            }
            if !foreground && !detached {
                return detach();
            }
            let log = log.as_deref().map(log::open).transpose()?;
            if supervise && !kept {
                return supervise::run(&backing, &mountpoint, detached.then_some(log));
            }
            if kept {
                keep_locks()?;
            }
            if again && detached {
                log::leave_the_caller(log)?;
                return serve(&backing, &mountpoint, &socket, &options, None);
            }
            serve(&backing, &mountpoint, &socket, &options, detached.then_some(log))
        }
        What::Status { mountpoint, control, json } => {
            let Reply::Status(status) = Client::connect(&socket(control, &mountpoint)?)?.ask(&Ask::Status {})? else { return Err("an odd answer".into()) };
            let mut out = std::io::stdout().lock();
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            writeln!(out, "passthrough: {}", if status.passthrough { "yes" } else { "no (page cache)" })?;
            for f in &status.files {
                writeln!(out, "{}{}{} ({})", f.volume, if f.volume.is_empty() { "" } else { "/" }, f.name, f.class)?;
                for (word, users) in [("holds", &f.holders), ("waits", &f.waiters)] {
                    for u in users {
                        writeln!(out, "  {word}  pid {} tid {}  {} ms  {}", u.pid, u.tid, u.since_us / 1000, u.locks)?;
                    }
                }
            }
            for (name, n) in &status.counters {
                writeln!(out, "{name}: {n}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        What::Quiesce { mountpoint, control, timeout_ms, lease_ms, command } => {
            let mut client = Client::connect(&socket(control, &mountpoint)?)?;
            let Reply::Status(status) = client.ask(&Ask::Status {})? else { return Err("an odd answer".into()) };
            client.ask(&Ask::Quiesce { volumes: Vec::new(), timeout_ms, lease_ms })?;
            let (program, args) = command.split_first().ok_or("a command is needed")?;
            let mut program_run = Command::new(program);
            if let Some(backing) = status.volumes.get("") {
                program_run.env("BACKING", backing);
            }
            let ended = program_run.args(args).status().map_err(|e| format!("{program} cannot be run: {e}"));
            let Reply::Released { whole } = client.ask(&Ask::Release {})? else { return Err("an odd answer".into()) };
            let ended = ended?;
            if !whole {
                return Err(
                    format!("{program} took longer than the lease of {lease_ms} ms: writes went on before it ended, so do not rely on what it saw").into()
                );
            }
            Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        What::Unmount { mountpoint, control } => {
            let socket = socket(control, &mountpoint)?;
            // One that was unmounted before may not have ended yet.
            let mut client = Client::connect(&socket).or_else(|e| Client::connect(&left_socket(&socket)).map_err(|_| e))?;
            client.ask(&Ask::Unmount {})?;
            // It is gone when the connection ends: then another may be mounted there.
            let mut end = client.into_stream();
            end.set_read_timeout(Some(Duration::from_secs(10)))?;
            let _ = end.read(&mut [0])?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs the same command in a session of its own, and waits until it says that it is mounted. Nothing of this process's streams stays open in it.
fn detach() -> Result<ExitCode> {
    let mut daemon = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let errors = daemon.stderr.take().ok_or("no standard error")?;
    let errors = std::thread::spawn(move || std::io::copy(&mut { errors }, &mut std::io::stderr()));
    let mut said = String::new();
    if let Some(mut out) = daemon.stdout.take() {
        out.read_to_string(&mut said)?;
    }
    let _ = errors.join();
    if said.is_empty() {
        // It has said why on standard error.
        daemon.wait()?;
        return Ok(ExitCode::FAILURE);
    }
    write!(std::io::stdout(), "{said}")?;
    Ok(ExitCode::SUCCESS)
}

/// Whoever is at the other end of standard input keeps the locks of this mount's users when it dies.
fn keep_locks() -> Result<()> {
    let keeper = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    hoody_state_fuse::locks::keep_with(keeper);
    Ok(())
}

/// `detached`: where the log goes once it is mounted, for a daemon in the background.
fn serve(backing: &Path, mountpoint: &Path, socket: &Path, options: &MountOptions, detached: Option<Option<std::fs::File>>) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    for s in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(s);
    }
    signals.thread_block()?;
    control::succeed(socket)?;
    let mount = Arc::new(if backing == Path::new("-") { Mount::volumes(mountpoint, options)? } else { Mount::single(backing, mountpoint, options)? });
    let control = control::serve(&mount, socket).map_err(|e| format!("the control socket {} cannot be made: {e}", socket.display()))?;
    let mut out = std::io::stdout();
    let how = if mount.passes_through() { "passthrough" } else { "page cache" };
    writeln!(out, "mounted {} on {} ({how}), control {}", backing.display(), mountpoint.display(), socket.display())?;
    out.flush()?;
    // Whoever started it in the background waits for the end of these streams.
    if let Some(log) = detached {
        log::leave_the_caller(log)?;
    }
    nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    let (waiter, leaver) = (mount.clone(), control.clone());
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        // As often as it must be asked: it may fail.
        while signals.wait().is_ok() {
            if let Err(e) = leaver.unmount(&waiter) {
                tracing::error!("it stays mounted: {e}");
            }
        }
    })?;
    mount.wait();
    control.end();
    Ok(ExitCode::SUCCESS)
}
