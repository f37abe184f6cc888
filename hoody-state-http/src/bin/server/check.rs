//! `check` and `unmount`.

use crate::args::{CheckArgs, PoolArgs};
use hoody_state::Result;
use hoody_state::host::Host;
use std::process::ExitCode;

/// Prints one line for each finding. The exit code is 1 if any is left.
///
/// # Errors
/// When the pool cannot be read.
pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    let findings = Host::check_pool(&args.pool.config()?, args.repair)?;
    for f in &findings {
        println!("{}: {}{}", f.code, f.message, if f.repaired { " (repaired)" } else { "" });
    }
    Ok(if findings.iter().all(|f| f.repaired) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Stops the containers and unmounts the pool.
///
/// # Errors
/// When a server is running on it, or something cannot be unmounted.
pub fn unmount(args: &PoolArgs) -> Result<()> {
    Host::unmount(&args.config()?)
}
