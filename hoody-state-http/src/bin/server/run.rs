//! `serve`.

use crate::args::ServeArgs;
use crate::recovery::Recovery;
use hoody_state::error::IoContext;
use hoody_state::host::Host;
use hoody_state::{Code, Error, Result};
use hoody_state_http::tls::{Identity, TlsAcceptor, likely_names};
use hoody_state_http::{Api, Options, serve, unix};
use sd_notify::NotifyState;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until TERM or INT.
///
/// # Errors
/// When the pool or the addresses cannot be had.
pub fn serve(args: &ServeArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Code::NotRoot, "serving takes root: it mounts file systems and starts containers"));
    }
    let config = args.config()?;
    let options = Options { metrics: args.metrics, limits: args.limits.limits() };
    take_descriptors();
    let tls = tls_identity(args)?.map(|i| i.acceptor()).transpose()?;
    // One thread answers; the calls of the library run on others, which end when there is nothing to do.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(options.blocking_threads()).build().io(|| "start the runtime")?;
    // Before the pool: an address in use must leave nothing mounted.
    let tcp = runtime.block_on(TcpListener::bind(args.listen)).map_err(|e| listen_error(args, e))?;
    let host = Host::open(&config)?;
    if let Err(e) = host.probe_runtime() {
        tracing::warn!("{}; everything but starting containers works", e.message());
    }
    let socket = args.socket.clone().unwrap_or_else(|| config.run.join("api.sock"));
    let recover = Recovery::watch(&host);
    let api = Api::new(host.clone(), options);
    let served = runtime.block_on(listen(tcp, tls, &socket, &api, &recover));
    // Calls whose client went away get a little longer; the journal makes good what is cut off.
    runtime.shutdown_timeout(Duration::from_secs(5));
    host.close();
    served?;
    if recover.is_due() { recover.start_anew() } else { Ok(()) }
}

async fn listen(tcp: TcpListener, tls: Option<TlsAcceptor>, socket: &Path, api: &Api, recover: &Recovery) -> Result<()> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = tcp.local_addr().io(|| "ask for the address")?;
    let unix = unix::bind(socket)?;
    // Before the line that says we are ready, so that whoever reads it can end us.
    let (mut term, mut int) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut out = std::io::stdout();
    // Whoever started us may not read it.
    let _ = writeln!(out, "listening on {scheme}://{address} (socket {})", socket.display()).and_then(|()| out.flush());
    if let Err(e) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(error = %e, "systemd could not be told");
    }
    tracing::info!(%address, socket = %socket.display(), "serving");
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = recover.due() => tracing::warn!("the pool is read-only and can be mounted anew: starting again"),
        }
        tracing::info!("ending: no new connections, requests in flight are finished");
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    };
    serve::serve(api, Some(tcp), tls, Some(unix), stop).await;
    // It may have been taken over or removed already.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// A container with many shares takes as many descriptors while it starts: the shell's usual 1,024 are soon gone.
fn take_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        tracing::warn!(error = %e, "the limit of open files stays as it is");
    }
}

/// The certificate to serve with: the one given, else beyond loopback one of the server's own making.
fn tls_identity(args: &ServeArgs) -> Result<Option<Identity>> {
    if let (Some(certificate), Some(key)) = (&args.tls_certificate, &args.tls_key) {
        return Ok(Some(Identity { certificate: certificate.clone(), key: key.clone() }));
    }
    if args.listen.ip().is_loopback() {
        return Ok(None);
    }
    let own = Identity::own(&args.pool.data);
    if own.make(&likely_names(args.listen, host_name()))? {
        tracing::info!(certificate = %own.certificate.display(), "made a certificate: `hoody-state-http certificate` prints it for other servers to pin");
    }
    Ok(Some(own))
}

/// What this machine is called.
#[must_use]
pub fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok())
}

fn signals(kind: SignalKind) -> Result<Signal> {
    signal(kind).io(|| "listen for signals")
}

fn listen_error(args: &ServeArgs, e: std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::AddrInUse {
        return Error::new(Code::AddressInUse, format!("{} is in use: give another --listen, or port 0 for a free one", args.listen)).with_source(e);
    }
    Error::io(format!("listen on {}", args.listen), e)
}
