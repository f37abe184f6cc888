//! The extended headers of POSIX tars: records `LENGTH KEY=VALUE\n`. Pure.

use super::format::{corrupt, header_too_large};
use crate::error::Result;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use percent_encoding::percent_decode;
use rustix::fs::Timespec;

/// The most attributes of one entry, more than any file has. Each is compared with the others.
const MOST_XATTRS: usize = 1000;

/// The content of extended headers, which override the plain header.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
    /// Keys that are ignored.
    pub(super) ignored: Vec<String>,
}

/// The three forms in which GNU tar describes a sparse file in an extended header.
#[derive(Debug, Clone, Default)]
pub(super) struct PaxSparse {
    /// Format 1.0: the map precedes the data.
    pub(super) map_in_data: bool,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: u64,
    /// Offsets and lengths, alternating (formats 0.0 and 0.1).
    pub(super) numbers: Vec<u64>,
}

impl Pax {
    /// Adds the records of one header to those before, as long as they stay within bounds: an archive may have any number of headers
    /// before an entry. Errors: `image_corrupt`, `image_header_too_large`.
    pub(super) fn read(&mut self, data: &[u8], most: usize) -> Result<()> {
        self.records(data)?;
        let attributes: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let numbers = self.sparse.as_ref().map_or(0, |s| s.numbers.len() * size_of::<u64>());
        if attributes + numbers > most || self.xattrs.len() > MOST_XATTRS {
            return Err(header_too_large(format!(
                "{} extended attributes of {attributes} bytes and a map of holes of {numbers} bytes; the most is {MOST_XATTRS} attributes, and {most} bytes",
                self.xattrs.len()
            )));
        }
        Ok(())
    }

    fn records(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() && data[0] != 0 {
            let digits = data.iter().position(|b| *b == b' ').ok_or_else(|| corrupt("an extended header without a length"))?;
            let len = decimal(&data[..digits]).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > digits + 1 && *n <= data.len());
            let len = len.ok_or_else(|| corrupt("an extended header of a wrong length"))?;
            let record = data[digits + 1..len].strip_suffix(b"\n").ok_or_else(|| corrupt("an extended header without its end"))?;
            let eq = record.iter().position(|b| *b == b'=').ok_or_else(|| corrupt("an extended header without a value"))?;
            self.apply(&record[..eq], &record[eq + 1..])?;
            data = &data[len..];
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bad = || corrupt(format!("an extended header {} that is not a number", super::path::shown(key)));
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let signed = || -> Result<Option<i64>> {
            if value.is_empty() {
                return Ok(None);
            }
            std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).map(Some).ok_or_else(bad)
        };
        let number = || decimal(value).ok_or_else(bad);
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = if value.is_empty() { None } else { Some(number()?) },
            b"uid" => self.uid = signed()?,
            b"gid" => self.gid = signed()?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value).ok_or_else(bad)?) },
            b"GNU.sparse.major" => self.sparse().map_in_data = number()? == 1,
            b"GNU.sparse.name" => self.sparse().name = text(),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse().real_size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let n = number()?;
                self.sparse().numbers.push(n);
            }
            b"GNU.sparse.map" => {
                let all: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                self.sparse().numbers = all.ok_or_else(bad)?;
            }
            b"SCHILY.acl.access" | b"SCHILY.acl.default" | b"SCHILY.acl.ace" | b"RHT.security.selinux" => {
                let key = String::from_utf8_lossy(key).into_owned();
                if !self.ignored.contains(&key) {
                    self.ignored.push(key);
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = base64(value).ok_or_else(|| corrupt("an extended attribute that is not in base64"))?;
                    self.xattr(percent_decode(name).collect(), value);
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut PaxSparse {
        self.sparse.get_or_insert_default()
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        match self.xattrs.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.xattrs.push((name, value)),
        }
    }
}

/// A number that consists only of digits.
pub(super) fn decimal(s: &[u8]) -> Option<u64> {
    if s.is_empty() {
        return None;
    }
    s.iter().try_fold(0u64, |n, b| if b.is_ascii_digit() { n.checked_mul(10)?.checked_add(u64::from(b - b'0')) } else { None })
}

/// Seconds with a fraction, perhaps negative.
fn time(s: &[u8]) -> Option<Timespec> {
    let (negative, s) = s.strip_prefix(b"-").map_or((false, s), |s| (true, s));
    let mut halves = s.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(halves.next()?)?).ok()?;
    let mut nanos = 0i64;
    let fraction = halves.next().unwrap_or_default();
    for i in 0..9 {
        let digit = fraction.get(i).copied().unwrap_or(b'0');
        nanos = nanos * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    let (seconds, nanos) = match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    };
    Some(Timespec { tv_sec: seconds, tv_nsec: nanos })
}

/// libarchive writes no padding; other writers may, and may break lines.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

fn base64(s: &[u8]) -> Option<Vec<u8>> {
    let unbroken: Vec<u8> = s.iter().copied().filter(|b| *b != b'\n').collect();
    BASE64.decode(unbroken).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use proptest::prelude::*;

    #[test]
    fn records_are_read() {
        let mut p = Pax::default();
        p.read(b"12 path=a\nb\n20 mtime=-1.5000000\n12 uid=1000\n28 SCHILY.xattr.user.k=\0\n=v\n32 LIBARCHIVE.xattr.user.%41=eA\n", 1000).unwrap();
        assert_eq!(p.path.as_deref(), Some(b"a\nb".as_slice()));
        assert_eq!(p.mtime.map(|t| (t.tv_sec, t.tv_nsec)), Some((-2, 500_000_000)));
        assert_eq!(p.uid, Some(1000));
        assert_eq!(p.xattrs, [(b"user.k".to_vec(), b"\0\n=v".to_vec()), (b"user.A".to_vec(), b"x".to_vec())]);
        for bad in [b"5 a=b\n".as_slice(), b"99 a=b\n", b"x", b"6 a=bc", b"5 ab\n", b"0 a=b\n", b"12 uid=1x00\n", b"99999999999999999999999 a=b\n"] {
            assert_eq!(Pax::default().read(bad, 1000).unwrap_err().code(), Code::ImageCorrupt, "{}", super::super::path::shown(bad));
        }
    }

    #[test]
    fn base64_is_read_with_and_without_padding_and_line_breaks() {
        for (text, bytes) in [("", b"".as_slice()), ("eA", b"x"), ("eA==", b"x"), ("eHl6\nYQ==\n", b"xyza"), ("/+8=", b"\xff\xef"), ("/+9", b"\xff\xef")] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes), "{text:?}");
        }
        for bad in ["e", "eA=x", "e-_A", "e A="] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::default().read(&data, 1000);
            let _ = time(&data);
            let _ = base64(&data);
            let _ = percent_decode(&data).count();
        }
    }
}
