//! Long output on a terminal goes through a pager.
//!
//! Output is collected until it is longer than the screen; only then the pager is started. So a short answer is printed as always.

use crate::args::{Cli, Container, Image, Noun, Operation, Output, Peer, Pool, Project, Snapshot};
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

/// The pager if `PAGER` does not say another.
const USUAL: &str = "less";
/// What `less` does unless `LESS` says otherwise: it ends if all fits, passes colors on, and leaves the text on the screen.
const LESS: &str = "FRX";

/// Columns of the terminal on standard output.
pub fn width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)).filter(|n| *n > 0)
}

/// The pager's command and the rows of the screen, if the command prints something to read and standard output is a terminal.
pub fn wanted(cli: &Cli) -> Option<(String, usize)> {
    let prints = match &cli.noun {
        Noun::Log(_) | Noun::Diff(_) | Noun::Ls(_) => true,
        Noun::Project(c) => matches!(c, Project::List | Project::Show { .. }),
        Noun::Container(c) => match c {
            Container::List { .. } | Container::Show { .. } | Container::Stats { .. } | Container::Usage { .. } => true,
            Container::Logs { follow, .. } => !follow,
            _ => false,
        },
        Noun::Snapshot(c) => matches!(c, Snapshot::List { .. } | Snapshot::Show(_)),
        Noun::Image(c) => matches!(c, Image::List | Image::Show { .. }),
        Noun::Peer(c) => matches!(c, Peer::List),
        Noun::Operation(c) => matches!(c, Operation::List | Operation::Show { .. }),
        Noun::Pool(Pool::Show) => true,
        _ => false,
    };
    if !prints || cli.global.no_pager || cli.global.output == Output::Json || !std::io::stdout().is_terminal() {
        return None;
    }
    let rows = console::Term::stdout().size_checked().map_or(24, |(rows, _)| usize::from(rows));
    command(std::env::var("PAGER").ok()).map(|pager| (pager, rows))
}

/// The command of `PAGER`; `None` if it says that there is to be none.
pub fn command(pager: Option<String>) -> Option<String> {
    let pager = pager.unwrap_or_else(|| USUAL.to_owned());
    Some(pager.trim().to_owned()).filter(|p| !p.is_empty() && p != "cat")
}

/// Standard output, which becomes a pager's input once it is longer than the screen.
pub struct Out {
    pager: Option<(String, usize)>,
    held: Vec<u8>,
    child: Option<Child>,
    /// The pager was ended before it had read everything.
    ended: bool,
}

impl Out {
    /// `pager`: the command, and the rows of the screen; `None`: everything is printed at once.
    pub fn new(pager: Option<(String, usize)>) -> Self {
        Out { pager, held: Vec::new(), child: None, ended: false }
    }

    /// Prints what is left, and waits until the pager is left.
    pub fn finish(&mut self) -> std::io::Result<()> {
        let Some(mut child) = self.child.take() else {
            self.pager = None;
            let held = std::mem::take(&mut self.held);
            let mut out = std::io::stdout().lock();
            out.write_all(&held)?;
            return out.flush();
        };
        drop(child.stdin.take());
        child.wait().map(drop)
    }

    fn start(&mut self) {
        let Some((pager, _)) = self.pager.take() else { return };
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(pager).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", LESS);
        }
        // Where there is no pager the text is printed.
        self.child = command.spawn().ok();
    }

    fn pass_on(&mut self) -> std::io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let Some(input) = self.child.as_mut().and_then(|c| c.stdin.as_mut()) else { return std::io::stdout().lock().write_all(&held) };
        match input.write_all(&held) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.ended = true;
                Ok(())
            }
            other => other,
        }
    }
}

impl Write for Out {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        if self.ended {
            return Ok(text.len());
        }
        self.held.extend_from_slice(text);
        if let Some((_, rows)) = self.pager {
            if self.held.iter().filter(|b| **b == b'\n').count() < rows {
                return Ok(text.len());
            }
            self.start();
        }
        self.pass_on()?;
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.pager.is_none() && self.child.is_none() { std::io::stdout().lock().flush() } else { Ok(()) }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // After an error: what was printed before it is shown.
        let _ = self.finish();
    }
}
