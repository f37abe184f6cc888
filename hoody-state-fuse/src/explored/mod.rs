//! The lock service and the sync pool, compiled a second time with an explorer of schedules (`shuttle`). No schedule may answer a request twice or never, grant
//! conflicting locks, or lose a wake-up. A schedule in which no thread can continue is a failure.

#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../locks/mod.rs"]
mod locks;
mod schedules;
#[allow(dead_code)]
#[path = "../sync_pool.rs"]
mod sync_pool;
mod threads;
