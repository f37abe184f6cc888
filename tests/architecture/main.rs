//! The structure of the code: the library's modules use one another as ARCHITECTURE.md lists, and files and functions stay short.
//!
//! What does not hold yet is in `exceptions.rs`. An exception that is no longer needed fails the test too, so that list only gets shorter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod exceptions;
mod imports;
mod layers;
mod sizes;

use layers::Layers;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares what was found with the exceptions; both directions fail.
fn only_exceptions(what: &str, found: &BTreeMap<String, String>, exceptions: &[&str]) {
    let allowed: BTreeSet<&str> = exceptions.iter().copied().collect();
    let new: Vec<String> = found.iter().filter(|(key, _)| !allowed.contains(key.as_str())).map(|(key, detail)| format!("{key}: {detail}")).collect();
    assert!(new.is_empty(), "{what}:\n  {}", new.join("\n  "));
    let gone: Vec<&&str> = allowed.iter().filter(|key| !found.contains_key(**key)).collect();
    assert!(gone.is_empty(), "no longer needed: take these out of tests/architecture/exceptions.rs ({what}): {gone:#?}");
}

/// The layers are an order, and each use goes down it: so there are no cycles between modules either.
#[test]
fn the_library_uses_its_modules_as_the_list_of_layers_allows() {
    let layers = Layers::read(&root().join("ARCHITECTURE.md"));
    let library = imports::read(&root().join("hoody-state/src/lib.rs"));
    let unlisted: Vec<_> = library.top_level.iter().filter(|m| !layers.has(m)).collect();
    assert!(unlisted.is_empty(), "ARCHITECTURE.md has no layer for these modules: {unlisted:?}");
    let missing = layers.modules().filter(|m| !library.has(m)).map(|m| (m.to_owned(), "it does not exist".to_owned())).collect();
    only_exceptions("ARCHITECTURE.md lists modules that do not exist", &missing, exceptions::MISSING_MODULES);
    let mut wrong = BTreeMap::new();
    for used in &library.uses {
        let (from, to) = (layers.part(&used.from), layers.part(&used.to));
        if let Some(reason) = layers.objection(&from, &to) {
            let places: &mut String = wrong.entry(format!("{from} -> {to}")).or_insert_with(|| format!("{reason}; at"));
            let place = format!(" {}:{}", used.file, used.line);
            if places.len() < 300 && !places.ends_with(&place) {
                places.push_str(&place);
            }
        }
    }
    assert!(library.uses.len() > 500, "only {} uses found: the reader of sources is broken", library.uses.len());
    only_exceptions("a module uses what its layer must not use", &wrong, exceptions::USES);
}

/// The modules that `from` uses, directly or through others.
fn reachable<'a>(files: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&str> = files.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = next.pop() {
        if seen.insert(file) {
            next.extend(files.get(file).into_iter().flatten());
        }
    }
    seen
}

#[test]
fn no_file_of_the_library_uses_itself_through_others() {
    let library = imports::read(&root().join("hoody-state/src/lib.rs"));
    let files = library.files();
    assert!(files.len() > 100, "only {} files use another", files.len());
    let uses: BTreeMap<&str, BTreeSet<&str>> = files.keys().map(|f| (*f, reachable(&files, f))).collect();
    let in_cycle = |file: &str| uses[file].iter().filter(|other| uses.get(*other).is_some_and(|o| o.contains(file))).copied().collect::<Vec<_>>();
    let cycles = uses.keys().map(|f| (*f, in_cycle(f))).filter(|(_, others)| !others.is_empty());
    let cycles = cycles.map(|(f, others)| (f.to_owned(), format!("in a cycle with {}", others.join(", ")))).collect();
    only_exceptions("files use each other in a cycle", &cycles, exceptions::CYCLES);
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let long = sizes::files(root()).into_iter().filter(|f| f.lines > 500).map(|f| (f.name, format!("{} lines", f.lines))).collect();
    only_exceptions("files of more than 500 lines", &long, exceptions::LONG_FILES);
}

#[test]
fn no_function_is_longer_than_80_lines() {
    let mut long = BTreeMap::new();
    for file in sizes::files(root()) {
        for f in sizes::functions(&file) {
            if f.lines > 80 {
                long.insert(format!("{}::{}", file.name, f.name), format!("{} lines, from line {}", f.lines, f.from));
            }
        }
    }
    only_exceptions("functions of more than 80 lines", &long, exceptions::LONG_FUNCTIONS);
}

#[test]
fn the_test_sees_what_it_forbids() {
    let layers = Layers::parse("low\nstore(disk, memory) clock(fake)\nhigh\nmachine*\n");
    let objects = |from: &str, to: &str| layers.objection(from, to).is_some();
    for (from, to) in [("high", "store"), ("store/disk", "low"), ("store/disk", "store"), ("machine", "store/disk"), ("high", "high")] {
        assert!(!objects(from, to), "{from} may use {to}");
    }
    for (from, to) in
        [("low", "high"), ("store", "clock"), ("store", "store/disk"), ("store/disk", "store/memory"), ("store/disk", "clock/fake"), ("high", "store/disk")]
    {
        assert!(objects(from, to), "{from} must not use {to}");
    }
    let source = "use crate::{a::B, c::d::{self, E}}; #[cfg(test)] mod tests { use crate::hidden; } fn f() { super::g(); d::deep(); \"crate::no\" } mod inner { fn h() { super::super::k(); } }";
    let seen: BTreeSet<String> = imports::paths(source, &["m", "n"]).into_iter().collect();
    let expected = ["a::B", "c::d", "c::d::E", "m::g", "c::d::deep", "m::k"].map(String::from);
    assert_eq!(seen, BTreeSet::from(expected));
    let long = format!("fn a() {{\n{}}}\nfn b() {{}}\n", "    x();\n".repeat(79));
    let lines: Vec<_> = sizes::functions_of(&long).into_iter().map(|f| (f.name, f.lines)).collect();
    assert_eq!(lines, [("a".to_owned(), 81), ("b".to_owned(), 1)]);
}
