//! The control protocol of the daemon: any bytes are read as the lines of a client and of a daemon.
//!
//! Whatever can be read must be written again as a line that reads as the same thing.
#![no_main]

use hoody_state::locked_db::control::{Ask, Reply};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Serialize + DeserializeOwned>(line: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(line) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert!(!written.contains(&b'\n'), "a message must stay on one line");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(written, serde_json::to_vec(&again).expect("what was read can be written"));
}

fuzz_target!(|data: &[u8]| {
    for line in data.split(|b| *b == b'\n') {
        check::<Ask>(line);
        check::<Reply>(line);
    }
});
