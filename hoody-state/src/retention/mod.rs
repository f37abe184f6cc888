//! Snapshot policies: when a schedule runs, and which of its snapshots are removed.
//!
//! Pure functions: no clock of their own, no I/O, no threads. Time zones come from the data that is built in, so every server decides alike.
//!
//! # What a schedule keeps
//!
//! A schedule decides about its own snapshots alone: those that it took on this container. Of these, the ones that are older than its `max_age` are no longer
//! looked at. Of the others each rule of `keep` marks some, and what any rule marks is kept:
//!
//! - `last: n` marks the `n` newest.
//! - A rule of periods (`hourly` to `yearly`) marks the newest snapshot of each of the `n` newest periods **that have a snapshot**. So a time without snapshots
//!   costs nothing. Periods are those of the calendar in the policy's time zone; weeks are ISO weeks; an hour is an hour with one UTC offset.
//! - A rule that finds fewer than `n` marks the oldest snapshot too, so that the history is as long as it can be while it grows.
//!
//! What no rule marks is removed, except for what is protected ([`Protection`](crate::model::Protection)): pinned snapshots, the base of a running sync or copy, and the newest complete
//! snapshot of the schedule and of the container. Snapshots of others (manual ones, undo snapshots, those of events) are never removed, whatever their age:
//! their own `expires_at` is their limit. Snapshots dated in the future are ignored: they fill no period, are not "the newest", and are reported.
//!
//! [`decide`] is the only place that decides this; pruning, the preview and the simulation call it. It is idempotent: what it keeps, it keeps again.

mod alias;
mod cron;
mod decide;
mod guard;
mod period;
mod plan;
mod simulate;

pub use cron::{COUNTED_DAYS, Cron, Runs};
pub use decide::{Decision, Stamp, decide};
pub use guard::{ClockReading, holds_back};
pub use plan::{Plan, PlannedSchedule};
pub use simulate::{MAX_SIMULATED_DAYS, simulate};

#[cfg(test)]
mod oracle;
