//! `hoody-state-http`: the server, and commands for its pool.

mod args;
mod check;
mod limits;
mod recovery;
mod run;
mod token;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("HOODY_STATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let done = match args.command {
        Command::Serve(args) => run::serve(&args).map(|()| ExitCode::SUCCESS),
        Command::Token(args) => token::token(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::check(&args),
        Command::Unmount(args) => check::unmount(&args).map(|()| ExitCode::SUCCESS),
        Command::Certificate { data, name } => certificate(&data, &name).map(|()| ExitCode::SUCCESS),
        Command::DemoImage { busybox } => hoody_state::image::demo::busybox_rootfs(&busybox, &mut std::io::stdout().lock()).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|e| {
        eprintln!("hoody-state-http: {}", e.message());
        ExitCode::from(hoody_state_http::exit::server(e.code()))
    })
}

fn certificate(data: &std::path::Path, names: &[String]) -> hoody_state::Result<()> {
    use hoody_state_http::tls::{Identity, likely_names};
    let own = Identity::own(data);
    let names = if names.is_empty() { likely_names(std::net::SocketAddr::from(([0, 0, 0, 0], 0)), run::host_name()) } else { names.to_vec() };
    own.make(&names)?;
    print!("{}", own.pem()?);
    Ok(())
}
