//! Trying again what a network may have spoilt, and waiting, for operations that can be cancelled.

use super::Op;
use crate::error::{Code, Error, Kind, Result};
use crate::op::cancelled;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often in a row a stream may break off without a complete snapshot between.
const ATTEMPTS: u32 = 6;
/// How often it is looked whether the operation was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Tries `f` again after growing pauses while its error is one that may pass.
pub(super) fn persistently<T>(op: &Op, mut f: impl FnMut() -> Result<T>) -> Result<T> {
    let mut pause = op.world.settings.transfer_pause;
    let mut attempt = 1;
    loop {
        let error = match f() {
            Ok(t) => return Ok(t),
            Err(e) => e,
        };
        if op.progress.cancelled.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        let passing = matches!(
            error.code(),
            Code::TooManyStreams
                | Code::TransferCut
                | Code::PeerUnreachable
                | Code::StreamCorrupt
                | Code::OperationInProgress
                | Code::SnapshotOperationInProgress
        );
        if !passing || attempt >= ATTEMPTS {
            return Err(error);
        }
        tracing::info!(operation = %op.id, attempt, error = %error, "trying again");
        attempt += 1;
        sleep(op, pause)?;
        pause *= 2;
    }
}

/// Waits, unless the operation is cancelled or the host ends.
pub(super) fn sleep(op: &Op, time: Duration) -> Result<()> {
    wait(op, time, true)
}

/// Waits, unless the host ends: then the next start goes on.
pub(super) fn wait_or_end(op: &Op, time: Duration) -> Result<()> {
    wait(op, time, false)
}

fn wait(op: &Op, time: Duration, cancellable: bool) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        if cancellable && op.progress.cancelled.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        if op.world.upkeep.is_closed() {
            return Err(Error::new(Code::Crashed, "the server is stopping; its next start goes on with this"));
        }
        std::thread::sleep(left.min(LOOK));
    }
    Ok(())
}

/// Whether an error says nothing of what the peer did, or will do when it is asked again.
pub(super) fn is_unclear(e: &Error) -> bool {
    matches!(e.code(), Code::PeerUnreachable | Code::PeerRefused | Code::PeerFailed)
        || matches!(e.kind(), Kind::Busy | Kind::Timeout | Kind::Internal | Kind::Io)
}
