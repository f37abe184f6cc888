//! kill -9 of the real server: before every step of every operation, and at random instants under load. After the restart `check` is silent, nothing
//! is left over, nothing acknowledged is lost, every container does what it did, and those that nobody touched have not noticed.
//!
//! Needs root, BTRFS, a loop device, runc and a static busybox. `HOODY_KILLS=200` for the long run of random kills (default 30),
//! `HOODY_SEED=N` to repeat one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod copies;
mod forks;
mod inotify;
mod leftovers;
mod outside;
mod random;
mod rng;
mod schedules;
mod server;
mod shares;
mod steps;
mod unmount;
mod world;

use world::{World, new_container};

fn stage(name: &str) -> (World, String) {
    let w = World::new(name);
    let c = w.create(&new_container("agent"));
    w.write(&c, "first");
    w.snapshot(&c, "first");
    (w, c)
}

#[test]
fn before_every_step_of_snapshots_and_images() {
    let (mut w, c) = stage("kill-snapshots");
    steps::snapshots(&mut w, &c);
    steps::images(&mut w, &c);
    w.end();
}

#[test]
fn before_every_step_of_restores() {
    let (mut w, c) = stage("kill-restores");
    steps::restores(&mut w, &c);
    w.end();
}

#[test]
fn before_every_step_of_restores_of_files() {
    let (mut w, c) = stage("kill-files");
    steps::restored_files(&mut w, &c);
    w.end();
}

#[test]
fn before_every_step_of_operations_with_databases() {
    let (mut w, _) = stage("kill-databases");
    steps::with_databases(&mut w);
    w.end();
}

#[test]
fn before_every_step_of_lifecycles_and_containers() {
    let (mut w, c) = stage("kill-containers");
    steps::lifecycle(&mut w, &c);
    steps::containers(&mut w);
    w.end();
}

#[test]
fn before_every_step_of_copies_and_syncs() {
    let (mut w, c) = stage("kill-copies");
    copies::copies(&mut w, &c);
    w.end();
}

#[test]
fn before_every_step_of_promotions_and_resets() {
    let (mut w, c) = stage("kill-forks");
    forks::forks(&mut w, &c);
    w.end();
}

#[test]
fn before_every_step_of_a_scheduled_snapshot() {
    let (mut w, c) = stage("kill-schedules");
    schedules::scheduled(&mut w, &c);
    w.end();
}

#[test]
fn at_random_instants_under_load() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap_or_else(|_| panic!("{name}={v} is no number")));
    let seed = number("HOODY_SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
    random::kills(World::new("kill-random"), number("HOODY_KILLS").unwrap_or(30), seed);
}

#[test]
fn at_random_instants_while_shares_change() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap_or_else(|_| panic!("{name}={v} is no number")));
    let seed = number("HOODY_SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
    shares::kills(World::new("kill-shares"), number("HOODY_KILLS").unwrap_or(9), seed);
}

#[test]
fn a_server_starts_checks_stops_and_unmounts_without_inotify() {
    inotify::a_servers_life_without();
}

#[test]
fn in_the_middle_of_an_unmount() {
    unmount::kills(6);
}

#[test]
fn clients_without_a_token_neither_delay_root_nor_use_up_memory() {
    outside::clients_without_a_token_neither_delay_root_nor_use_up_memory();
}

#[test]
fn a_token_revoked_by_another_process_ends_what_is_open() {
    outside::a_token_revoked_by_another_process_ends_what_is_open();
}

#[test]
fn a_command_ends_with_its_caller() {
    outside::a_command_ends_with_its_caller();
}

#[test]
fn a_plain_user_of_the_host_reaches_nothing_of_run() {
    outside::a_plain_user_of_the_host_reaches_nothing_of_run();
}
