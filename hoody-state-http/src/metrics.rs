//! Metrics for Prometheus, in its text format.

use crate::app::Shared;
use crate::slots::Load;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use hoody_state::host::Host;
use hoody_state::model::ScheduleCounts;
use hoody_state::{Error, Result};
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::hash::Hash;

pub use prometheus_text::CONTENT_TYPE;

/// The requests answered so far. All other metrics are read when the page is rendered.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Counts each request by its route. The path itself would make endlessly many time series.
pub async fn count(State(app): State<Shared>, request: Request, next: Next) -> Response {
    if !app.options.metrics {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let response = next.run(request).await;
    app.metrics.requests.get_or_create(&RequestLabels { method, route, status: response.status().as_u16() }).inc();
    response
}

/// A client can send any word as a method: only the standard ones become labels of their own.
fn method_label(method: &Method) -> &'static str {
    const STANDARD: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    STANDARD.into_iter().find(|m| *m == method.as_str()).unwrap_or("other")
}

impl Metrics {
    /// The page in the format of [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn render(&self, host: &Host, loads: &BTreeMap<&'static str, Load>) -> Result<String> {
        let mut registry = Registry::with_prefix("hoody_state");
        registry.register("requests", "Requests answered", self.requests.clone());
        let running = Gauge::<i64>::default();
        running.set(as_gauge(host.running_operations()?));
        registry.register("operations_running", "Operations that are running", running);
        let by_status = host.containers_by_status()?.into_iter().map(|(status, n)| (StatusLabel { status }, n));
        registry.register("containers", "Containers by status", gauges(by_status));
        let of = |value: fn(&Load) -> u64| loads.iter().map(move |(what, load)| (WhatLabel { what }, value(load)));
        registry.register("under_way", "Calls, streams and connections that are open", gauges(of(|l| l.used as u64)));
        registry.register("under_way_limit", "How many of each may be open at once", gauges(of(|l| l.limit as u64)));
        registry.register("refused", "Calls, streams and connections refused because of that limit", counters(of(|l| l.refused)));
        let schedules = host.schedule_counts()?;
        registry.register("schedule_runs", "Runs of snapshot schedules by their result", counters(runs(&schedules)));
        registry.register("schedule_missed_runs", "Missed runs that a later one made up for", counter(schedules.made_up));
        registry.register("schedule_pruned", "Snapshots removed because no rule of their schedule kept them", counter(schedules.pruned));
        registry.register("schedule_prune_failures", "Removals of such snapshots that failed", counter(schedules.prune_failed));
        registry.register("schedule_prunes_held_back", "Removals held back because the clock had moved", counter(schedules.held_back));
        let now = [("under_way", schedules.under_way), ("waiting", schedules.waiting)];
        registry.register(
            "schedule_containers",
            "Containers with a scheduled run under way or waiting",
            gauges(now.into_iter().map(|(what, n)| (WhatLabel { what }, n))),
        );
        registry.register("schedules_failing", "Schedules whose last attempt failed", gauge(schedules.failing));
        if let Some(due) = schedules.next_due {
            registry.register("schedule_next_run_timestamp_seconds", "When the next run starts", gauge(u64::try_from(due.as_second()).unwrap_or(0)));
        }
        let mut page = String::new();
        prometheus_text::encode(&mut page, &registry).map_err(|e| Error::internal(format!("the metrics cannot be written: {e}")))?;
        Ok(page)
    }
}

fn runs(s: &ScheduleCounts) -> impl Iterator<Item = (ResultLabel, u64)> {
    let results = [("taken", s.taken), ("unchanged", s.unchanged), ("not_running", s.not_running), ("failed", s.failed)];
    results.into_iter().map(|(result, n)| (ResultLabel { result }, n))
}

fn counter(n: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(n);
    counter
}

fn gauge(n: u64) -> Gauge {
    let gauge = Gauge::<i64>::default();
    gauge.set(as_gauge(n));
    gauge
}

fn as_gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn gauges<L: Clone + Eq + Hash>(values: impl Iterator<Item = (L, u64)>) -> Family<L, Gauge> {
    let family = Family::<L, Gauge>::default();
    for (labels, n) in values {
        family.get_or_create(&labels).set(as_gauge(n));
    }
    family
}

fn counters<L: Clone + Eq + Hash>(values: impl Iterator<Item = (L, u64)>) -> Family<L, Counter> {
    let family = Family::<L, Counter>::default();
    for (labels, n) in values {
        family.get_or_create(&labels).inc_by(n);
    }
    family
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Names, types and labels that dashboards rely on.
    #[test]
    fn the_page_has_the_documented_names_types_and_labels() {
        let metrics = Metrics::default();
        metrics.requests.get_or_create(&RequestLabels { method: "GET", route: "/api/v1/containers/{id}".into(), status: 200 }).inc();
        let loads = BTreeMap::from([("reads", Load { used: 3, limit: 32, each: 16, refused: 7 })]);
        let page = metrics.render(&Host::in_memory().unwrap(), &loads).unwrap();
        for result in ["taken", "unchanged", "not_running", "failed"] {
            let line = format!("hoody_state_schedule_runs_total{{result=\"{result}\"}} 0");
            assert!(page.lines().any(|l| l == line), "{line}: {page}");
        }
        for name in ["missed_runs_total", "pruned_total", "prune_failures_total", "prunes_held_back_total"] {
            assert!(page.lines().any(|l| l == format!("hoody_state_schedule_{name} 0")), "{name}: {page}");
        }
        assert!(page.contains("\nhoody_state_schedules_failing 0\n") && page.contains("hoody_state_schedule_containers{what=\"waiting\"} 0"), "{page}");
        let lines: Vec<&str> = page.lines().filter(|l| !l.starts_with("# HELP") && !l.contains("schedule")).collect();
        let expected = [
            "# TYPE hoody_state_requests_total counter",
            r#"hoody_state_requests_total{method="GET",route="/api/v1/containers/{id}",status="200"} 1"#,
            "# TYPE hoody_state_operations_running gauge",
            "hoody_state_operations_running 0",
            "# TYPE hoody_state_under_way gauge",
            r#"hoody_state_under_way{what="reads"} 3"#,
            "# TYPE hoody_state_under_way_limit gauge",
            r#"hoody_state_under_way_limit{what="reads"} 32"#,
            "# TYPE hoody_state_refused_total counter",
            r#"hoody_state_refused_total{what="reads"} 7"#,
        ];
        assert_eq!(lines, expected, "{page}");
    }

    #[test]
    fn a_made_up_method_is_counted_as_other() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
