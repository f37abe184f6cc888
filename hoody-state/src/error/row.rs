//! The shape of the table of error codes, and the macro that makes an enum of it.

use super::Kind;

/// One row of the table.
pub(super) struct RowOf<C> {
    pub code: C,
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

        pub(super) const ROWS: &[RowOf<Code>] = &[
            $(RowOf { code: Code::$api, word: $api_word, kind: Kind::$api_kind, retryable: answer!($api_retry), in_api: true, sentence: $api_sentence },)*
            $(RowOf { code: Code::$host, word: $host_word, kind: Kind::$host_kind, retryable: answer!($host_retry), in_api: false, sentence: $host_sentence },)*
        ];

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$api,)* $(Code::$host,)*];
        }
    };
}

pub(super) use {answer, codes};
