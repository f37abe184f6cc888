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
/// When the pool cannot be opened, or an address cannot be listened on.
pub fn serve(args: &ServeArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(Code::NotRoot, "the server needs root: it mounts file systems and starts containers"));
    }
    let config = args.config()?;
    let options = Options { metrics: args.metrics, limits: args.limits.limits() };
    raise_open_files();
    let tls = tls_identity(args)?.map(|i| i.acceptor()).transpose()?;
    // One thread answers; the calls of the library run on others, which end when there is nothing to do.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(options.blocking_threads()).build().io(|| "start the runtime")?;
    // Before the pool is opened: if the address is in use, nothing must be left mounted.
    let tcp = runtime.block_on(TcpListener::bind(args.listen)).map_err(|e| listen_error(args, e))?;
    let host = Host::open(&config)?;
    if let Err(e) = host.probe_runtime() {
        tracing::warn!("{}; everything but starting containers works", e.message());
    }
    let socket = args.socket.clone().unwrap_or_else(|| config.run.join("api.sock"));
    let recover = Recovery::watch(&host);
    let api = Api::new(host.clone(), options);
    let served = runtime.block_on(listen(tcp, tls, &socket, &api, &recover));
    // Calls whose client has disconnected get a little longer. What is cut off is recovered from the journal.
    runtime.shutdown_timeout(Duration::from_secs(5));
    host.close();
    served?;
    if recover.is_due() { recover.restart() } else { Ok(()) }
}

async fn listen(tcp: TcpListener, tls: Option<TlsAcceptor>, socket: &Path, api: &Api, recover: &Recovery) -> Result<()> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = tcp.local_addr().io(|| "read the address of the socket")?;
    let unix = unix::bind(socket)?;
    // Before the line that says that the server is ready: whoever reads it may send a signal.
    let (mut term, mut int) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut out = std::io::stdout();
    // Standard output may be closed.
    let _ = writeln!(out, "listening on {scheme}://{address} (socket {})", socket.display()).and_then(|()| out.flush());
    if let Err(e) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(error = %e, "systemd was not notified");
    }
    tracing::info!(%address, socket = %socket.display(), "serving");
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = recover.due() => tracing::warn!("the pool is read-only and can be mounted again: restarting"),
        }
        tracing::info!("stopping: no new connections are accepted, open requests are finished");
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    };
    serve::serve(api, Some(tcp), tls, Some(unix), stop).await;
    // A new server may have replaced it, or somebody has removed it.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// Starting a container with many shares takes as many descriptors: the usual limit of 1,024 is too low.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        tracing::warn!(error = %e, "the limit of open files stays as it is");
    }
}

/// The certificate to serve with: the given one; else, for other addresses than loopback, a self-signed one.
fn tls_identity(args: &ServeArgs) -> Result<Option<Identity>> {
    if let (Some(certificate), Some(key)) = (&args.tls_certificate, &args.tls_key) {
        return Ok(Some(Identity { certificate: certificate.clone(), key: key.clone() }));
    }
    if args.listen.ip().is_loopback() {
        return Ok(None);
    }
    let own = Identity::own(&args.pool.data);
    if own.make(&likely_names(args.listen, host_name()))? {
        tracing::info!(certificate = %own.certificate.display(), "created a certificate: `hoody-state-http certificate` prints it for other servers");
    }
    Ok(Some(own))
}

/// The name of this machine.
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
