//! Reads the tar format, one member after the other, in constant memory.

use super::format::{carried, corrupt, header_too_large};
use super::pax::{Pax, decimal};
use crate::error::{Code, Error, Result};
use rustix::fs::Timespec;
use std::io::Read;

const BLOCK: usize = 512;
/// Far more than any real extended header (the attributes of one file).
const LARGEST_PAX: u64 = 1 << 20;
/// The most for a global header, whose records are copied for each entry.
const LARGEST_GLOBAL: usize = 64 << 10;
/// Twice what `PATH_MAX` allows: the check of the path then says what is wrong.
const LARGEST_NAME: u64 = 8 << 10;
/// 16 MiB of memory; a file in a million pieces.
const MOST_PIECES: usize = 1 << 20;

/// The type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Char,
    Block,
    /// A type that no root file system needs, with its type byte.
    Other(u8),
}

/// A file with holes: its length, and the offsets of its data.
#[derive(Debug, Clone)]
pub(super) struct Sparse {
    pub(super) size: u64,
    pub(super) pieces: Vec<(u64, u64)>,
}

/// The combined headers of one member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Type,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: Timespec,
    pub(super) device: (u64, u64),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
    /// Keys of extended headers that are ignored.
    pub(super) ignored: Vec<String>,
}

/// Reads members and their data.
pub(super) struct Members<R> {
    reader: R,
    /// The unread data of the current member, and the padding after it.
    data: u64,
    padding: u64,
    global: Pax,
    first: bool,
}

impl<R: Read> Members<R> {
    pub(super) fn new(reader: R) -> Self {
        Members { reader, data: 0, padding: 0, global: Pax::default(), first: true }
    }

