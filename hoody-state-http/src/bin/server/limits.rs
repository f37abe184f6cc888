//! The limits of the server, on the command line.

use crate::args::duration;
use hoody_state_http::limits::Limits;
use std::time::Duration;

/// Limits. `GET /pool` shows each limit and how much of it is in use.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Most open TCP connections
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections, value_parser = count())]
    pub max_connections: usize,
    /// Most open TCP connections of one address (IPv6: of one /64 network). Behind a proxy all clients have the address of the proxy.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections_per_address, value_parser = count())]
    pub max_connections_per_address: usize,
    /// Most open connections to the UNIX socket
    #[arg(long, value_name = "N", default_value_t = Limits::default().socket_connections, value_parser = count())]
    pub max_socket_connections: usize,
    /// How long a client may take for a TLS handshake, and for the headers of a request
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub header_timeout: Duration,
    /// How long a connection that has sent a valid token may be idle between two requests
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = duration)]
    pub idle_timeout: Duration,
    /// How long a JSON body may take to arrive
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub body_timeout: Duration,
    /// An upload that sends less than 16 KiB in this time is ended
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub upload_stall_timeout: Duration,
    /// Most running commands (`exec`)
    #[arg(long, value_name = "N", default_value_t = Limits::default().commands, value_parser = count())]
    pub max_commands: usize,
    /// Most running commands in the containers of one project
    #[arg(long, value_name = "N", default_value_t = Limits::default().commands_per_project, value_parser = count())]
    pub max_commands_per_project: usize,
    /// Most open streams of events, including Socket.IO sessions
    #[arg(long, value_name = "N", default_value_t = Limits::default().streams, value_parser = count())]
    pub max_event_streams: usize,
    /// Most logs that are followed at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().followers, value_parser = count())]
    pub max_log_followers: usize,
    /// Most requests that wait for the end of an operation at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().waits, value_parser = count())]
    pub max_waits: usize,
}

fn count() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=65_536)
}

impl LimitArgs {
    /// The limits. A limit for each caller that has no option is a quarter of the total.
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
