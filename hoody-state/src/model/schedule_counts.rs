use jiff::Timestamp;

/// What the runner of schedules did since the start of the server, and what it has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScheduleCounts {
    /// Runs that took a snapshot.
    pub taken: u64,
    /// Missed runs that these made up for.
    pub made_up: u64,
    /// Runs without a snapshot, because nothing had changed.
    pub unchanged: u64,
    /// Runs without a snapshot, because the container did not run.
    pub not_running: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Snapshots that were removed because no rule of their schedule kept them.
    pub pruned: u64,
    /// Removals that failed.
    pub prune_failed: u64,
    /// Removals that were held back because the clock had moved.
    pub held_back: u64,
    /// Containers with a run under way or in the queue.
    pub under_way: u64,
    /// Containers whose run waits for another operation.
    pub waiting: u64,
    /// Schedules whose last attempt failed.
    pub failing: u64,
    /// When the next run starts; nothing if no policy has a schedule.
    pub next_due: Option<Timestamp>,
}
