//! The legend below the plot: a line for each letter in two columns, then what hollow markers and whiskers mean.

use super::super::scene::{LeftOut, Point, Scene};
use super::super::text::{fit, width, xml};
use super::super::{cache_word, limiter_text};
use super::labels::EM;
use super::{GREY, INK, WIDTH, marks};
use crate::units::{FlopRate, Intensity};
use crate::view::{Row, View};

/// Points that get a letter and a legend line; a picture with more is read by its table.
pub(super) const MOST: usize = 52;
/// Pixels from line to line.
const PITCH: i32 = 38;
const SIZE: i32 = 23;
const LEFT: i32 = 50;
/// Column width and the space between.
const COLUMN: i32 = 880;
const GAP: i32 = 60;

/// The legend of a picture.
pub(super) struct Legend {
    entries: Vec<Entry>,
    notes: Vec<String>,
}

struct Entry {
    marker: String,
    key: String,
    name: String,
    rate: String,
    share: String,
    title: String,
}

/// Texts for a group of roofs, the fullest first.
pub(super) fn roof_texts(scene: &Scene, group: &[usize]) -> Vec<String> {
    let doubt = if group.iter().any(|&i| scene.roofs[i].doubted) { " SUSPECT" } else { "" };
    let first = &scene.roofs[group[0]];
    let short = format!("{} {}{doubt}", fit(&first.name, 40, false), first.text());
    if group.len() == 1 {
        return vec![short];
    }
    let rest: String = group[1..].iter().map(|&i| &scene.roofs[i]).map(|r| format!(", {} {}", r.member, r.text())).collect();
    vec![format!("{} {}{rest}{doubt}", first.name, first.text()), short]
}

/// What a marker's tooltip says.
pub(super) fn sentence(row: &Row, point: &Point) -> String {
    let share = row.roof_fraction.filter(|f| f.is_finite()).map_or(String::new(), |f| format!(", {:.0} % of its roof", f * 100.0));
    let doubt = if point.doubted { " SUSPECT" } else { "" };
    format!(
        "{} {} {} {} {}: {} at {} FLOP/byte{share}{doubt}, limited by {}",
        point.key,
        row.op,
        row.variant,
        row.label,
        cache_word(row.cache),
        FlopRate(point.y),
        Intensity(point.x),
        limiter_text(row)
    )
}

impl Legend {
    /// For the points of a scene.
    pub fn of(view: &View, scene: &Scene) -> Self {
        let looks = marks::looks(view);
        let entry = |point: &Point| {
            let row = &view.rows[point.row];
            let share = row.roof_fraction.filter(|f| f.is_finite()).map_or(String::new(), |f| format!("{:.0} %", f * 100.0));
            Entry {
                marker: marks::marker(looks[point.row], point.doubted),
                key: point.key.clone(),
                name: format!("{} {} {} {}", row.op, row.variant, row.label, cache_word(row.cache)),
                rate: FlopRate(point.y).to_string(),
                share,
                title: sentence(row, point),
            }
        };
        Legend { entries: scene.points.iter().take(MOST).map(entry).collect(), notes: notes(scene) }
    }

    fn lines(&self) -> i32 {
        self.entries.len().div_ceil(2) as i32
    }

    /// Pixels it takes, with room for the roofs that may need a line.
    pub fn height(&self) -> i32 {
        let head = if self.entries.is_empty() { 0 } else { PITCH + 6 };
        head + self.lines() * PITCH + (self.notes.len() as i32 + 1) * 34 + 30
    }

