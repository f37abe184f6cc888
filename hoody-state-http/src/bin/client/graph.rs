//! Draws how entries come from each other, with characters: a column for each line of descent, newest first.

use crate::style::{Look, Style};

/// The drawing of one entry, in the order of its lines.
pub struct Drawn {
    /// Lines that lead to the entry, where lines of descent meet.
    pub before: Vec<String>,
    /// What stands before the entry.
    pub first: String,
    /// Lines below it, where it comes from several others.
    pub after: Vec<String>,
    /// What stands before the entry's further lines.
    pub rest: String,
}

/// The columns: what each waits for.
#[derive(Default)]
pub struct Graph {
    columns: Vec<Option<String>>,
}

impl Graph {
    /// Draws the next entry.
    pub fn entry(&mut self, style: Style, mark: char, id: &str, parents: &[String]) -> Drawn {
        let waiting: Vec<usize> = self.columns.iter().enumerate().filter(|(_, c)| c.as_deref() == Some(id)).map(|(i, _)| i).collect();
        let column = waiting.first().copied().unwrap_or_else(|| self.free());
        let mut before = Vec::new();
        for other in waiting.iter().skip(1) {
            before.push(self.joint(style, column, *other, '/'));
            self.columns[*other] = None;
        }
        self.columns[column] = Some(id.to_owned());
        let first = self.line(style, Some((column, mark)));
        self.columns[column] = parents.first().cloned();
        let mut after = Vec::new();
        for p in parents.iter().skip(1) {
            let known = self.columns.iter().position(|c| c.as_deref() == Some(p.as_str()));
            let to = known.unwrap_or_else(|| self.free());
            self.columns[to] = Some(p.clone());
            let (low, high) = (column.min(to), column.max(to));
            after.push(self.joint(style, low, high, if to > column { '\\' } else { '/' }));
        }
        let rest = self.line(style, None);
        while self.columns.last().is_some_and(Option::is_none) {
            self.columns.pop();
        }
        Drawn { before, first, rest, after }
    }

    /// The line after the last entry that is shown, if there are older ones.
    pub fn open_end(&self, style: Style) -> Option<String> {
        self.columns.iter().any(Option::is_some).then(|| self.line(style, None))
    }

    fn free(&mut self) -> usize {
        self.columns.iter().position(Option::is_none).unwrap_or_else(|| {
            self.columns.push(None);
            self.columns.len() - 1
        })
    }

    fn line(&self, style: Style, mark: Option<(usize, char)>) -> String {
        let cell = |i: usize, c: &Option<String>| match mark {
            Some((at, mark)) if at == i => style.paint(Look::Kind, &mark.to_string()),
            _ if c.is_some() => style.paint(Look::Lane(i), "|"),
            _ => " ".to_owned(),
        };
        let cells: Vec<String> = self.columns.iter().enumerate().map(|(i, c)| cell(i, c)).collect();
        let used = self.columns.iter().rposition(Option::is_some).map_or(0, |n| n + 1).max(mark.map_or(0, |(i, _)| i + 1));
        cells[..used.min(cells.len())].join(" ")
    }

    /// A line on which column `high` leans over to column `low`.
    fn joint(&self, style: Style, low: usize, high: usize, slash: char) -> String {
        let mut out = String::new();
        let last = self.columns.iter().rposition(Option::is_some).unwrap_or(0).max(high);
        for i in 0..=last {
            let bar = self.columns.get(i).is_some_and(Option::is_some) && i != high;
            let under = i > low && i < high;
            out.push_str(&match (bar, under) {
                (true, _) => style.paint(Look::Lane(i), "|"),
                (false, true) => style.paint(Look::Lane(high), "_"),
                (false, false) => " ".to_owned(),
            });
            let between = match () {
                () if i + 1 == high => slash,
                () if i >= low && i + 1 < high => '_',
                () => ' ',
            };
            out.push_str(&if between == ' ' { " ".to_owned() } else { style.paint(Look::Lane(high), &between.to_string()) });
        }
        out.trim_end().to_owned()
    }
}
