//! The list of layers in ARCHITECTURE.md: a block marked `layers`, lowest first.
//!
//! A line is a layer, a word in it a module with its backends in brackets. `*` marks the modules that may name backends of others.

use std::collections::BTreeMap;
use std::path::Path;

pub struct Layers {
    /// The layer of each module.
    level: BTreeMap<String, usize>,
    /// `module/backend`.
    backends: Vec<String>,
    /// They may name any backend.
    assemblers: Vec<String>,
}

impl Layers {
    pub fn read(document: &Path) -> Self {
        let text = std::fs::read_to_string(document).unwrap();
        let (_, rest) = text.split_once("```layers\n").expect("ARCHITECTURE.md has a block marked `layers`");
        Self::parse(rest.split_once("```").expect("the block ends").0)
    }

    pub fn parse(text: &str) -> Self {
        let mut layers = Layers { level: BTreeMap::new(), backends: Vec::new(), assemblers: Vec::new() };
        for (level, line) in text.lines().filter(|l| !l.trim().is_empty()).enumerate() {
            let mut depth = 0;
            let apart = |c: char| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0 && c.is_whitespace()
            };
            for entry in line.split(apart).filter(|e| !e.is_empty()) {
                layers.add(entry, level);
            }
        }
        layers
    }

    /// `module`, `module*` or `module(backend, backend)`.
    fn add(&mut self, entry: &str, level: usize) {
        let (name, backends) = entry.split_once('(').unwrap_or((entry, ""));
        let module = name.trim_end_matches('*');
        if module != name {
            self.assemblers.push(module.to_owned());
        }
        let backends = backends.trim_end_matches(')').split(',').map(str::trim).filter(|b| !b.is_empty());
        self.backends.extend(backends.map(|b| format!("{module}/{b}")));
        assert!(self.level.insert(module.to_owned(), level).is_none(), "the list of layers has {module} twice");
    }

    pub fn has(&self, module: &str) -> bool {
        self.level.contains_key(module)
    }

    /// Every module and every backend, as a path.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.level.keys().chain(&self.backends).map(String::as_str)
    }

    /// The module or the backend that a path `module::inner::item` belongs to.
    pub fn part(&self, path: &str) -> String {
        let mut words = path.split("::");
        let module = words.next().unwrap_or_default();
        let backend = format!("{module}/{}", words.next().unwrap_or_default());
        if self.backends.contains(&backend) { backend } else { module.to_owned() }
    }

    /// Why `from` must not use `to`.
    pub fn objection(&self, from: &str, to: &str) -> Option<&'static str> {
        let module = |part: &str| part.split('/').next().unwrap_or_default().to_owned();
        let (above, below) = (module(from), module(to));
        if from == to || (from.contains('/') && above == to) {
            return None;
        }
        if to.contains('/') && !self.assemblers.contains(&above) {
            return Some("a backend is used only by what puts a host together");
        }
        (self.level[&above] <= self.level[&below]).then_some("a module uses only layers below its own")
    }
}
