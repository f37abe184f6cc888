//! Colors of a terminal.

use crate::args::Color;
use hoody_state::model::DiffKind;
use std::ffi::OsString;

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What an entry is about.
    Kind,
    /// The name of a snapshot.
    Name,
    /// The name of a container.
    Container,
    /// What must be noticed: a pin.
    Mark,
    /// Less important.
    Dim,
    /// A line of the graph, by its column.
    Lane(usize),
    /// A name that differs between two states.
    Change(DiffKind),
}

/// Whether there are colors.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colors: bool,
}

const LANES: [&str; 6] = ["31", "32", "33", "34", "35", "36"];

impl Style {
    /// `NO_COLOR`, if it is set and not empty, and a dumb terminal turn colors off, unless they are asked for.
    pub fn choose(wanted: Color, env: impl Fn(&str) -> Option<OsString>, terminal: bool) -> Self {
        let off = env("NO_COLOR").is_some_and(|v| !v.is_empty()) || env("TERM").is_some_and(|t| t == "dumb");
        let colors = match wanted {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !off,
        };
        Style { colors }
    }

    /// The text with its look. It must not have escapes of its own.
    pub fn paint(self, look: Look, text: &str) -> String {
        if !self.colors || text.is_empty() {
            return text.to_owned();
        }
        let code = match look {
            Look::Kind => "1",
            Look::Name => "33",
            Look::Container => "36",
            Look::Mark => "1;35",
            Look::Dim => "2",
            Look::Lane(n) => LANES[n % LANES.len()],
            Look::Change(DiffKind::Added) => "32",
            Look::Change(DiffKind::Deleted) => "31",
            Look::Change(DiffKind::Modified) => "33",
            Look::Change(DiffKind::Renamed) => "36",
            Look::Change(DiffKind::Metadata) => "34",
            Look::Change(DiffKind::TypeChanged) => "35",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
