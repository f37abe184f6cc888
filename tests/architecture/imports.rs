//! What the files of a crate use of each other: every path that leads to another module of the crate, in `use` lines and in code.
//!
//! Modules are followed from `lib.rs` by their `mod` lines. What is compiled for tests alone (`#[cfg(test)]`) is left out.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A path in the code: `from` is the module that has it, `to` what it names, both from the root of the crate: `snapshot::btrfs::send`.
pub struct Use {
    pub from: String,
    pub to: String,
    pub file: String,
    pub line: usize,
    /// It is a `pub use`: the name is passed on.
    exported: bool,
}

pub struct Library {
    pub top_level: BTreeSet<String>,
    modules: BTreeSet<String>,
    pub uses: Vec<Use>,
}

impl Library {
    /// Whether there is such a module: `snapshot` or `snapshot/btrfs`.
    pub fn has(&self, module: &str) -> bool {
        self.modules.contains(&module.replace('/', "::"))
    }

    /// For each file, the files that it uses. A name that a module only passes on (`pub use`) counts for the file that has it. What a file uses of a module that
    /// it is a part of is left out: a module and its parts know each other.
    pub fn files(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let passed_on: BTreeMap<String, &str> =
            self.uses.iter().filter(|u| u.exported).map(|u| (format!("{}::{}", u.from, last(&u.to)), u.to.as_str())).collect();
        let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for used in self.uses.iter().filter(|u| !u.exported) {
            let mut to = used.to.clone();
            // A name may be passed on more than once.
            for _ in 0..3 {
                let passed = passed_on.iter().find(|(name, _)| to == **name || to.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with("::")));
                if let Some((name, there)) = passed {
                    to = format!("{there}{}", &to[name.len()..]);
                }
            }
            let (from, to) = (self.file_of(&used.from), self.file_of(&to));
            if from != to && !from.starts_with(&format!("{to}::")) {
                files.entry(from).or_default().insert(to);
            }
        }
        files
    }

    /// The module with a file of its own that a path leads into.
    fn file_of(&self, path: &str) -> &str {
        let mut at = path;
        loop {
            if let Some(module) = self.modules.get(at) {
                return module;
            }
            at = at.rsplit_once("::").expect("every path begins with a module").0;
        }
    }
}

/// Reads a crate.
pub fn read(root: &Path) -> Library {
    let mut reader = Reader::default();
    let dir = root.parent().unwrap();
    reader.file(root, dir, &[]);
    let modules = reader.modules;
    let top_level = modules.iter().filter(|m| !m.contains("::")).cloned().collect();
    // `crate::Error` is what the root re-exports from `error`.
    let exports: BTreeMap<String, String> = reader.uses.iter().filter(|u| u.from.is_empty()).map(|u| (last(&u.to).to_owned(), u.to.clone())).collect();
    let uses = reader.uses.into_iter().filter(|u| !u.from.is_empty()).map(|u| match exports.get(first(&u.to)) {
        Some(to) if !modules.contains(first(&u.to)) => Use { to: to.clone(), ..u },
        _ => u,
    });
    let uses: Vec<Use> = uses.collect();
    let lost: Vec<_> = uses.iter().filter(|u| !modules.contains(first(&u.to))).map(|u| format!("{}:{} {}", u.file, u.line, u.to)).collect();
    assert!(lost.is_empty(), "paths that lead to no module: {lost:#?}");
    Library { top_level, uses, modules }
}

/// The paths in a source text of a module, for a test of this reader.
pub fn paths(source: &str, module: &[&str]) -> Vec<String> {
    let mut reader = Reader::default();
    reader.source(source, "", &PathBuf::new(), &module.iter().map(|&m| m.to_owned()).collect::<Vec<_>>());
    reader.uses.into_iter().map(|u| u.to).collect()
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or_default()
}

#[derive(Default)]
struct Reader {
    modules: BTreeSet<String>,
    uses: Vec<Use>,
}

/// What is known while a file is read.
struct Scope<'a> {
    file: &'a str,
    /// Where the modules that the file declares are.
    dir: PathBuf,
    module: Vec<String>,
    /// What the names that the file imports or declares stand for.
    names: BTreeMap<String, Vec<String>>,
}

impl Reader {
    fn file(&mut self, path: &Path, dir: &Path, module: &[String]) {
        let source = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display().to_string();
        self.source(&source, &name, dir, module);
    }

    fn source(&mut self, source: &str, file: &str, dir: &Path, module: &[String]) {
        let tokens: TokenStream = source.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut scope = Scope { file, dir: dir.to_owned(), module: module.to_vec(), names: BTreeMap::new() };
        names(&tokens, &mut scope);
        self.tokens(tokens, &mut scope);
    }

