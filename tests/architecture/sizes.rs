//! How long files and functions are.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::path::{Path, PathBuf};

pub struct File {
    /// Its path in the repository.
    pub name: String,
    path: PathBuf,
    pub lines: usize,
}

pub struct Function {
    pub name: String,
    /// The line of its `fn`.
    pub from: usize,
    /// From there to the end of its body.
    pub lines: usize,
}

/// Every Rust file of the workspace, tests and benches included.
pub fn files(root: &Path) -> Vec<File> {
    let mut todo: Vec<PathBuf> =
        ["hoody-state", "hoody-state-http", "hoody-state-fuse", "tests", "benches", "examples", "fuzz/fuzz_targets"].map(|d| root.join(d)).into();
    let mut all = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).filter(|p| !p.ends_with("target")));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            all.push(File { name: path.strip_prefix(root).unwrap().display().to_string(), path, lines });
        }
    }
    assert!(all.len() > 300, "only {} files found", all.len());
    all
}

pub fn functions(file: &File) -> Vec<Function> {
    functions_of(&std::fs::read_to_string(&file.path).unwrap())
}

pub fn functions_of(source: &str) -> Vec<Function> {
    let mut all = Vec::new();
    collect(source.parse().unwrap(), &mut all);
    all
}

fn collect(tokens: TokenStream, all: &mut Vec<Function>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (i, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            collect(group.stream(), all);
        }
        // `fn` of a function pointer's type has no name.
        let [TokenTree::Ident(keyword), TokenTree::Ident(name), rest @ ..] = &tokens[i..] else { continue };
        if keyword != "fn" {
            continue;
        }
        let body = rest.iter().take_while(|t| !matches!(t, TokenTree::Punct(p) if p.as_char() == ';')).find_map(|t| match t {
            TokenTree::Group(g) if g.delimiter() == Delimiter::Brace => Some(g),
            _ => None,
        });
        if let Some(body) = body {
            let from = keyword.span().start().line;
            all.push(Function { name: name.to_string(), from, lines: body.span_close().end().line + 1 - from });
        }
    }
}
