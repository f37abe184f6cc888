//! What can be asked about an error code. The codes themselves are in `table.rs`.

use super::Kind;
use super::row::RowOf;
use super::table::{Code, ROWS};
use std::fmt;
use std::str::FromStr;

impl Code {
    const fn row(self) -> &'static RowOf<Code> {
        &ROWS[self as usize]
    }

    /// The stable word: lower case, with underscores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().word
    }

    /// One sentence: what it means, and what to do.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.row().sentence
    }

    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.row().kind
    }

    /// Whether the same request may succeed if it is sent again unchanged.
    #[must_use]
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// Whether the HTTP API lists it. Of the others, it answers with those that a request can meet by their kind.
    #[must_use]
    pub const fn in_api(self) -> bool {
        self.row().in_api
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No code has this word. Another version may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no error code has this word")]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        ROWS.iter().find(|r| r.word == word).map(|r| r.code).ok_or(UnknownCode)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_own_row_and_word() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!((*code as usize, code.row().code), (i, *code));
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code}");
        }
        assert_eq!("no_such_code".parse::<Code>(), Err(UnknownCode));
    }

    #[test]
    fn each_sentence_is_one_sentence_and_fits_a_table() {
        for code in Code::ALL {
            let s = code.sentence();
            assert!(s.ends_with('.') && !s.contains(['|', '\n']) && !s.contains(". "), "{code}: {s}");
            assert!(s.starts_with(|c: char| c.is_ascii_uppercase() || c == '`'), "{code}: {s}");
        }
    }

    #[test]
    fn what_is_busy_can_be_retried_and_what_is_wrong_cannot() {
        for code in Code::ALL {
            match code.kind() {
                Kind::Timeout => assert!(code.retryable(), "{code}"),
                Kind::Invalid | Kind::NotFound | Kind::Exists | Kind::Denied | Kind::TooLarge | Kind::KeyReused => assert!(!code.retryable(), "{code}"),
                _ => {}
            }
        }
    }
}
