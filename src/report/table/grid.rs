//! The two writers of a table of text. They know columns and widths, not what they mean, and the long words that rows have in common.

use super::super::{Style, text};
use crate::grid::Grid;

/// Long words, what stands for them where room is short, and what that means where it is not plain: it is told under the table.
const SHORT: [(&str, &str, Option<&str>); 8] = [
    // The column `check` says it.
    (", suspect", "", None),
    ("compute (vector)", "compute", None),
    (" + ", "+", None),
    ("unexplained", "unexpl.", Some("unexplained")),
    ("parallelism", "parall.", Some("parallelism")),
    (" queries a key", " q/k", Some("queries a key")),
    ("heads of ", "d ", Some("elements of a head")),
    ("not measured", "n/m", Some("not measured")),
];

/// Columns that a cell is cut to where nothing is left to drop.
const FLOOR: usize = 7;
/// The widest terminal that is written for.
const WIDEST: usize = 240;

/// How a grid fits a width.
struct Layout {
    /// Column and its width.
    shown: Vec<(usize, usize)>,
    dropped: Vec<&'static str>,
    gap: usize,
    /// What was said in fewer letters, and what it means.
    short: Vec<(&'static str, &'static str)>,
    /// Columns of a terminal that has room for all.
    needed: usize,
}

impl Grid {
    /// Aligned text, no line wider than `style.width`.
    pub fn terminal(mut self, style: &Style) -> String {
        for cell in self.rows.iter_mut().flatten() {
            *cell = text::plain(cell, style.ascii);
        }
        let layout = self.layout(style.width);
        let line = |cells: Vec<&str>| {
            let cell = |&(column, room): &(usize, usize)| {
                let fit = if self.columns[column].tail { text::fit_middle } else { text::fit };
                text::pad(&fit(cells[column], room, style.ascii), room, self.columns[column].right)
            };
            let joined = layout.shown.iter().map(cell).collect::<Vec<_>>().join(&" ".repeat(layout.gap));
            // Even the columns that must stay can be too much for a very narrow terminal.
            text::fit(joined.trim_end(), style.width, style.ascii)
        };
        let head = line(self.columns.iter().map(|c| c.title).collect());
        let rule = "-".repeat(text::width(&head).max(self.width_of(&layout)).min(style.width));
        let mut out = format!("{}\n{rule}\n", paint(&head, "1", style.colour));
        for row in &self.rows {
            out += &colour_words(&line(row.iter().map(String::as_str).collect()), style.colour);
            out.push('\n');
        }
        for note in layout.notes() {
            out += &text::wrap(&note, style.width, 1, style.ascii);
            out.push('\n');
        }
        out
    }

    /// A Markdown table.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(self.columns.iter().map(|c| c.name.to_string()).collect());
        out += &line(self.columns.iter().map(|c| if c.right { "--:" } else { ":--" }.to_string()).collect());
        for row in &self.rows {
            out += &line(row.iter().map(|cell| escape(cell)).collect());
        }
        out
    }

    fn natural(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| text::width(&row[column]));
        cells.chain([text::width(self.columns[column].title)]).max().unwrap_or(0)
    }

    fn width_of(&self, layout: &Layout) -> usize {
        layout.shown.iter().map(|(_, room)| room).sum::<usize>() + layout.gap * layout.shown.len().saturating_sub(1)
    }

    /// Tries, in this order: as it is; shorter words; single spaces; cut cells; fewer columns; cells that are cut to almost nothing.
    fn layout(&mut self, width: usize) -> Layout {
        let all = |grid: &Grid, gap, short| {
            let shown = (0..grid.columns.len()).map(|c| (c, grid.natural(c))).collect();
            Layout { shown, dropped: Vec::new(), gap, short, needed: 0 }
        };
        let first = all(self, 2, Vec::new());
        if self.width_of(&first) <= width {
            return first;
        }
        let short = self.shorten();
        let second = all(self, 2, short.clone());
        if self.width_of(&second) <= width {
            return second;
        }
        let mut layout = all(self, 1, short);
        layout.needed = self.width_of(&layout);
        loop {
            self.squeeze(&mut layout, width, |least| least);
            if self.width_of(&layout) <= width {
                return layout;
            }
            let next = layout.shown.iter().filter(|(c, _)| self.columns[*c].drop.is_some());
            let Some(&(gone, _)) = next.min_by_key(|(c, _)| self.columns[*c].drop) else { break };
            layout.dropped.push(self.columns[gone].name);
            layout.shown.retain(|(c, _)| *c != gone);
            // What was cut for the sake of the dropped column gets its room back.
            layout.shown.iter_mut().for_each(|(c, room)| *room = self.natural(*c));
        }
        self.squeeze(&mut layout, width, |least| least.min(FLOOR));
        layout
    }

    /// Cuts the widest column that may shrink, one by one, until the layout fits or none is wider than `floor` of its least width.
    fn squeeze(&self, layout: &mut Layout, width: usize, floor: fn(usize) -> usize) {
        let mut excess = self.width_of(layout).saturating_sub(width);
        while excess > 0 {
            let least = |c: usize| self.columns[c].least.map_or(usize::MAX, floor);
            let widest = layout.shown.iter_mut().filter(|(c, room)| *room > least(*c)).max_by_key(|(_, room)| *room);
            let Some((_, room)) = widest else { return };
            *room -= 1;
            excess -= 1;
        }
    }

    /// Says the same in fewer letters: `1024x1024x1024` as `1024^3`, and the words of [`SHORT`]. Gives those that are to be explained.
    fn shorten(&mut self) -> Vec<(&'static str, &'static str)> {
        let mut used = Vec::new();
        for (index, column) in self.columns.iter().enumerate().filter(|(_, c)| c.least.is_some()) {
            for row in &mut self.rows {
                if column.name == "shape" {
                    row[index] = row[index].split(' ').map(power).collect::<Vec<_>>().join(" ");
                    continue;
                }
                if column.name == "fits" {
                    row[index] = row[index].split(", ").map(limit).collect::<Vec<_>>().join(", ");
                }
                for (long, short, meaning) in SHORT {
                    if !row[index].contains(long) {
                        continue;
                    }
                    row[index] = row[index].replace(long, short);
                    let told = meaning.map(|meaning| (short, meaning)).filter(|told| !used.contains(told));
                    used.extend(told);
                }
            }
        }
        used
    }
}