    /// From `top` on.
    pub fn elements(&self, top: i32, unlabelled: &[String]) -> String {
        let text = |x: i32, y: i32, rest: &str, text: &str| {
            format!("<text class=\"legend\" x=\"{x}\" y=\"{y}\" font-size=\"{SIZE}\" {rest}>{}</text>", xml(text))
        };
        let mut out = String::from("<g id=\"legend\">\n");
        let mut y = top;
        let columns = self.entries.len().min(2) as i32;
        for column in 0..columns {
            let x = LEFT + column * (COLUMN + GAP);
            let head = format!("fill=\"{GREY}\"");
            out += &text(x + 88, y, &head, "kernel");
            out += &text(x + COLUMN - 110, y, &format!("{head} text-anchor=\"end\""), "rate");
            out += &text(x + COLUMN, y, &format!("{head} text-anchor=\"end\""), "of roof");
            out += &format!("<path d=\"M{x} {0}H{1}\" stroke=\"#d0d7de\" stroke-width=\"2\"/>\n", y + 12, x + COLUMN);
        }
        y += if columns > 0 { PITCH + 6 } else { 0 };
        for (index, entry) in self.entries.iter().enumerate() {
            let (column, line) = (index as i32 / self.lines(), index as i32 % self.lines());
            let (x, y) = (LEFT + column * (COLUMN + GAP), y + line * PITCH);
            out += &format!("<g class=\"swatch\"><title>{}</title><g transform=\"translate({} {})\">", xml(&entry.title), x + 16, y - 8);
            out += &format!("{}</g>", entry.marker);
            out += &text(x + 44, y, &format!("font-weight=\"bold\" fill=\"{INK}\""), &entry.key);
            let room = f64::from(COLUMN - 110 - 88 - 20) - EM * f64::from(SIZE) * width(&entry.rate) as f64;
            let name = fit(&entry.name, (room / (EM * f64::from(SIZE))) as usize, false);
            out += &text(x + 88, y, &format!("fill=\"{INK}\""), &name);
            out += &text(x + COLUMN - 110, y, &format!("text-anchor=\"end\" fill=\"{INK}\""), &entry.rate);
            out += &text(x + COLUMN, y, &format!("text-anchor=\"end\" fill=\"{INK}\""), &entry.share);
            out += "</g>\n";
        }
        y += self.lines() * PITCH + 8;
        let roofs = (!unlabelled.is_empty()).then(|| format!("Roofs: {}", unlabelled.join("; ")));
        for note in self.notes.iter().chain(&roofs) {
            let room = f64::from(WIDTH - 2 * LEFT) / (EM * 21.0);
            let note = xml(&fit(note, room as usize, false));
            out += &format!("<text class=\"note\" x=\"{LEFT}\" y=\"{y}\" font-size=\"21\" fill=\"{GREY}\">{note}</text>\n");
            y += 34;
        }
        out + "</g>\n"
    }
}

/// What signs mean, where they occur, and what is not in the picture.
fn notes(scene: &Scene) -> Vec<String> {
    let mut notes = Vec::new();
    let mut signs = Vec::new();
    if scene.points.iter().any(|p| p.doubted) {
        signs.push("Hollow: SUSPECT, see the table.");
    }
    if scene.points.iter().any(|p| p.moved.is_some()) {
        signs.push("Line to the left: intensity by the bytes moved.");
    }
    if !scene.roofs.is_empty() {
        signs.push("Roofs are measured; bands are their 95 % intervals.");
    }
    if !signs.is_empty() {
        notes.push(signs.join(" "));
    }
    if scene.points.len() > MOST {
        notes.push(format!("{} more points are drawn without a letter; the table has them all.", scene.points.len() - MOST));
    }
    if !scene.left_out.is_empty() {
        notes.push(format!("Not drawn: {}.", left_out(&scene.left_out)));
    }
    if scene.is_empty() {
        notes.push("Nothing to draw: no roof and no verified kernel.".into());
    }
    notes
}

/// `1 kernel, because its output is wrong; 2 because …`, most frequent reason first.
fn left_out(items: &[LeftOut]) -> String {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for item in items {
        *counts.entry(&item.why).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let text = |(why, count): &(&str, usize)| format!("{count} because {why}");
    let shown = counts.iter().take(3).map(text).collect::<Vec<_>>().join("; ");
    if counts.len() > 3 { format!("{shown}; and {} more reasons", counts.len() - 3) } else { shown }
}
