//! `hoody-state-fuse`: mounts a directory so that SQLite databases in it are never locked: writers wait for each other.

mod args;
mod commands;
mod log;
mod supervise;

use args::{Cli, MountArgs};
use clap::Parser;
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

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOODY_STATE_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log::Log).init();
    let done = match Cli::parse().command {
        args::Command::Mount(args) => mount(args),
        args::Command::Status { mount, json } => commands::status(mount, json),
        args::Command::Quiesce(args) => commands::quiesce(args),
        args::Command::Unmount(mount) => commands::unmount(mount),
    };
    done.unwrap_or_else(|e| {
        tracing::error!("{e}");
        ExitCode::FAILURE
    })
}

/// The control socket of a mount: the given one, else one named after the mountpoint.
fn socket(given: Option<PathBuf>, mountpoint: &Path) -> Result<PathBuf> {
    if let Some(socket) = given {
        return Ok(std::path::absolute(socket)?);
    }
    // Not canonicalize: that would hang or fail on a mount whose daemon is dead.
    let name: String = std::path::absolute(mountpoint)?.to_string_lossy().trim_end_matches('/').replace('-', "--").replace('/', "-");
    Ok(PathBuf::from(format!("/run/hoody-state-fuse{name}.sock")))
}

fn mount(args: MountArgs) -> Result<ExitCode> {
    let with_volumes = args.backing == Path::new("-");
    let mountpoint = match args.mountpoint {
        Some(mountpoint) => mountpoint,
        None if with_volumes => return Err("volumes (`-`) need a mountpoint: `hoody-state-fuse mount - MOUNTPOINT`".into()),
        None => args.backing.clone(),
    };
    let socket = socket(args.control, &mountpoint)?;
    let options = MountOptions {
        passthrough: !args.no_passthrough,
        event_loops: args.event_loops,
        stay_awake: !args.save_power,
        volume_descriptors: args.volume_descriptors,
        group: args.group,
        control: Some(socket.clone()),
        ..MountOptions::default()
    };
    if args.supervise && with_volumes {
        return Err("--supervise does not work with volumes (`-`): the program that adds them must restart the daemon".into());
    }
    if !args.foreground && !args.detached {
        return detach();
    }
    let log = args.log.as_deref().map(log::open).transpose()?;
    if args.supervise && !args.kept {
        return supervise::run(&args.backing, &mountpoint, args.detached.then_some(log));
    }
    if args.kept {
        keep_locks()?;
    }
    if args.again && args.detached {
        log::detach_from_caller(log)?;
        return serve(&args.backing, &mountpoint, &socket, &options, None);
    }
    serve(&args.backing, &mountpoint, &socket, &options, args.detached.then_some(log))
}

/// Runs the same command in the background, and waits until it reports that it is mounted. The streams of this process do not stay open in it.
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
    let mut report = String::new();
    if let Some(mut out) = daemon.stdout.take() {
        out.read_to_string(&mut report)?;
    }
    let _ = errors.join();
    if report.is_empty() {
        // The reason is on standard error.
        daemon.wait()?;
        return Ok(ExitCode::FAILURE);
    }
    write!(std::io::stdout(), "{report}")?;
    Ok(ExitCode::SUCCESS)
}

/// Standard input is a socket to the supervisor. It keeps the locks of the users of this mount if this process dies.
fn keep_locks() -> Result<()> {
    let keeper = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    hoody_state_fuse::locks::keep_with(keeper);
    Ok(())
}

/// Mounts and serves until the mount ends. `detached`: this is a daemon in the background, and its log goes there (`None`: to the system log) once it is
/// mounted.
fn serve(backing: &Path, mountpoint: &Path, socket: &Path, options: &MountOptions, detached: Option<Option<std::fs::File>>) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    for s in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(s);
    }
    signals.thread_block()?;
    control::succeed(socket)?;
    let mount = Arc::new(if backing == Path::new("-") { Mount::volumes(mountpoint, options)? } else { Mount::single(backing, mountpoint, options)? });
    let control = control::serve(&mount, socket).map_err(|e| format!("the control socket {} cannot be created: {e}", socket.display()))?;
    let mut out = std::io::stdout();
    let how = if mount.passes_through() { "passthrough" } else { "page cache" };
    writeln!(out, "mounted {} on {} ({how}), control {}", backing.display(), mountpoint.display(), socket.display())?;
    out.flush()?;
    // The process that started this one in the background waits until these streams are closed.
    if let Some(log) = detached {
        log::detach_from_caller(log)?;
    }
    nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    let (mounted, server) = (mount.clone(), control.clone());
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        // Again for each signal: an attempt may fail.
        while signals.wait().is_ok() {
            if let Err(e) = server.unmount(&mounted) {
                tracing::error!("it cannot be unmounted: {e}");
            }
        }
    })?;
    mount.wait();
    control.end();
    Ok(ExitCode::SUCCESS)
}