    /// The next member; `None` at the end mark.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let mut pax: Option<Pax> = None;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return if pax.is_some() || long_name.is_some() || long_link.is_some() {
                    Err(corrupt("an extended header without its entry"))
                } else {
                    Ok(None)
                };
            };
            let size = header.size()?;
            match header.0[156] {
                b'L' => long_name = Some(self.text(size)?),
                b'K' => long_link = Some(self.text(size)?),
                b'x' | b'X' => {
                    let data = self.small(size, LARGEST_PAX)?;
                    pax.get_or_insert_with(|| self.global.clone()).read(&data, LARGEST_PAX as usize)?;
                }
                b'g' => {
                    let data = self.small(size, LARGEST_PAX)?;
                    self.global.read(&data, LARGEST_GLOBAL)?;
                }
                _ => {
                    let pax = pax.unwrap_or_else(|| self.global.clone());
                    return self.member(&header, size, pax, long_name, long_link).map(Some);
                }
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, pax: Pax, long_name: Option<Vec<u8>>, long_link: Option<Vec<u8>>) -> Result<Member> {
        let path = pax.path.or(long_name).unwrap_or_else(|| header.path());
        let mut kind = header.kind();
        if kind == Type::File && header.0[156] != b'7' && path.ends_with(b"/") {
            kind = Type::Directory;
        }
        // Types without data, whatever the size field says (for a hard link it may be that of the file).
        let stored = if matches!(kind, Type::File | Type::Other(_)) { pax.size.unwrap_or(size) } else { 0 };
        self.begin(stored);
        let mut member = Member {
            path,
            link: pax.link.or(long_link).unwrap_or_else(|| until_nul(&header.0[157..257]).to_vec()),
            kind,
            mode: (header.number(100..108)? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| header.number(108..116), Ok)?,
            gid: pax.gid.map_or_else(|| header.number(116..124), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.number(136..148).map(|s| Timespec { tv_sec: s, tv_nsec: 0 }), Ok)?,
            device: if matches!(kind, Type::Char | Type::Block) { header.device()? } else { (0, 0) },
            xattrs: pax.xattrs,
            sparse: None,
            ignored: pax.ignored,
        };
        if kind != Type::File {
            return Ok(member);
        }
        if header.0[156] == b'S' {
            member.sparse = Some(self.gnu_sparse(header)?);
        } else if let Some(s) = pax.sparse {
            member.path = s.name.unwrap_or(member.path);
            let numbers = if s.map_in_data { self.map_in_data()? } else { s.numbers };
            member.sparse = Some(Sparse { size: s.real_size, pieces: numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect() });
        }
        if let Some(s) = &member.sparse {
            s.check(self.data)?;
        }
        Ok(member)
    }

    /// Reads data of the current member; 0 at its end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let want = buf.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        match self.reader.read(&mut buf[..want]).map_err(carried)? {
            0 => Err(corrupt("it ends in the middle of a file")),
            n => {
                self.data -= n as u64;
                Ok(n)
            }
        }
    }

    /// Reads what follows the end mark, so that a damaged or cut stream is noticed. Returns how many bytes were not zero.
    pub(super) fn finish(mut self) -> Result<u64> {
        let mut buf = vec![0u8; 64 << 10];
        let mut strange = 0;
        loop {
            match self.reader.read(&mut buf).map_err(carried)? {
                0 => return Ok(strange),
                n => strange += buf[..n].iter().filter(|b| **b != 0).count() as u64,
            }
        }
    }

    fn begin(&mut self, size: u64) {
        self.data = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut buf = [0u8; 16 << 10];
        while self.read(&mut buf)? > 0 {}
        self.data = std::mem::take(&mut self.padding);
        while self.read(&mut buf)? > 0 {}
        Ok(())
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0u8; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.reader.read(&mut block[have..]).map_err(carried)? {
                0 if have == 0 => return Ok(None),
                0 if self.first => return Err(no_tar()),
                0 => return Err(corrupt("it ends in the middle of a header")),
                n => have += n,
            }
        }
        Ok(Some(block))
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else {
            return Err(if self.first { no_tar() } else { corrupt("it ends without an end mark") });
        };
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header(block);
        if !header.checksum_is_right() {
            return Err(if self.first { no_tar() } else { corrupt("a header's checksum is wrong") });
        }
        self.first = false;
        Ok(Some(header))
    }

    fn small(&mut self, size: u64, most: u64) -> Result<Vec<u8>> {
        if size > most {
            return Err(header_too_large(format!("one of {size} bytes, the most is {most}")));
        }
        self.begin(size);
        let mut out = vec![0u8; size as usize];
        let mut have = 0;
        while have < out.len() {
            have += self.read(&mut out[have..])?;
        }
        Ok(out)
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>> {
        let data = self.small(size, LARGEST_NAME)?;
        Ok(until_nul(&data).to_vec())
    }

    /// The old GNU form: four pieces in the header, further ones in blocks of 21.
    fn gnu_sparse(&mut self, header: &Header) -> Result<Sparse> {
        let size = u64::try_from(header.number(483..495)?).map_err(|_| corrupt("a file of negative size"))?;
        let mut pieces = Vec::new();
        pieces_of(&header.0[386..482], &mut pieces)?;
        let mut more = header.0[482] != 0;
        while more {
            // These blocks precede the data and are not included in its size.
            let block = self.block()?.ok_or_else(|| corrupt("it ends in a map of holes"))?;
            pieces_of(&block[..504], &mut pieces)?;
            more = block[504] != 0;
            if pieces.len() > MOST_PIECES {
                return Err(corrupt("a file in more than a million pieces"));
            }
        }
        Ok(Sparse { size, pieces })
    }

    /// The pax 1.0 form: decimal lines at the head of the data, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut line = Vec::new();
        while wanted.is_none_or(|w| numbers.len() < w) {
            if self.data < BLOCK as u64 {
                return Err(corrupt("a map of holes without its end"));
            }
            let mut block = [0u8; BLOCK];
            let mut have = 0;
            while have < BLOCK {
                have += self.read(&mut block[have..])?;
            }
            for b in block {
                if b != b'\n' {
                    line.push(b);
                    if line.len() > 20 {
                        return Err(corrupt("a map of holes that is not a list of numbers"));
                    }
                    continue;
                }
                let n = decimal(&line).ok_or_else(|| corrupt("a map of holes that is not a list of numbers"))?;
                line.clear();
                match wanted {
                    None => {
                        wanted = Some(usize::try_from(n).ok().filter(|n| *n <= MOST_PIECES).ok_or_else(|| corrupt("a file in more than a million pieces"))? * 2)
                    }
                    Some(_) => numbers.push(n),
                }
                if wanted == Some(numbers.len()) {
                    break;
                }
            }
        }
        Ok(numbers)
    }
}

