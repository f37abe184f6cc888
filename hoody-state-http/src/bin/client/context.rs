//! What every command needs.

use crate::failure::Outcome;
use crate::http::Client;
use crate::output;
use serde_json::Value;
use std::io::Write;

/// The connection, and how to print.
pub struct Context<'a> {
    pub client: Client,
    pub json: bool,
    pub yes: bool,
    pub out: &'a mut dyn Write,
    /// Whether a person can be asked.
    pub terminal: bool,
}

impl Context<'_> {
    /// The data as JSON, or what `table` makes of it.
    pub fn print(&mut self, data: &Value, table: impl FnOnce(&Value) -> String) -> Outcome {
        let text = if self.json { format!("{data:#}\n") } else { table(data) };
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// A sentence for people; with JSON the data instead.
    pub fn say(&mut self, data: &Value, sentence: impl Into<String>) -> Outcome {
        self.print(data, |_| output::line(&sentence.into()))
    }
}
