//! `status`, `quiesce` and `unmount`: commands for a running daemon.

use super::args::{MountedArgs, QuiesceArgs};
use super::{Result, socket};
use hoody_state::locked_db::Status;
use hoody_state::locked_db::control::{Ask, Client, Reply, left_socket};
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitCode};
use std::time::Duration;

const UNEXPECTED: &str = "the daemon sent an unexpected answer";

fn ask_status(client: &mut Client) -> Result<Status> {
    match client.ask(&Ask::Status {})? {
        Reply::Status(status) => Ok(*status),
        _ => Err(UNEXPECTED.into()),
    }
}

/// Prints the users of each database, and counters.
pub(crate) fn status(mount: MountedArgs, json: bool) -> Result<ExitCode> {
    let status = ask_status(&mut Client::connect(&socket(mount.control, &mount.mountpoint)?)?)?;
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

/// Runs a command while write transactions are held. Fails if the command fails, or if the lease ended before it.
pub(crate) fn quiesce(args: QuiesceArgs) -> Result<ExitCode> {
    let lease_ms = args.lease_ms;
    let mut client = Client::connect(&socket(args.mount.control, &args.mount.mountpoint)?)?;
    let status = ask_status(&mut client)?;
    client.ask(&Ask::Quiesce { volumes: Vec::new(), timeout_ms: args.timeout_ms, lease_ms })?;
    let (program, rest) = args.command.split_first().ok_or("a command is needed")?;
    let mut command = Command::new(program);
    if let Some(backing) = status.volumes.get("") {
        command.env("BACKING", backing);
    }
    let ended = command.args(rest).status().map_err(|e| format!("{program} cannot be run: {e}"));
    let Reply::Released { throughout: held_throughout } = client.ask(&Ask::Release {})? else { return Err(UNEXPECTED.into()) };
    let ended = ended?;
    if !held_throughout {
        let why = format!("{program} took longer than the lease of {lease_ms} ms: writes continued before it ended, so what it read may be inconsistent");
        return Err(why.into());
    }
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Unmounts, and returns when the daemon has ended.
pub(crate) fn unmount(mount: MountedArgs) -> Result<ExitCode> {
    let socket = socket(mount.control, &mount.mountpoint)?;
    // A daemon that was unmounted before may still be running, with its socket moved aside.
    let mut client = Client::connect(&socket).or_else(|e| Client::connect(&left_socket(&socket)).map_err(|_| e))?;
    client.ask(&Ask::Unmount {})?;
    // The connection ends with the daemon: then another can mount there.
    let mut end = client.into_stream();
    end.set_read_timeout(Some(Duration::from_secs(10)))?;
    let _ = end.read(&mut [0])?;
    Ok(ExitCode::SUCCESS)
}
