//! What the server takes at once, on the command line.

use crate::args::duration;
use hoody_state_http::limits::Limits;
use std::time::Duration;

/// What the server takes at once. `GET /pool` shows each value and what is under way.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// TCP connections at once.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections, value_parser = count())]
    pub max_connections: usize,
    /// TCP connections of one address (of one /64 with IPv6). Behind a proxy all clients have the proxy's address.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections_per_address, value_parser = count())]
    pub max_connections_per_address: usize,
    /// Connections to the UNIX socket at once.
    #[arg(long, value_name = "N", default_value_t = Limits::default().socket_connections, value_parser = count())]
    pub max_socket_connections: usize,
    /// How long a client may take over a TLS handshake, and over the headers of a request.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub header_timeout: Duration,
    /// How long a connection that has shown a token may do nothing between two requests.
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = duration)]
    pub idle_timeout: Duration,
    /// How long a JSON body may take to come.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub body_timeout: Duration,
    /// An upload that brings less than 16 KiB in so long is ended.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub upload_stall_timeout: Duration,
    /// Commands (`exec`) that run at once.
    #[arg(long, value_name = "N", default_value_t = Limits::default().commands, value_parser = count())]
    pub max_commands: usize,
    /// Commands that run at once in the containers of one project.
    #[arg(long, value_name = "N", default_value_t = Limits::default().commands_per_project, value_parser = count())]
    pub max_commands_per_project: usize,
    /// Streams of events at once, Socket.IO's too.
    #[arg(long, value_name = "N", default_value_t = Limits::default().streams, value_parser = count())]
    pub max_event_streams: usize,
    /// Logs that are followed at once.
    #[arg(long, value_name = "N", default_value_t = Limits::default().followers, value_parser = count())]
    pub max_log_followers: usize,
    /// Requests at once that wait for an operation to end.
    #[arg(long, value_name = "N", default_value_t = Limits::default().waits, value_parser = count())]
    pub max_waits: usize,
}

fn count() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=65_536)
}

impl LimitArgs {
    /// The settings. The share of one caller follows the total where it has no option of its own.
    pub fn limits(&self) -> Limits {
        let quarter = |n: usize| n.div_ceil(4);
        Limits {
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address,
            socket_connections: self.max_socket_connections,
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
            body_timeout: self.body_timeout,
            progress_timeout: self.upload_stall_timeout,
            commands: self.max_commands,
            commands_per_project: self.max_commands_per_project,
            streams: self.max_event_streams,
            streams_per_caller: quarter(self.max_event_streams),
            followers: self.max_log_followers,
            followers_per_project: quarter(self.max_log_followers),
            waits: self.max_waits,
            waits_per_caller: quarter(self.max_waits),
            ..Limits::default()
        }
    }
}
