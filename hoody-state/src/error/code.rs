//! What can be asked about an error code. The codes themselves are in `table.rs`.

use super::Kind;
use super::table::{Code, ROWS};
use std::fmt;
use std::str::FromStr;

/// One row of the table.
pub(super) struct Row {
    pub code: Code,
    pub word: &'static str,
    pub kind: Kind,
    pub retryable: bool,
    pub in_api: bool,
    pub sentence: &'static str,
}

macro_rules! answer {
    (yes) => {
        true
    };
    (no) => {
        false
    };
}

/// Makes the enum and its table. A row is: the variant, its word, its kind, whether the same request may succeed later, its sentence.
macro_rules! codes {
    (
        api { $($api:ident, $api_word:literal, $api_kind:ident, retry: $api_retry:ident, $api_sentence:literal;)* }
        host { $($host:ident, $host_word:literal, $host_kind:ident, retry: $host_retry:ident, $host_sentence:literal;)* }
    ) => {
        /// Which rule was broken: a stable word for programs, with its [kind](Code::kind) and a [sentence](Code::sentence) for people.
        ///
        /// Codes may be added in any version. A word never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $api_sentence] $api,)*
            $(#[doc = $host_sentence] $host,)*
        }

        pub(super) const ROWS: &[Row] = &[
            $(Row { code: Code::$api, word: $api_word, kind: Kind::$api_kind, retryable: answer!($api_retry), in_api: true, sentence: $api_sentence },)*
            $(Row { code: Code::$host, word: $host_word, kind: Kind::$host_kind, retryable: answer!($host_retry), in_api: false, sentence: $host_sentence },)*
        ];

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$api,)* $(Code::$host,)*];
        }
    };
}

pub(super) use {answer, codes};

impl Code {
    const fn row(self) -> &'static Row {
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