    fn tokens(&mut self, tokens: TokenStream, scope: &mut Scope) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut i = 0;
        while i < tokens.len() {
            i += match &tokens[i..] {
                [TokenTree::Punct(p), TokenTree::Group(g), rest @ ..] if p.as_char() == '#' && is_for_tests(g) => 2 + item(rest),
                [TokenTree::Ident(word), TokenTree::Ident(name), rest @ ..] if word == "mod" => 2 + self.module(&name.to_string(), rest.first(), scope),
                [TokenTree::Ident(word), rest @ ..] if word == "use" => {
                    let exported = match &tokens[..i] {
                        [.., TokenTree::Ident(word)] | [.., TokenTree::Ident(word), TokenTree::Group(_)] => word == "pub",
                        _ => false,
                    };
                    for (path, line) in tree(&rest[..statement(rest)]) {
                        self.add(&path, line, exported, scope);
                    }
                    1 + statement(rest)
                }
                [TokenTree::Ident(_), ..] => {
                    let (path, line, length) = path(&tokens[i..]);
                    // A macro of the crate is at its root, wherever it is written.
                    let is_macro = matches!(tokens.get(i + length), Some(TokenTree::Punct(p)) if p.as_char() == '!');
                    if path.len() > 1 && !is_macro {
                        self.add(&path, line, false, scope);
                    }
                    length
                }
                // The rest of `a.b::<T>()` and of `<T as Trait>::name` is no path of its own.
                [TokenTree::Punct(a), TokenTree::Punct(b), TokenTree::Ident(_), ..] if a.as_char() == ':' && b.as_char() == ':' => 3,
                [TokenTree::Group(g), ..] => {
                    self.tokens(g.stream(), scope);
                    1
                }
                _ => 1,
            };
        }
    }

    /// A module in a file of its own or in place; how many tokens its body is.
    fn module(&mut self, name: &str, body: Option<&TokenTree>, scope: &mut Scope) -> usize {
        let mut module = scope.module.clone();
        module.push(name.to_owned());
        let inside = scope.dir.join(name);
        match body {
            Some(TokenTree::Group(g)) => {
                let mut inner = Scope { file: scope.file, dir: inside, module, names: BTreeMap::new() };
                names(&g.stream(), &mut inner);
                self.tokens(g.stream(), &mut inner);
            }
            _ => {
                self.modules.insert(module.join("::"));
                let candidates = [scope.dir.join(format!("{name}.rs")), inside.join("mod.rs")];
                if let Some(path) = candidates.iter().find(|p| p.exists()) {
                    self.file(path, &inside, &module);
                }
            }
        }
        1
    }

    fn add(&mut self, path: &[String], line: usize, exported: bool, scope: &Scope) {
        if let Some(to) = resolve(path, scope).filter(|to| !to.is_empty()) {
            self.uses.push(Use { from: scope.module.join("::"), to: to.join("::"), file: scope.file.to_owned(), line, exported });
        }
    }
}

/// A path from the root of the crate, if it leads to the crate at all.
fn resolve(path: &[String], scope: &Scope) -> Option<Vec<String>> {
    let (start, mut rest) = path.split_first()?;
    let mut at = match start.as_str() {
        "crate" => Vec::new(),
        "self" => scope.module.clone(),
        "super" => scope.module[..scope.module.len().saturating_sub(1)].to_vec(),
        name => scope.names.get(name)?.clone(),
    };
    while let [word, tail @ ..] = rest
        && word == "super"
    {
        at.pop();
        rest = tail;
    }
    at.extend(rest.iter().filter(|word| *word != "self").cloned());
    Some(at)
}

/// Notes the modules that a file declares, and the names that its `use` lines give to parts of the crate.
fn names(tokens: &TokenStream, scope: &mut Scope) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut imported = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match &tokens[i..] {
            [TokenTree::Ident(word), TokenTree::Ident(name), ..] if word == "mod" => {
                let mut module = scope.module.clone();
                module.push(name.to_string());
                scope.names.insert(name.to_string(), module);
            }
            [TokenTree::Ident(word), rest @ ..] if word == "use" => imported.extend(tree(&rest[..statement(rest)])),
            _ => {}
        }
        if let TokenTree::Group(g) = token
            && g.delimiter() == Delimiter::Brace
            && !matches!(&tokens[..i], [.., TokenTree::Ident(word), TokenTree::Ident(_)] if word == "mod")
        {
            names(&g.stream(), scope);
        }
    }
    for (path, _) in imported {
        if let Some(to) = resolve(&path, scope)
            && let Some(name) = to.last()
        {
            scope.names.entry(name.clone()).or_insert(to);
        }
    }
}

/// The paths of a `use` line, groups taken apart. What follows `as` is left out.
fn tree(tokens: &[TokenTree]) -> Vec<(Vec<String>, usize)> {
    let mut all = Vec::new();
    for part in tokens.split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')) {
        let mut words = Vec::new();
        let mut line = 0;
        let mut group = None;
        for token in part {
            match token {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) => {
                    line = word.span().start().line;
                    words.push(word.to_string());
                }
                TokenTree::Group(g) => group = Some(g),
                _ => {}
            }
        }
        match group {
            Some(g) => all.extend(tree(&g.stream().into_iter().collect::<Vec<_>>()).into_iter().map(|(tail, line)| ([words.clone(), tail].concat(), line))),
            None if !words.is_empty() => all.push((words, line)),
            None => {}
        }
    }
    all
}

/// The path at the start of `tokens`, its line, and how many tokens it is.
fn path(tokens: &[TokenTree]) -> (Vec<String>, usize, usize) {
    let mut words = Vec::new();
    let mut i = 0;
    let line = tokens[0].span().start().line;
    while let Some(TokenTree::Ident(word)) = tokens.get(i) {
        words.push(word.to_string());
        i += 1;
        match &tokens[i..] {
            [TokenTree::Punct(a), TokenTree::Punct(b), TokenTree::Ident(_), ..] if a.as_char() == ':' && b.as_char() == ':' => i += 2,
            _ => break,
        }
    }
    (words, line, i)
}

/// How many tokens there are before the next `;`.
fn statement(tokens: &[TokenTree]) -> usize {
    tokens.iter().position(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ';')).unwrap_or(tokens.len())
}

/// How many tokens an item is: to its `;` or the end of its body.
fn item(tokens: &[TokenTree]) -> usize {
    let is_end = |t: &TokenTree| match t {
        TokenTree::Punct(p) => p.as_char() == ';',
        TokenTree::Group(g) => g.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
}

fn is_for_tests(attribute: &Group) -> bool {
    attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}
