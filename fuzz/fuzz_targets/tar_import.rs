//! The import of an image: any bytes, as an archive that is plain or compressed.
//!
//! Whatever the bytes are, the import ends with an answer, takes bounded memory (the script's limit), and makes nothing beside its root. As root, in a directory of
//! its own in memory.
#![no_main]

use hoody_state::Code;
use hoody_state::image::{ImportOptions, import};
use hoody_state::units::Bytes;
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;

fuzz_target!(|data: &[u8]| {
    let place = PathBuf::from(format!("/dev/shm/hoody-fuzz-{}", std::process::id()));
    let root = place.join("root");
    std::fs::create_dir_all(&root).expect("a directory in /dev/shm");
    std::fs::write(place.join("canary"), "alive").expect("a file in /dev/shm");
    let options = ImportOptions { id_base: 100_000, max_bytes: Some(Bytes::mib(16)), cancelled: &|| false, progress: &|_| {} };
    if let Err(e) = import(data, &root, &options) {
        assert_ne!(e.code(), Code::Internal, "{e}");
    }
    let mut names: Vec<_> = std::fs::read_dir(&place).expect("it is there").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["canary", "root"], "something was made beside the root");
    assert_eq!(std::fs::read(place.join("canary")).expect("it is there"), b"alive");
    std::fs::remove_dir_all(&place).expect("it can be removed");
});
