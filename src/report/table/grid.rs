//! The two writers of a table of text. They know columns and widths, not what they mean.

use super::super::{Style, text};
use crate::grid::Grid;

/// How a grid fits a width.
struct Layout {
    /// Column and its width.
    shown: Vec<(usize, usize)>,
    dropped: Vec<&'static str>,
    gap: usize,
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
        if !layout.dropped.is_empty() {
            let note = format!("(too narrow for {}; --json has all)", layout.dropped.join(", "));
            out += &text::fit(&note, style.width, style.ascii);
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

    /// Tries, in this order: as it is; shorter words; single spaces; cut cells; fewer columns.
    fn layout(&mut self, width: usize) -> Layout {
        let all =
            |grid: &Grid, gap| Layout { shown: (0..grid.columns.len()).map(|c| (c, grid.natural(c))).collect(), dropped: Vec::new(), gap };
        let first = all(self, 2);
        if self.width_of(&first) <= width {
            return first;
        }
        self.shorten();
        let second = all(self, 2);
        if self.width_of(&second) <= width {
            return second;
        }
        let mut layout = all(self, 1);
        loop {
            self.squeeze(&mut layout, width);
            if self.width_of(&layout) <= width {
                break;
            }
            let next = layout.shown.iter().filter(|(c, _)| self.columns[*c].drop.is_some());
            let Some(&(gone, _)) = next.min_by_key(|(c, _)| self.columns[*c].drop) else { break };
            layout.dropped.push(self.columns[gone].name);
            layout.shown.retain(|(c, _)| *c != gone);
            // What was cut for the sake of the dropped column gets its room back.
            layout.shown.iter_mut().for_each(|(c, room)| *room = self.natural(*c));
        }
        layout
    }

    /// Cuts the widest column that may shrink, one by one, until the layout fits or none is left.
    fn squeeze(&self, layout: &mut Layout, width: usize) {
        let mut excess = self.width_of(layout).saturating_sub(width);
        while excess > 0 {
            let least = |c: usize| self.columns[c].least.unwrap_or(usize::MAX);
            let widest = layout.shown.iter_mut().filter(|(c, room)| *room > least(*c)).max_by_key(|(_, room)| *room);
            let Some((_, room)) = widest else { return };
            *room -= 1;
            excess -= 1;
        }
    }

    /// Says the same in fewer letters: `1024x1024x1024` as `1024^3`, `compute (vector)` as `compute`.
    fn shorten(&mut self) {
        for (index, column) in self.columns.iter().enumerate().filter(|(_, c)| c.least.is_some()) {
            for row in &mut self.rows {
                row[index] = match column.name {
                    "shape" => row[index].split(' ').map(power).collect::<Vec<_>>().join(" "),
                    _ => row[index].replace("compute (vector)", "compute"),
                };
            }
        }
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
    let numbers = runs.iter().all(|(factor, _)| !factor.is_empty() && factor.bytes().all(|b| b.is_ascii_digit()));
    if numbers { runs.iter().map(text).collect::<Vec<_>>().join("x") } else { word.to_string() }
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
}

/// Marks the words that call for attention; they say the same without colour.
fn colour_words(line: &str, colour: bool) -> String {
    let mut out = line.to_string();
    for (word, code) in [("WRONG", "1;31"), ("SUSPECT", "33"), ("POWER", "33"), ("unexplained", "35")] {
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
        for same in ["1024x512x1024", "1x7x7x960", "k3", "", "x", "xxx", "ab12xab12"] {
            assert_eq!(power(same), same);
        }
    }
}
