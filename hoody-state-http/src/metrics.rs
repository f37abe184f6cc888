//! A handful of figures in Prometheus' text form.

use crate::app::Shared;
use crate::slots::Load;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hoody_state::Result;
use hoody_state::host::Host;
use hoody_state::model::{OperationStatus, PageRequest};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// Requests answered, by method, route and status.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<(String, String, u16), u64>>);

/// Counts each request by its route (not its path, of which there are endlessly many).
pub async fn count(State(app): State<Shared>, request: Request, next: Next) -> Response {
    if !app.options.metrics {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().as_str().to_owned();
    let response = next.run(request).await;
    let mut counts = app.metrics.0.lock().unwrap_or_else(PoisonError::into_inner);
    // A method may be any word a client makes up.
    if counts.len() < 4096 {
        *counts.entry((method, route, response.status().as_u16())).or_default() += 1;
    }
    response
}

impl Metrics {
    /// The page.
    ///
    /// # Errors
    /// Those of the host's lists.
    pub fn render(&self, host: &Host, loads: &BTreeMap<&'static str, Load>) -> Result<String> {
        let mut out = String::from("# HELP hoody_state_requests_total Requests answered.\n# TYPE hoody_state_requests_total counter\n");
        for ((method, route, status), n) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "hoody_state_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} {n}");
        }
        let running = host.operations(&PageRequest::first())?.rows.iter().filter(|o| o.status == OperationStatus::Running).count();
        let _ = write!(
            out,
            "# HELP hoody_state_operations_running Operations under way.\n# TYPE hoody_state_operations_running gauge\nhoody_state_operations_running {running}\n"
        );
        out.push_str("# HELP hoody_state_containers Containers by status.\n# TYPE hoody_state_containers gauge\n");
        for (status, n) in containers_by_status(host)? {
            let _ = writeln!(out, "hoody_state_containers{{status=\"{status}\"}} {n}");
        }
        gauges(&mut out, loads);
        Ok(out)
    }
}

/// What is under way, how much of it there may be, and how often it was refused.
fn gauges(out: &mut String, loads: &BTreeMap<&'static str, Load>) {
    type Figure = (&'static str, &'static str, &'static str, fn(&Load) -> u64);
    let figures: [Figure; 3] = [
        ("under_way", "gauge", "Calls, streams and connections under way.", |l| l.used as u64),
        ("under_way_limit", "gauge", "The most there may be.", |l| l.limit as u64),
        ("refused_total", "counter", "Refused because there were as many as there may be.", |l| l.refused),
    ];
    for (name, kind, help, of) in figures {
        let _ = writeln!(out, "# HELP hoody_state_{name} {help}\n# TYPE hoody_state_{name} {kind}");
        for (what, load) in loads {
            let _ = writeln!(out, "hoody_state_{name}{{what=\"{what}\"}} {}", of(load));
        }
    }
}

fn containers_by_status(host: &Host) -> Result<BTreeMap<&'static str, u64>> {
    let mut counts = BTreeMap::new();
    let mut page = PageRequest::first();
    loop {
        let paged = host.containers(&page, None, None)?;
        for c in &paged.rows {
            *counts.entry(c.status.as_str()).or_default() += 1;
        }
        if u64::from(page.page) >= paged.pagination.total_pages {
            return Ok(counts);
        }
        page.page += 1;
    }
}
