//! Confirmation before something is deleted or overwritten.

use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use std::io::{BufRead, Write};

/// Succeeds only with `--yes` or after a yes on the terminal.
pub fn confirm(cx: &Context<'_>, what: &str) -> Outcome {
    if cx.yes {
        return Ok(());
    }
    if !cx.terminal {
        return Err(Failure::new(exit::USAGE, format!("{what}: this needs --yes where there is no terminal to ask on; nothing was changed")));
    }
    let mut err = std::io::stderr();
    write!(err, "{what}? [y/N] ").and_then(|()| err.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if is_yes(&answer) { Ok(()) } else { Err(Failure::other("not confirmed; nothing was changed")) }
}

/// Whether an answer is `y` or `yes`.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
