//! Lock requests, which are passed to the lock service. It answers them when they are granted.

use super::{Core, fail};
use crate::locks::{Conflict, LockCall};
use fuser::{ReplyEmpty, Request};
use rustix::io::Errno;

/// A lock request in the form of the service.
#[allow(clippy::too_many_arguments)]
pub(super) fn call(req: &Request, node: u64, fh: u64, lock_owner: u64, range: (u64, u64), kind: i32, pid: u32, wait: bool, apart: bool) -> LockCall {
    LockCall { node, fh, lock_owner, tid: req.pid(), pid, start: range.0, end: range.1, kind, wait, read_only: false, apart }
}

impl Core {
    pub(super) fn setlk(&self, mut call: LockCall, reply: ReplyEmpty) {
        let file = self.table.handle(call.fh).and_then(|h| {
            h.node.connections.note_use(call.tid, call.fh);
            let file = self.table.locked(&h.node)?;
            if !h.passthrough {
                file.set_alone();
            }
            Ok((h.reader, file))
        });
        match file {
            Err(e) => reply.error(fail(e)),
            Ok((read_only, file)) => {
                call.read_only = read_only;
                let answer = move |outcome: Result<(), i32>| match outcome {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(fuser::Errno::from_i32(errno)),
                };
                self.locks.setlk(&file, call, Box::new(answer));
            }
        }
    }

    pub(super) fn getlk(&self, call: LockCall) -> Result<Option<Conflict>, Errno> {
        let file = self.table.locked(&self.table.handle(call.fh)?.node)?;
        Ok(self.locks.getlk(&file, &call))
    }

    pub(super) fn flush(&self, node: u64, fh: u64, lock_owner: u64) {
        if let Some(file) = self.table.node(node).ok().and_then(|n| self.table.locked_already(&n)) {
            self.locks.flush(&file, node, fh, lock_owner);
        }
    }
}
