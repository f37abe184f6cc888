//! Members of a tar, as POSIX has it: a ustar header, and before it an extended header (pax) for what does not fit. Pure.

use super::node::{Kind, Meta, Time};
use super::view::View;
use std::io::Write;
use tar::{EntryType, Header};

/// The size of a block.
pub(super) const BLOCK: usize = 512;
/// The end of an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The longest name in a plain header.
const PLAIN_NAME: usize = 100;
/// The largest number in a plain header: eleven octal digits.
const PLAIN_SIZE: u64 = 0o777_7777_7777;

/// A member, without its data.
pub(super) struct Member<'a> {
    /// Its name in the archive, without a `/` at its end.
    pub path: &'a [u8],
    pub meta: &'a Meta,
    /// Where a symbolic link leads.
    pub target: Option<&'a [u8]>,
    /// The earlier member that this is another name of.
    pub link_of: Option<&'a [u8]>,
    pub attributes: &'a [(Vec<u8>, Vec<u8>)],
}

/// How many bytes of data follow a header.
pub(super) fn data_size(m: &Member<'_>) -> u64 {
    if m.meta.kind == Kind::File && m.link_of.is_none() { m.meta.size } else { 0 }
}

/// The headers of a member.
pub(super) fn member(m: &Member<'_>, view: View) -> Vec<u8> {
    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    let path = if m.meta.kind == Kind::Directory { [m.path, b"/"].concat() } else { m.path.to_vec() };
    let link = m.link_of.or(m.target);
    name(&mut records, b"path", &path);
    if let Some(link) = link {
        name(&mut records, b"linkpath", link);
    }
    let size = data_size(m);
    if size > PLAIN_SIZE {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    if m.meta.modified.nanoseconds != 0 || m.meta.modified.seconds < 0 {
        record(&mut records, b"mtime", time(m.meta.modified).as_bytes());
    }
    // A `=` in a name would end it: see `is_kept`.
    for (key, value) in m.attributes {
        record(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
    }
    header.set_entry_type(match (m.link_of, m.meta.kind) {
        (Some(_), _) => EntryType::Link,
        (None, Kind::Directory) => EntryType::Directory,
        (None, Kind::Symlink) => EntryType::Symlink,
        (None, Kind::Fifo) => EntryType::Fifo,
        (None, Kind::CharDevice) => EntryType::Char,
        (None, Kind::BlockDevice) => EntryType::Block,
        (None, Kind::File | Kind::Socket) => EntryType::Regular,
    });
    header.set_mode(m.meta.mode);
    header.set_uid(u64::from(view.id(m.meta.uid)));
    header.set_gid(u64::from(view.id(m.meta.gid)));
    header.set_size(size.min(PLAIN_SIZE));
    header.set_mtime(u64::try_from(m.meta.modified.seconds).unwrap_or(0).min(PLAIN_SIZE));
    if matches!(m.meta.kind, Kind::CharDevice | Kind::BlockDevice) && m.link_of.is_none() {
        // A ustar header has both numbers.
        let _ = header.set_device_major(m.meta.special.0).and_then(|()| header.set_device_minor(m.meta.special.1));
    }
    if let Some(ustar) = header.as_ustar_mut() {
        put(&mut ustar.name, &path);
        put(&mut ustar.linkname, link.unwrap_or_default());
    }
    header.set_cksum();
    let mut out = Vec::new();
    if !records.is_empty() {
        extended(&mut out, EntryType::XHeader, &records);
    }
    out.extend_from_slice(header.as_bytes());
    out
}

/// A remark about the whole archive.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let (mut out, mut records) = (Vec::new(), Vec::new());
    record(&mut records, b"comment", text.as_bytes());
    extended(&mut out, EntryType::XGlobalHeader, &records);
    out
}

/// How many bytes fill up the last block of data.
pub(super) fn padding(size: u64) -> usize {
    let over = size % BLOCK as u64;
    if over == 0 { 0 } else { BLOCK - usize::try_from(over).unwrap_or(0) }
}

/// Whether an attribute of this name can be a record.
pub(super) fn is_kept(name: &[u8]) -> bool {
    !name.contains(&b'=')
}

fn put(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
}

fn name(records: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    if text.len() > PLAIN_NAME {
        record(records, key, text);
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn extended(out: &mut Vec<u8>, kind: EntryType, records: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(records.len() as u64);
    if let Some(ustar) = header.as_ustar_mut() {
        put(&mut ustar.name, b"././@PaxHeader");
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}

/// Decimal seconds, which may be negative.
fn time(t: Time) -> String {
    let mut text = Vec::new();
    let (seconds, nanoseconds) =
        if t.seconds < 0 && t.nanoseconds > 0 { (-(t.seconds + 1), 1_000_000_000 - t.nanoseconds) } else { (t.seconds.saturating_abs(), t.nanoseconds) };
    let sign = if t.seconds < 0 { "-" } else { "" };
    // A vector takes all that is written.
    let _ = write!(text, "{sign}{seconds}.{nanoseconds:09}");
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_decimal_seconds() {
        let of = |seconds, nanoseconds| time(Time { seconds, nanoseconds });
        assert_eq!(
            (of(1, 5), of(-1, 0), of(-2, 500_000_000), of(-1, 250_000_000)),
            ("1.000000005".into(), "-1.000000000".into(), "-1.500000000".into(), "-0.750000000".into())
        );
    }

    proptest! {
        #[test]
        fn a_record_has_its_own_length(key in "[a-z]{1,20}", value in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut records = Vec::new();
            record(&mut records, key.as_bytes(), &value);
            let space = records.iter().position(|b| *b == b' ').unwrap();
            let length: usize = std::str::from_utf8(&records[..space]).unwrap().parse().unwrap();
            prop_assert_eq!(length, records.len());
            prop_assert!(records.ends_with(b"\n"));
        }
    }
}
