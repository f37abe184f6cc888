//! What every command needs.

use crate::failure::Outcome;
use crate::http::Client;
use crate::output;
use crate::style::Style;
use serde_json::Value;
use std::io::Write;

/// The connection and the output.
pub struct Context<'a> {
    pub client: Client,
    pub json: bool,
    pub yes: bool,
    /// Colors, if any.
    pub style: Style,
    /// Columns of the terminal; `None`: the output is not one.
    pub width: Option<usize>,
    pub out: &'a mut dyn Write,
    /// Whether somebody can be asked for confirmation.
    pub terminal: bool,
}

impl Context<'_> {
    /// Prints the data as JSON, or as `table` formats it.
    pub fn print(&mut self, data: &Value, table: impl FnOnce(&Value) -> String) -> Outcome {
        let text = if self.json { format!("{data:#}\n") } else { table(data) };
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Prints a sentence; with JSON output the data instead.
    pub fn say(&mut self, data: &Value, sentence: impl Into<String>) -> Outcome {
        self.print(data, |_| output::line(&sentence.into()))
    }
}
