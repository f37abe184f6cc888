//! Subvolumes nested in the volume.

use super::*;

/// Two subvolumes give the same numbers to their files, and two files that are made in one tick of the clock have the same times.
#[test]
fn a_file_in_another_nested_subvolume_of_the_same_name_is_not_taken_for_the_same() {
    let w = World::new();
    let (pool, live) = (File::open(w.pool.root()).unwrap(), File::open(w.live("")).unwrap());
    subvolume::snapshot_create(pool.as_fd(), live.as_fd(), c"snap", false, &[]).unwrap();
    let dirs = [w.nest(&w.snap(""), "v"), w.nest(&w.live(""), "v")];
    let name = (0..500).map(|n| format!("f{n}")).find(|name| {
        for (dir, text) in dirs.iter().zip(["one", "two"]) {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let of = |dir: &PathBuf| {
            let m = std::fs::metadata(dir.join(name)).unwrap();
            (m.ino(), m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec())
        };
        of(&dirs[0]) == of(&dirs[1])
    });
    let name = name.expect("two files of one tick");
    w.restored(Options { taken: i64::MAX, ..options() }, &["v"]);
    assert_eq!(std::fs::read_to_string(w.live("v").join(name)).unwrap(), "one");
}
