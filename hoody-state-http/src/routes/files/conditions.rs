//! Ranges and conditions of requests for files (RFC 9110). Pure.

use axum::http::{HeaderMap, HeaderName, header};
use hoody_state::jiff::Timestamp;
use hoody_state::jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

/// Which bytes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All.
    All,
    /// From the first to the last, both included.
    Range(u64, u64),
    /// None that there are.
    Beyond,
}

/// What a file is to a request with conditions.
pub(super) struct Subject<'a> {
    /// The `ETag`, with its quotes.
    pub etag: &'a str,
    /// The time of its last change.
    pub modified: Option<Timestamp>,
    /// Its length in bytes.
    pub size: u64,
}

/// A time as HTTP has it.
pub(super) fn http_date(t: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&t).ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
}

fn date(value: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(value).ok()
}

/// Whether a list of tags has this one. `weak`: a tag marked as weak counts as well.
pub(super) fn lists(value: &str, etag: &str, weak: bool) -> bool {
    value.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag || (weak && tag.strip_prefix("W/") == Some(etag)))
}

/// The versions of a list of strong tags; `*` stays as it is. A weak tag stands for no version.
pub(super) fn versions(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter_map(|tag| if tag == "*" { Some(tag) } else { tag.strip_prefix('"')?.strip_suffix('"') }).map(str::to_owned).collect()
}

impl Subject<'_> {
    /// Whether the client has it already: 304.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        if let Some(tags) = text(headers, header::IF_NONE_MATCH) {
            return lists(tags, self.etag, true);
        }
        let since = text(headers, header::IF_MODIFIED_SINCE).and_then(date);
        matches!((since, self.modified), (Some(since), Some(modified)) if modified.as_second() <= since.as_second())
    }

    /// Which bytes are wanted. A range of another unit, one that cannot be read, and several ranges are answered with everything, as RFC 9110 allows.
    pub(super) fn wanted(&self, headers: &HeaderMap) -> Wanted {
        let Some(range) = text(headers, header::RANGE) else { return Wanted::All };
        if text(headers, header::IF_RANGE).is_some_and(|condition| !self.is_unchanged(condition)) {
            return Wanted::All;
        }
        parse(range, self.size)
    }

    /// `If-Range`: a strong tag, or the exact time of the last change.
    fn is_unchanged(&self, condition: &str) -> bool {
        if condition.starts_with('"') || condition.starts_with("W/") {
            return condition == self.etag;
        }
        matches!((date(condition), self.modified), (Some(at), Some(modified)) if at.as_second() == modified.as_second())
    }
}

fn parse(range: &str, size: u64) -> Wanted {
    let number = |digits: &str| if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
    let Some((unit, spec)) = range.split_once('=') else { return Wanted::All };
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes") && !spec.contains(',')) else {
        return Wanted::All;
    };
    match (first.trim(), last.trim()) {
        ("", "") => Wanted::All,
        ("", count) => match number(count) {
            None => Wanted::All,
            Some(0) => Wanted::Beyond,
            Some(_) if size == 0 => Wanted::Beyond,
            Some(n) => Wanted::Range(size.saturating_sub(n), size - 1),
        },
        (first, last) => {
            let (Some(first), Some(last)) = (number(first), if last.is_empty() { Some(u64::MAX) } else { number(last) }) else { return Wanted::All };
            if last < first {
                Wanted::All
            } else if first >= size {
                Wanted::Beyond
            } else {
                Wanted::Range(first, last.min(size - 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        use Wanted::{All, Beyond, Range};
        for (text, size, is) in [
            ("bytes=0-0", 10, Range(0, 0)),
            ("bytes=0-", 10, Range(0, 9)),
            ("bytes=9-99", 10, Range(9, 9)),
            ("bytes=-3", 10, Range(7, 9)),
            ("bytes=-99", 10, Range(0, 9)),
            ("Bytes = 2-5", 10, Range(2, 5)),
            ("bytes=10-", 10, Beyond),
            ("bytes=0-", 0, Beyond),
            ("bytes=-1", 0, Beyond),
            ("bytes=-0", 10, Beyond),
            ("bytes=99999999999999999999-", 10, All),
            ("bytes=5-2", 10, All),
            ("bytes=0-1,3-4", 10, All),
            ("items=0-1", 10, All),
            ("bytes=", 10, All),
            ("bytes=-", 10, All),
            ("bytes=+1-2", 10, All),
            ("bytes=a-b", 10, All),
            ("bytes", 10, All),
        ] {
            assert_eq!(parse(text, size), is, "{text} of {size}");
        }
    }

    #[test]
    fn conditions_are_compared_as_the_rfc_says() {
        let modified: Timestamp = "2026-11-29T00:00:00.5Z".parse().unwrap();
        let file = Subject { etag: "\"a\"", modified: Some(modified), size: 10 };
        let with = |pairs: &[(HeaderName, &str)]| pairs.iter().map(|(n, v)| (n.clone(), v.parse().unwrap())).collect::<HeaderMap>();
        for (tags, known) in [("\"a\"", true), ("\"b\", \"a\"", true), ("W/\"a\"", true), ("*", true), ("\"b\"", false), ("", false)] {
            assert_eq!(file.is_known(&with(&[(header::IF_NONE_MATCH, tags)])), known, "{tags}");
        }
        let date = http_date(modified).unwrap();
        assert_eq!(date, "Sun, 29 Nov 2026 00:00:00 GMT");
        assert!(file.is_known(&with(&[(header::IF_MODIFIED_SINCE, &date)])));
        assert!(!file.is_known(&with(&[(header::IF_MODIFIED_SINCE, &date), (header::IF_NONE_MATCH, "\"b\"")])), "the tag decides");
        assert!(!file.is_known(&with(&[(header::IF_MODIFIED_SINCE, "Sat, 28 Nov 2026 00:00:00 GMT")])));
        assert_eq!((versions("*"), versions("\"a\", W/\"b\" , \"c\""), versions("a")), (vec!["*".to_owned()], vec!["a".to_owned(), "c".to_owned()], vec![]));
        for (condition, range) in [("\"a\"", true), (&date, true), ("\"b\"", false), ("W/\"a\"", false), ("Sat, 28 Nov 2026 00:00:00 GMT", false)] {
            let wanted = file.wanted(&with(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, condition)]));
            assert_eq!(wanted == Wanted::Range(0, 1), range, "{condition}");
        }
    }
}
