//! The connections that have a file open, and the inode number that each thread gets for it.
//!
//! A file is one node with its own inode number. SQLite manages locks between the connections of one process by itself, and refuses instead of waiting, if
//! they have the same file open: it compares the inode number of a file that it has just opened (`fstat`) with those that its process has open. So if a
//! process that may use SQLite opens a file again, it gets another number for that connection. A request for attributes does not name the descriptor, only
//! the thread: a thread gets the number of the connection that it last opened or locked with. SQLite also compares `stat(path)` with its open files (before
//! it begins a journal, and before it removes a WAL at the last close), in the thread that uses the connection.
//!
//! All others get the file's own number: other processes, other threads, and the first connection of each process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One open of a file by a process that may use SQLite.
#[derive(Debug, Clone, Copy)]
struct Connection {
    /// The process that opened it; `None` if it cannot be seen.
    pid: Option<u32>,
    /// The inode number of this connection; `None`: the file's own.
    number: Option<u64>,
}

/// The connection with which a thread used the file last.
#[derive(Debug, Clone, Copy)]
struct Use {
    fh: u64,
    /// Whether the thread has asked for the attributes of the file since.
    looked: bool,
}

#[derive(Debug, Default)]
struct State {
    by_handle: HashMap<u64, Connection>,
    by_thread: HashMap<u32, Use>,
    /// How many connections have their own number.
    numbered: usize,
}

/// The connections of one node. See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<State>);

impl Connections {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a thread has opened the file. `inherits` tells whether a process began as a copy of one of these others, with the memory of its SQLite;
    /// `unused` makes a number.
    pub fn open(&self, fh: u64, tid: u32, pid: Option<u32>, inherits: impl FnOnce(u32, &[u32]) -> bool, unused: impl FnOnce() -> u64) {
        let mut state = self.state();
        let own: Vec<Option<u32>> = state.by_handle.values().filter(|c| c.number.is_none()).map(|c| c.pid).collect();
        let is_second = match pid {
            None => !own.is_empty(),
            Some(pid) => {
                let seen: Vec<u32> = own.iter().flatten().copied().collect();
                seen.len() < own.len() || seen.contains(&pid) || (!seen.is_empty() && inherits(pid, &seen))
            }
        };
        let number = is_second.then(unused);
        state.numbered += usize::from(number.is_some());
        state.by_handle.insert(fh, Connection { pid, number });
        state.by_thread.insert(tid, Use { fh, looked: false });
    }

    /// Notes that a thread locks with this connection.
    pub fn note_use(&self, tid: u32, fh: u64) {
        let mut state = self.state();
        if state.by_handle.contains_key(&fh) {
            state.by_thread.insert(tid, Use { fh, looked: false });
        }
    }

    /// Notes that a connection is closed.
    pub fn close(&self, fh: u64) {
        let mut state = self.state();
        let Some(gone) = state.by_handle.remove(&fh) else { return };
        state.numbered -= usize::from(gone.number.is_some());
        state.by_thread.retain(|_, u| u.fh != fh);
    }

    /// Notes that a thread asks for the attributes of the file. Returns the number for it, if that is not the file's own. `holder` finds the connection of a
    /// thread that has neither opened nor locked the file itself.
    pub fn look(&self, tid: u32, holder: impl FnOnce() -> Option<u64>) -> Option<u64> {
        let mut state = self.state();
        let used = state.by_thread.get_mut(&tid).map(|u| {
            u.looked = true;
            u.fh
        });
        if state.numbered == 0 {
            return None;
        }
        let fh = match used {
            Some(fh) => fh,
            None => {
                drop(state);
                let fh = holder()?;
                state = self.state();
                fh
            }
        };
        state.by_handle.get(&fh)?.number
    }

    /// The connection that a thread used last, if the thread has only asked for attributes since. It is returned once.
    pub fn take_look(&self, tid: u32) -> Option<u64> {
        let mut state = self.state();
        let used = state.by_thread.get_mut(&tid)?;
        std::mem::take(&mut used.looked).then_some(used.fh)
    }
}

/// Whether a process probably began as a copy of one of these others (`fork` without `exec`): an ancestor runs the same program.
pub(crate) fn inherits(pid: u32, others: &[u32]) -> bool {
    const FARTHEST: u32 = 16;
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let Some(mine) = program(pid) else { return false };
    let mut at = pid;
    for _ in 0..FARTHEST {
        match crate::threads::parent_of(at) {
            Some(parent) if parent > 1 && program(parent).as_ref() == Some(&mine) => at = parent,
            _ => return false,
        }
        if others.contains(&at) {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOBODY: fn(u32, &[u32]) -> bool = |_, _| false;

    #[test]
    fn only_a_further_connection_of_a_process_has_a_number_of_its_own() {
        let c = Connections::default();
        c.open(1, 10, Some(10), NOBODY, || 91);
        c.open(2, 20, Some(20), NOBODY, || 92);
        assert_eq!((c.look(10, || None), c.look(20, || None)), (None, None));
        c.open(3, 11, Some(10), NOBODY, || 93);
        assert_eq!((c.look(10, || None), c.look(11, || None), c.look(20, || None)), (None, Some(93), None));
        assert_eq!(c.look(12, || None), None, "a thread that has not used it");
        assert_eq!(c.look(12, || Some(3)), Some(93), "a thread that uses it all the same");
        c.note_use(10, 3);
        assert_eq!(c.look(10, || None), Some(93));
        c.note_use(10, 1);
        c.close(3);
        assert_eq!((c.look(10, || None), c.look(11, || None)), (None, None));
        c.open(4, 11, Some(10), NOBODY, || 94);
        c.close(1);
        c.open(5, 12, Some(10), NOBODY, || 95);
        assert_eq!((c.look(11, || None), c.look(12, || None)), (Some(94), None), "the file's own number is free again");
    }

    #[test]
    fn a_copy_of_a_process_and_one_that_cannot_be_seen_count_as_the_same() {
        let c = Connections::default();
        c.open(1, 10, Some(10), NOBODY, || 91);
        c.open(2, 30, Some(30), |pid, of| pid == 30 && of == [10], || 92);
        c.open(3, 0, None, NOBODY, || 93);
        assert_eq!((c.look(30, || None), c.look(0, || None)), (Some(92), Some(93)));
    }

    #[test]
    fn a_look_is_said_once_and_ends_with_a_use() {
        let c = Connections::default();
        c.open(1, 10, Some(10), NOBODY, || 91);
        assert_eq!(c.take_look(10), None);
        c.look(10, || None);
        assert_eq!((c.take_look(10), c.take_look(10)), (Some(1), None));
        c.look(10, || None);
        c.note_use(10, 1);
        assert_eq!(c.take_look(10), None);
    }
}
