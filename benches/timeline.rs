//! The whole route `GET /containers/{id}/timeline` on a container with 10,000 nodes: over a UNIX socket, JSON read by the client. `cargo bench --bench timeline`.
//!
//! The container is in memory, its catalog is a file on the disk: a timeline is read from the catalog alone. `HOODY_BENCH_NODES` sets how many nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hoody_state_workspace::http::{Client, Served};
use hoody_state_workspace::{MemoryWorld, container, furnish, median, ms, scratch, snapshot};

const ROUNDS: usize = 25;

fn main() {
    let nodes: usize = std::env::var("HOODY_BENCH_NODES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let world = MemoryWorld::new();
    let host = world.host();
    let c = container(&host, &furnish(&host), "bench").unwrap();
    for n in 0..nodes - 2 {
        snapshot(&host, &c, &format!("s{n}")).unwrap();
    }
    let dir = scratch("bench-timeline");
    let served = Served::new(host, &dir.join("api.sock"));
    let mut client = served.client();
    let path = |query: &str| format!("/containers/{c}/timeline?{query}");
    let timed = |client: &mut Client, path: &str| {
        let took = median((0..ROUNDS).map(|_| ms(|| drop(client.good("GET", path, None)))).collect());
        let answer = client.good("GET", path, None);
        let known = answer["data"]["nodes"].as_array().unwrap().iter().filter(|n| n["frees_bytes"].is_u64()).count();
        (took, answer["data"]["nodes"].as_array().unwrap().len(), known)
    };
    println!("| what | median | nodes in the answer, with what they would free |\n| --- | --- | --- |");
    for (what, query) in [("the first page of 100", "limit=100"), ("a page of 1,000", "limit=1000"), ("all nodes in one answer", "limit=10000")] {
        let (took, n, known) = timed(&mut client, &path(query));
        println!("| {what} of {nodes} nodes | {took:.1} ms | {n}, {known} |");
    }
    let middle = client.good("GET", &path(&format!("limit={}", nodes / 2)), None)["data"]["next_cursor"].as_str().unwrap().to_owned();
    let (took, n, known) = timed(&mut client, &path(&format!("limit=100&cursor={middle}")));
    println!("| a page of 100 in the middle | {took:.1} ms | {n}, {known} |");
    drop(served);
    let _ = std::fs::remove_dir_all(dir);
}
