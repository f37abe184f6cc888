//! Asking before something is lost.

use crate::context::Context;
use crate::failure::{Failure, Outcome, exit};
use std::io::{BufRead, Write};

/// Goes on only with `--yes` or a person's yes.
pub fn confirm(cx: &Context<'_>, what: &str) -> Outcome {
    if cx.yes {
        return Ok(());
    }
    if !cx.terminal {
        return Err(Failure::new(exit::USAGE, format!("{what} needs --yes when nobody can be asked; nothing was changed")));
    }
    let mut err = std::io::stderr();
    write!(err, "{what}? [y/N] ").and_then(|()| err.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if is_yes(&answer) { Ok(()) } else { Err(Failure::other("not confirmed; nothing was changed")) }
}

/// Only a clear yes is one.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