impl Layout {
    /// What is to be known of a table that was made narrower.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.short.is_empty() {
            let told = self.short.iter().map(|(short, meaning)| format!("{}: {meaning}", short.trim()));
            notes.push(format!("({})", told.collect::<Vec<_>>().join("; ")));
        }
        if !self.dropped.is_empty() {
            // Wider than any terminal: the record has it all.
            let way = if self.needed > WIDEST { "show --markdown has all".into() } else { format!("COLUMNS={} shows all", self.needed) };
            notes.push(format!("(too narrow for {}; {way})", self.dropped.join(", ")));
        }
        notes
    }
}

/// Equal neighbours among the factors of a shape as a power: `1024x1024x1024` as `1024^3`; anything else as it is.
fn power(word: &str) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for factor in word.split('x') {
        match runs.last_mut() {
            Some((last, count)) if *last == factor && factor.len() > 1 => *count += 1,
            _ => runs.push((factor, 1)),
        }
    }
    let text = |&(factor, count): &(&str, usize)| if count == 1 { factor.to_string() } else { format!("{factor}^{count}") };
    // `56x56x64>128`: what goes in and comes out stands in one factor.
    let numbers = runs.iter().flat_map(|(factor, _)| factor.split('>')).all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if numbers { runs.iter().map(text).collect::<Vec<_>>().join("x") } else { word.to_string() }
}

/// Of a limit that is broken only the limit: `64.2 MiB > 64 MiB` as `> 64 MiB`; what breaks it has a column.
fn limit(broken: &str) -> &str {
    broken.find("> ").map_or(broken, |at| &broken[at..])
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
}

/// Marks the words that call for attention; they say the same without colour.
fn colour_words(line: &str, colour: bool) -> String {
    let mut out = line.to_string();
    for (word, code) in [("WRONG", "1;31"), ("SUSPECT", "33"), ("POWER", "33"), ("unexplained", "35"), ("unexpl.", "35")] {
        if colour && let Some(at) = out.find(&format!(" {word}")) {
            out.replace_range(at + 1..at + 1 + word.len(), &paint(word, code, true));
        }
    }
    out
}

/// Text that Markdown takes literally, on one line.
pub(in crate::report) fn escape(cell: &str) -> String {
    let mut out = String::new();
    for c in text::clean(cell).chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_become_a_power_and_nothing_else_changes() {
        assert_eq!(power("1024x1024x1024"), "1024^3");
        assert_eq!(power("16x112x112x64"), "16x112^2x64");
        assert_eq!(power("1x14x14x256>256"), "1x14^2x256>256");
        for same in ["1024x512x1024", "1x7x7x960", "k3", "", "x", "xxx", "ab12xab12"] {
            assert_eq!(power(same), same);
        }
    }
}
