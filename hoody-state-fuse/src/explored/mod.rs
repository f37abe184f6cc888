//! The lock service and the sync pool compiled once more on an explorer of schedules (`shuttle`): where threads meet the broker, no schedule may answer a
//! request twice or never, grant what conflicts, or lose a wake-up. A schedule in which nobody can go on is a failure by itself.

#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../locks/mod.rs"]
mod locks;
mod schedules;
#[allow(dead_code)]
#[path = "../sync_pool.rs"]
mod sync_pool;
mod threads;
