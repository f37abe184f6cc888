//! Images that are none.

use super::me;
use hoody_state::Code;
use hoody_state_workspace::{MemoryWorld, RealHost, assert_clean, furnish, picture, tiny_image};

fn member(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut h = vec![0u8; 512];
    h[..name.len()].copy_from_slice(name.as_bytes());
    h[100..108].copy_from_slice(b"0000755\0");
    h[108..116].copy_from_slice(b"0000000\0");
    h[116..124].copy_from_slice(b"0000000\0");
    h[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    h[136..148].copy_from_slice(b"00000000000\0");
    h[148..156].copy_from_slice(b"        ");
    h[156] = kind;
    h[157..157 + link.len()].copy_from_slice(link.as_bytes());
    h[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    h.extend_from_slice(data);
    h.resize(h.len().div_ceil(512) * 512, 0);
    h
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut t = tiny_image();
    t.truncate(t.len() - 1024);
    t.extend(members.concat());
    t.resize(t.len() + 1024, 0);
    t
}

/// Each with the codes that may be given for it.
fn bad() -> Vec<(&'static str, Vec<u8>, &'static [Code])> {
    let marker = b"out";
    vec![
        ("nothing at all", Vec::new(), &[Code::ImageFormat, Code::ImageCorrupt, Code::ImageNoRoot]),
        ("no tar", vec![b'x'; 5000], &[Code::ImageFormat, Code::ImageCorrupt]),
        ("an end alone", vec![0; 1024], &[Code::ImageNoRoot]),
        ("no root file system", [member("README", b'0', "", b"hello"), vec![0; 1024]].concat(), &[Code::ImageNoRoot]),
        ("a path upwards", tar(&[member("../hostile-escaped", b'0', "", marker)]), &[Code::ImagePathUnsafe]),
        ("a path upwards further in", tar(&[member("a/../../hostile-escaped", b'0', "", marker)]), &[Code::ImagePathUnsafe]),
        ("through a link", tar(&[member("l", b'2', "/tmp", b""), member("l/hostile-escaped", b'0', "", marker)]), &[Code::ImagePathUnsafe, Code::ImageCorrupt]),
        (
            "through a link upwards",
            tar(&[member("l", b'2', "../../../../../../../../../tmp", b""), member("l/hostile-escaped", b'0', "", marker)]),
            &[Code::ImagePathUnsafe, Code::ImageCorrupt],
        ),
        ("a hard link out", tar(&[member("l", b'1', "../../../../../../../../etc/passwd", b"")]), &[Code::ImageLinkUnsafe]),
        ("cut in a header", tar(&[])[..700].to_vec(), &[Code::ImageCorrupt]),
        ("cut in a file", tar(&[member("big", b'0', "", &[7; 5000])])[..2500].to_vec(), &[Code::ImageCorrupt]),
        ("cut gzip", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3], &[Code::ImageCorrupt, Code::ImageFormat]),
        ("cut zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0, 1, 2], &[Code::ImageCorrupt, Code::ImageFormat]),
    ]
}

fn attack(h: &hoody_state::Host) {
    for (what, tar, codes) in bad() {
        let before = picture(h);
        let e = h.import_image(&me(), "bad", &mut &tar[..]).expect_err(what);
        assert!(codes.contains(&e.code()), "{what}: {e:?}");
        let mut after = picture(h);
        after["operations"] = before["operations"].clone();
        assert!(before == after, "{what} has changed something: {before:#} {after:#}");
        assert_clean(h, what);
    }
    for out in ["/tmp/hostile-escaped", "/hostile-escaped"] {
        assert!(!std::path::Path::new(out).exists(), "{out} was written");
    }
}

#[test]
fn bad_images_leave_nothing_in_memory() {
    let w = MemoryWorld::new();
    let h = w.host();
    furnish(&h);
    attack(&h);
}

#[test]
fn bad_images_leave_nothing_on_a_real_pool() {
    let real = RealHost::new("h-tars");
    attack(real.host());
    for dir in ["staging", "images"] {
        let names: Vec<_> = std::fs::read_dir(real.config.run.join("pool").join(dir)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.len() == usize::from(dir == "images"), "{dir}: {names:?}");
    }
    // Links and absolute names within the image are good, and mean places in it.
    let good = tar(&[member("etc", b'5', "", b""), member("etc/passwd", b'2', "/../../../../etc/shadow", b""), member("/abs", b'0', "", b"in")]);
    let out = real.host().import_image(&me(), "links", &mut &good[..]);
    assert!(out.is_ok() || out.is_err_and(|e| e.code() == Code::ImagePathUnsafe), "one or the other, nothing between");
    assert!(!std::path::Path::new("/abs").exists());
}
