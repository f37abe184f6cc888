//! Bad input, bad surroundings, bad containers and bad timing. Each has its own error, and changes nothing.
//! Those with real containers need root, BTRFS, loop devices, runc, btrfs-progs and a static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "hostile/content.rs"]
mod content;
#[path = "hostile/ends.rs"]
mod ends;
#[path = "hostile/inputs.rs"]
mod inputs;
#[path = "hostile/keys.rs"]
mod keys;
#[path = "hostile/many.rs"]
mod many;
#[path = "hostile/processes.rs"]
mod processes;
#[path = "hostile/races.rs"]
mod races;
#[path = "hostile/surroundings.rs"]
mod surroundings;
#[path = "hostile/tars.rs"]
mod tars;

use hoody_state::Caller;

fn me() -> Caller {
    Caller::default()
}
