//! What several rounds of two directories come to: medians, the spread of the ratio, the worst transaction, errors.

use crate::case::{Case, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The rounds of one case, on the first directory and on the second.
#[derive(Default)]
struct Rounds(Vec<(Outcome, Outcome)>);

/// The cases, in the order in which they were first run.
#[derive(Default)]
pub struct Table(BTreeMap<usize, (String, Rounds)>);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// `12345` as `12,345`.
fn thousands(n: f64) -> String {
    let digits = format!("{n:.0}");
    let from = |i: usize| (digits.len() - i).is_multiple_of(3) && i > 0;
    digits.chars().enumerate().fold(String::new(), |mut out, (i, c)| {
        if from(i) {
            out.push(',');
        }
        out.push(c);
        out
    })
}

impl Table {
    pub fn add(&mut self, at: usize, case: &Case, first: Outcome, second: Outcome) {
        let name = format!("{} | {}, {} | {}", case.pattern, case.journal, case.synchronous, case.processes * case.threads);
        self.0.entry(at).or_insert_with(|| (name, Rounds::default())).1.0.push((first, second));
    }

    /// As Markdown.
    pub fn text(&self) -> String {
        let mut out = String::from(
            "| pattern | journal, synchronous | N | first /s | second /s | ratio | worst | errors |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (name, Rounds(rounds)) in self.0.values() {
            let of = |f: &dyn Fn(&(Outcome, Outcome)) -> f64| rounds.iter().map(f).collect::<Vec<f64>>();
            let ratios = of(&|(a, b)| b.per_second() / a.per_second());
            let (least, most) = ratios.iter().fold((f64::MAX, 0.0_f64), |(l, m), r| (l.min(*r), m.max(*r)));
            let worst = |f: &dyn Fn(&(Outcome, Outcome)) -> f64| of(f).into_iter().fold(0.0, f64::max) / 1000.0;
            let _ = writeln!(
                out,
                "| {name} | {} | {} | {:.2} ({least:.2}–{most:.2}) | {:.0} / {:.0} ms | {} / {} |",
                thousands(median(of(&|(a, _)| a.per_second()))),
                thousands(median(of(&|(_, b)| b.per_second()))),
                median(ratios),
                worst(&|(a, _)| a.worst_us()),
                worst(&|(_, b)| b.worst_us()),
                thousands(of(&|(a, _)| a.errors()).iter().sum()),
                thousands(of(&|(_, b)| b.errors()).iter().sum()),
            );
        }
        out
    }
}
