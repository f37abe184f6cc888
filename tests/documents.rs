//! Documents name what is there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

/// The tests that a text names as `path/to/file.rs::test`.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    text.split('`').filter_map(|word| word.split_once(".rs::")).filter(|(_, test)| test.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages beside README.md, those of `docs/`, and those of its directories.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut directories = vec![root().join("docs")];
    pages.extend(pages_in(root()));
    while let Some(directory) = directories.pop() {
        pages.extend(pages_in(&directory));
        directories.extend(entries(&directory).into_iter().filter(|path| path.is_dir()));
    }
    pages
}

fn pages_in(directory: &Path) -> Vec<PathBuf> {
    entries(directory).into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let mut in_block = false;
    let mut anchors = Vec::new();
    for line in page.lines() {
        in_block ^= line.starts_with("```");
        if !in_block && line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            anchors.push(heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

#[test]
fn every_test_behind_a_guarantee_exists() {
    let text = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let named = named_tests(&text);
    assert!(named.len() > 30, "{}", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(file, test)| !std::fs::read_to_string(root().join(format!("{file}.rs"))).is_ok_and(|source| source.contains(&format!("fn {test}("))))
        .collect();
    assert!(missing.is_empty(), "docs/guarantees.md names tests that do not exist: {missing:?}");
}

/// A file of the source that a page names in backticks, such as `tests/crash.rs` or `hoody-state/src/op/`.
#[test]
fn every_file_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = std::fs::read_to_string(page).unwrap();
        let words = text.split('`').skip(1).step_by(2);
        let paths = words.filter(|word| ["tests/", "docs/", "scripts/", "examples/", "hoody-state"].iter().any(|start| word.starts_with(start)));
        let paths = paths.filter_map(|word| word.split("::").next()).filter(|word| word.contains('/') && !word.contains(['*', ' ', '<', '\n']));
        missing.extend(paths.filter(|path| !root().join(path).exists()).map(|path| format!("{}: {path}", page.display())));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let there = target.exists() && (anchor.is_empty() || anchors(&std::fs::read_to_string(&target).unwrap()).iter().any(|a| a == anchor));
            if !there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
