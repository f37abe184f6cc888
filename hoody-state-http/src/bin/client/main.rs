//! `hoody-state`: the client for people.
//!
//! Commands are a noun and a verb over the HTTP API of the server. Results go to stdout, everything else to stderr. The exit code says which kind
//! of error occurred: 0 none, 1 any other, 2 wrong usage, 3 not found, 4 conflict or busy, 5 denied, 6 no space, 7 unreachable,
//! 8 an invalid request. `container exec` exits with the code of the command.

mod args;
mod checkout;
mod confirm;
mod container;
mod container_io;
mod context;
mod copies;
mod copy_in;
mod copy_out;
mod diff;
mod events;
mod failure;
mod files;
mod graph;
mod http;
mod image;
mod log;
#[cfg(test)]
mod log_tests;
mod operation;
mod output;
mod pager;
mod policy;
mod pool;
mod project;
mod promote;
mod resolve;
mod snapshot;
mod style;
#[cfg(test)]
mod tests;
mod transport;
mod trash;
mod usage;
mod wait;

use args::{Cli, Noun};
use clap::{CommandFactory, Parser};
use context::Context;
use failure::Outcome;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = pager::Out::new(pager::wanted(&cli));
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    match run(cli, &mut out, terminal).and_then(|code| out.finish().map(|()| code).map_err(Into::into)) {
        Ok(code) => ExitCode::from(code),
        Err(f) => {
            if !f.message.is_empty() {
                // If stderr is closed, the exit code must do.
                let _ = writeln!(std::io::stderr(), "{f}");
            }
            ExitCode::from(f.exit)
        }
    }
}

/// Runs the command. The exit code is that of a command run in a container, else 0.
fn run(cli: Cli, out: &mut dyn Write, terminal: bool) -> Outcome<u8> {
    if let Noun::Completions { shell } = cli.noun {
        // Into memory first: clap_complete panics if writing fails.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "hoody-state", &mut script);
        out.write_all(&script)?;
        return Ok(0);
    }
    let token = cli.global.token.clone().or_else(|| std::env::var("HOODY_TOKEN").ok()).filter(|t| !t.is_empty());
    // With a token, the server is one that asks for tokens: not the local socket.
    let local = || if token.is_some() { Vec::new() } else { http::local_sockets() };
    let target = http::Target::choose(cli.global.url.as_deref(), cli.global.socket.as_deref(), |name| std::env::var(name).ok(), local)?;
    let ca = cli.global.server_ca.clone().or_else(|| std::env::var_os("HOODY_STATE_CA").filter(|c| !c.is_empty()).map(Into::into));
    let mut cx = Context {
        client: http::Client::new(&target, token.as_deref(), ca.as_deref())?,
        json: cli.global.output == args::Output::Json,
        yes: cli.global.yes,
        style: style::Style::choose(cli.global.colors, |name| std::env::var_os(name), std::io::stdout().is_terminal()),
        width: pager::width(),
        out,
        terminal,
    };
    match cli.noun {
        Noun::Project(c) => project::run(&mut cx, c)?,
        Noun::Container(c) => return container::run(&mut cx, c),
        Noun::Snapshot(c) => snapshot::run(&mut cx, c)?,
        Noun::Policy(c) => policy::run(&mut cx, c)?,
        Noun::Diff(a) => diff::run(&mut cx, &a)?,
        Noun::Checkout(a) => checkout::run(&mut cx, &a)?,
        Noun::Log(a) => log::run(&mut cx, &a)?,
        Noun::Promote(a) => promote::promote(&mut cx, a)?,
        Noun::Reset(a) => promote::reset(&mut cx, a)?,
        Noun::Cat(a) => files::cat(&mut cx, &a)?,
        Noun::Ls(a) => files::ls(&mut cx, &a)?,
        Noun::Cp(a) => files::cp(&mut cx, &a)?,
        Noun::Image(c) => image::run(&mut cx, c)?,
        Noun::Trash(c) => trash::run(&mut cx, c)?,
        Noun::Peer(c) => copies::peer(&mut cx, c)?,
        Noun::Pool(c) => pool::run(&mut cx, c)?,
        Noun::Operation(c) => operation::run(&mut cx, c)?,
        Noun::Events(a) => events::run(&mut cx, &a)?,
        Noun::Completions { .. } => {}
    }
    Ok(0)
}
