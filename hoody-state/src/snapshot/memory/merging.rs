//! Taking changes over from one volume in memory to another: by paths, for there are no directories, no links and no metadata.

use super::MemoryStore;
use crate::diff::merge::Step;
use crate::error::{Error, Result};
use crate::snapshot::{Mergeable, Volume};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Mergeable for MemoryStore {
    fn equal(&self, a: (&Volume, &[u8]), b: (&Volume, &[u8])) -> Result<bool> {
        let s = self.state();
        let data = |(v, path): (&Volume, &[u8])| Ok::<_, Error>(s.get(v)?.files.get(&text(path)).map(|f| Arc::clone(&f.data)));
        Ok(data(a)? == data(b)?)
    }

    /// There are no directories here: of theirs there are no steps.
    fn apply(&self, steps: &[Step], from: &Volume, to: &Volume, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
        let source = self.state().get(from)?.files.clone();
        let mut out = BTreeMap::new();
        for step in steps {
            go_on()?;
            let mut s = self.state();
            let entry = s.writable(to)?;
            let mut copy = |from: &[u8], to: &[u8]| entry.files.extend(source.get(&text(from)).map(|f| (text(to), f.clone())));
            match step {
                Step::Create { from, to } | Step::Set { from, to, .. } => copy(from, to),
                Step::Mirror { path } => {
                    copy(path, path);
                    entry.files.retain(|p, _| *p != text(path) || source.contains_key(p));
                }
                Step::Remove { at } => drop(entry.files.remove(&text(at))),
                Step::TakeOut { at, number } => out.extend(entry.files.remove(&text(at)).map(|f| (*number, f))),
                Step::PutBack { number, to } => entry.files.extend(out.remove(number).map(|f| (text(to), f))),
                Step::Link { of, to } => {
                    let file = entry.files.get(&text(of)).cloned();
                    entry.files.extend(file.map(|f| (text(to), f)));
                }
            }
        }
        Ok(())
    }
}

/// A path of a step as this store has it.
fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
