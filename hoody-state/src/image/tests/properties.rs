//! Random archives, cut archives, damaged archives: nothing panics and nothing is made outside the root.

use super::*;
use crate::Code;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => "[ab]", 1 => Just("..".to_owned()), 1 => Just(".".to_owned()), 1 => Just("bin".to_owned()), 1 => Just("canary".to_owned())];
    let wh = prop_oneof![8 => Just(""), 1 => Just(".wh."), 1 => Just("/"), 1 => Just("./")];
    (wh, prop::collection::vec(part, 0..4)).prop_map(|(w, parts)| {
        let mut parts = parts;
        if w == ".wh." {
            if let Some(last) = parts.last_mut() {
                *last = format!(".wh.{last}");
            }
            parts.join("/")
        } else {
            format!("{w}{}", parts.join("/"))
        }
    })
}

fn entries() -> impl Strategy<Value = Vec<(u8, String, String, Vec<u8>)>> {
    let kind = prop::sample::select(b"0123567LKxgS\0".to_vec());
    let link = prop_oneof![name(), Just("../canary".to_owned()), Just("../../canary/file".to_owned()), Just("/".to_owned())];
    prop::collection::vec((kind, name(), link, prop::collection::vec(any::<u8>(), 0..600)), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_ever_made_outside(entries in entries()) {
        let place = Place::new();
        let mut tar = Archive::bootable();
        for (kind, path, link, data) in &entries {
            let data: &[u8] = match kind { b'0' | 0 | b'7' | b'S' => data, b'L' | b'K' => link.as_bytes(), _ => b"" };
            tar = match kind {
                b'x' => tar.pax(&[("path", link.as_bytes()), ("linkpath", path.as_bytes())]),
                _ => tar.raw(*kind, path.as_bytes(), link.as_bytes(), data, |_| ()),
            };
        }
        let _ = place.import(&tar.end());
        place.assert_canary();
    }

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), form in 0..3) {
        let plain = sample();
        let mut stream = match form { 0 => plain, 1 => gzip(&plain), _ => zst(&plain) };
        for (at, byte) in flips {
            let at = at.index(stream.len());
            stream[at] ^= byte;
        }
        let place = Place::new();
        let _ = place.import(&stream);
        place.assert_canary();
    }

    #[test]
    fn junk_headers_never_panic(junk in prop::collection::vec(any::<u8>(), 512), fix in any::<bool>()) {
        let mut block: [u8; 512] = junk.try_into().unwrap();
        if fix {
            let h = Header::from_byte_slice(&block).clone();
            let mut h = h;
            h.set_cksum();
            block = *h.as_bytes();
        }
        let mut tar = Archive::bootable().0;
        tar.extend_from_slice(&block);
        let place = Place::new();
        let _ = place.import(&Archive(tar).end());
        place.assert_canary();
    }
}

fn sample() -> Vec<u8> {
    Archive::bootable()
        .entry(b'5', "etc", "")
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("etc/hosts", b"127.0.0.1 localhost\n")
        .entry(b'2', "lib", "usr/lib")
        .entry(b'1', "etc/hosts2", "etc/hosts")
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100"), ("GNU.sparse.name", b"etc/sparse")])
        .file("s", &[b"1\n50\n10\n".as_slice(), &[0; 504], b"0123456789"].concat())
        .entry(b'6', "fifo", "")
        .end()
}

#[test]
fn the_sample_is_good() {
    let place = Place::new();
    place.import(&sample()).unwrap();
    let data = std::fs::read(place.root().join("etc/sparse")).unwrap();
    assert_eq!((data.len(), &data[50..60], data[49], data[60]), (100, b"0123456789".as_slice(), 0, 0));
}

#[test]
fn cut_anywhere_is_refused_and_never_panics() {
    let plain = sample();
    let full = plain.len() - 1024;
    for stream in [plain.clone(), gzip(&plain), zst(&plain)] {
        let is_plain = stream.len() == plain.len();
        let step = (stream.len() / 150).max(1);
        for cut in (0..stream.len()).step_by(step) {
            let place = Place::new();
            let result = place.import(&stream[..cut]);
            // Of a plain tar, the second block of zeros may be missing.
            if !is_plain || cut < full + 512 {
                let code = result.expect_err("a cut archive").code();
                assert!(code == Code::ImageCorrupt || (cut < 512 && code == Code::ImageFormat), "{cut}: {code}");
            }
            place.assert_canary();
        }
    }
}