impl Sparse {
    /// The pieces must lie one after the other within the file, and their data must be there.
    fn check(&self, stored: u64) -> Result<()> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for (at, len) in &self.pieces {
            let next = at.checked_add(*len).filter(|n| *at >= end && *n <= self.size).ok_or_else(|| corrupt("a map of holes that contradicts itself"))?;
            (end, sum) = (next, sum.saturating_add(*len));
        }
        if sum > stored { Err(corrupt("a map of holes for more data than there is")) } else { Ok(()) }
    }
}

fn pieces_of(map: &[u8], out: &mut Vec<(u64, u64)>) -> Result<()> {
    for piece in map.chunks_exact(24) {
        if piece[0] == 0 {
            return Ok(());
        }
        let number = |s: &[u8]| number(s).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| corrupt("a map of holes that is not a list of numbers"));
        out.push((number(&piece[..12])?, number(&piece[12..])?));
    }
    Ok(())
}

fn no_tar() -> Error {
    Error::new(Code::ImageFormat, "the image's archive is not a tar: an image must be a tar, plain or compressed with gzip or zstd")
}

fn until_nul(s: &[u8]) -> &[u8] {
    &s[..s.iter().position(|b| *b == 0).unwrap_or(s.len())]
}

/// An octal number, or a binary one as GNU tar writes what octal cannot hold.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = if first & 0x40 != 0 { i64::from(*first) - 256 } else { i64::from(first & 0x3f) };
        return rest.iter().try_fold(start, |n, b| n.checked_mul(256)?.checked_add(i64::from(*b)));
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0i64, |n, b| if (b'0'..=b'7').contains(b) { n.checked_mul(8)?.checked_add(i64::from(b - b'0')) } else { None })
}

struct Header([u8; BLOCK]);

impl Header {
    fn number(&self, field: std::ops::Range<usize>) -> Result<i64> {
        number(&self.0[field]).ok_or_else(|| corrupt("a header with a field that is not a number"))
    }

    fn size(&self) -> Result<u64> {
        u64::try_from(self.number(124..136)?).map_err(|_| corrupt("a file of negative size"))
    }

    fn device(&self) -> Result<(u64, u64)> {
        let part = |f| self.number(f).and_then(|n| u64::try_from(n).map_err(|_| corrupt("a device of a negative number")));
        Ok((part(329..337)?, part(337..345)?))
    }

    /// The sum over all bytes, its own field as blanks; some old programs summed signed bytes.
    fn checksum_is_right(&self) -> bool {
        let Some(stored) = number(&self.0[148..156]) else { return false };
        let bytes = || self.0.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b as i8)).sum();
        stored == unsigned || stored == signed
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = until_nul(&self.0[345..500]);
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
    }

    fn kind(&self) -> Type {
        match self.0[156] {
            0 | b'0' | b'7' | b'S' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' => Type::Char,
            b'4' => Type::Block,
            b'5' => Type::Directory,
            b'6' => Type::Fifo,
            other => Type::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 1, 0, 0]), Some(65536));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xbf; 12]), None);
        assert_eq!(number(b"9"), None);
        assert_eq!(number(b"77777777777777777777777777"), None);
    }
}
