//! A send stream of a lying peer: it is parsed, and applied to a directory. Nothing outside the directory changes, and nothing panics.
//!
//! The input is read as commands without their checksums, which are put right: a wrong checksum would end nearly every stream at its first command. One
//! command: its number (1 byte), then attributes, each a number (1 byte, 0 ends the command), a length (1 byte) and that many bytes. The first byte says how the
//! stream begins: with a volume, or with nothing that is put right.
#![no_main]

use hoody_state::snapshot::btrfs::from_elsewhere::{apply_to_directory, count_commands};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::path::Path;

const ROOM: u64 = 1 << 20;

fn command(out: &mut Vec<u8>, number: u16, payload: &[u8]) {
    let mut head = (payload.len() as u32).to_le_bytes().to_vec();
    head.extend(number.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c_append(!0, &head), &[0; 4]), payload);
    head.extend((!sum).to_le_bytes());
    out.extend(head);
    out.extend(payload);
}

fn framed(mut data: &[u8], version: u32) -> Vec<u8> {
    let mut out = b"btrfs-stream\0".to_vec();
    out.extend(version.to_le_bytes());
    // A volume: its name, its UUID, the sender's transaction.
    let volume = [&[15, 0, 1, 0, b's', 1, 0, 16, 0][..], &[7; 16], &[2, 0, 8, 0], &[1; 8]].concat();
    command(&mut out, 1, &volume);
    while let Some((number, rest)) = data.split_first() {
        data = rest;
        let mut payload = Vec::new();
        while let [kind @ 1..=u8::MAX, len, rest @ ..] = data {
            let (value, rest) = rest.split_at(usize::from(*len).min(rest.len()));
            payload.extend(u16::from(*kind).to_le_bytes());
            // Data of version 2 have no length.
            if version < 2 || *kind != 19 {
                payload.extend((value.len() as u16).to_le_bytes());
            }
            payload.extend(value);
            data = rest;
        }
        data = data.strip_prefix(&[0]).unwrap_or(data);
        command(&mut out, u16::from(*number), &payload);
    }
    command(&mut out, 21, &[]);
    out
}

/// Names beside the directory, and what is in the file that must not be reached.
fn beside(outside: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(outside).expect("the directory can be read");
    entries.map(|e| e.expect("an entry").path()).map(|p| (p.display().to_string(), std::fs::read(&p).unwrap_or_default())).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let _ = count_commands(rest);
    let stream = framed(rest, 1 + u32::from(first & 1));
    let parsed = count_commands(&stream);
    let outside = tempfile::tempdir().expect("a temporary directory");
    let inside = outside.path().join("volume");
    std::fs::create_dir(&inside).expect("a directory");
    std::fs::write(outside.path().join("secret"), b"secret").expect("a file");
    let before = beside(outside.path());
    let applied = apply_to_directory(&stream, &inside, ROOM);
    assert!(applied.is_err() || parsed.is_ok(), "what cannot be parsed was applied");
    assert_eq!(before, beside(outside.path()));
});
