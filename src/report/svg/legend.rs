//! The legend below the plot: a line for each letter in two columns, then what hollow markers and whiskers mean.

use super::super::cache_word;
use super::super::scene::{LeftOut, Point, Scene};
use super::super::text::{clean, fit, fit_middle, width, wrap, xml};
use super::labels::EM;
use super::overlay::Overlay;
use super::{GREY, INK, WIDTH, marks};
use crate::units::{FlopRate, Intensity};
use crate::view::{Row, View};

/// Points that get a letter and a legend line; a picture with more is read by its table.
pub(super) const MOST: usize = 52;
/// Pixels from line to line.
const PITCH: i32 = 38;
const SIZE: i32 = 22;
/// Where names begin, and how far from the right rates end.
const NAME: i32 = 76;
const RATE: i32 = 92;
const LEFT: i32 = 50;
/// Column width and the space between.
const COLUMN: i32 = 880;
const GAP: i32 = 60;

/// The legend of a picture.
pub(super) struct Legend {
    pub elements: String,
    /// Pixels it takes.
    pub height: i32,
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
        row.kernel(),
        row.label,
        cache_word(row.cache),
        FlopRate(point.y),
        Intensity(point.x),
        row.limited_by()
    )
}

/// The legend, from `top` on; it also takes the texts that found no place in the plot.
pub(super) fn draw(view: &View, scene: &Scene, top: i32, over: &Overlay) -> Legend {
    let looks = marks::looks(view);
    let points: Vec<&Point> = scene.points.iter().take(MOST).collect();
    let lines = points.len().div_ceil(2);
    let mut out = String::from("<g id=\"legend\">\n");
    let mut y = top;
    for column in 0..points.len().min(2) as i32 {
        out += &head(LEFT + column * (COLUMN + GAP), y);
    }
    y += if points.is_empty() { 0 } else { PITCH + 6 };
    for (index, point) in points.iter().enumerate() {
        let x = LEFT + (index / lines) as i32 * (COLUMN + GAP);
        let swatch = marks::marker(looks[point.row], point);
        out += &entry(&view.rows[point.row], point, &swatch, (x, y + (index % lines) as i32 * PITCH));
    }
    y += lines as i32 * PITCH + 8;
    let room = (f64::from(WIDTH - 2 * LEFT) / (EM * 21.0)) as usize;
    let mut lines: Vec<String> = notes(scene, over.unlettered, room).iter().map(|note| fit(note, room, false)).collect();
    if !over.unlabelled.is_empty() {
        let roofs = clean(&format!("Roofs: {}", over.unlabelled.join("; ")));
        lines.extend(wrap(&roofs, room, 0, false).lines().map(str::to_string));
    }
    for line in lines {
        let line = xml(&line);
        out += &format!("<text class=\"note\" x=\"{LEFT}\" y=\"{y}\" font-size=\"21\" fill=\"{GREY}\">{line}</text>\n");
        y += 34;
    }
    Legend { elements: out + "</g>\n", height: y - top + 4 }
}

fn text(x: i32, y: i32, rest: &str, text: &str) -> String {
    format!("<text class=\"legend\" x=\"{x}\" y=\"{y}\" font-size=\"{SIZE}\" {rest}>{}</text>", xml(text))
}

/// Titles of a column and a line under them.
fn head(x: i32, y: i32) -> String {
    let (left, right) = (format!("fill=\"{GREY}\""), format!("fill=\"{GREY}\" text-anchor=\"end\""));
    let rule = format!("<path d=\"M{x} {}H{}\" stroke=\"#d0d7de\" stroke-width=\"2\"/>\n", y + 12, x + COLUMN);
    text(x + NAME, y, &left, "kernel") + &text(x + COLUMN - RATE, y, &right, "rate") + &text(x + COLUMN, y, &right, "of roof") + &rule
}

/// A line: marker, key, kernel, rate, share of the roof.
fn entry(row: &Row, point: &Point, swatch: &str, (x, y): (i32, i32)) -> String {
    let (left, right) = (format!("fill=\"{INK}\""), format!("fill=\"{INK}\" text-anchor=\"end\""));
    let rate = FlopRate(point.y).to_string();
    let share = row.roof_fraction.filter(|f| f.is_finite()).map_or(String::new(), |f| format!("{:.0} %", f * 100.0));
    let character = EM * f64::from(SIZE);
    let room = f64::from(COLUMN - RATE - NAME - 16) - character * width(&rate) as f64;
    let name = format!("{} {} {} {}", row.op, row.kernel(), row.label, cache_word(row.cache));
    let name = fit_middle(&clean(&name), (room / character) as usize, false);
    let mut out = format!("<g class=\"swatch\"><title>{}</title>", xml(&sentence(row, point)));
    out += &format!("<g transform=\"translate({} {})\">{swatch}</g>", x + 16, y - 8);
    out += &text(x + 44, y, &format!("{left} font-weight=\"bold\""), &point.key);
    out += &text(x + NAME, y, &left, &name);
    out += &text(x + COLUMN - RATE, y, &right, &rate);
    out += &text(x + COLUMN, y, &right, &share);
    out + "</g>\n"
}

/// What signs mean, where they occur, and what is not in the picture.
fn notes(scene: &Scene, unlettered: usize, room: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let mut signs = Vec::new();
    if scene.points.iter().any(|p| p.doubted) {
        signs.push("Hollow: SUSPECT, see the table.");
    }
    if scene.points.iter().any(|p| p.reference) {
        signs.push("Hollow with a dot: a vendor's library, none of ours.");
    }
    if scene.points.iter().any(|p| p.moved.is_some()) {
        signs.push("Line to the left: intensity by the bytes moved.");
    }
    if !scene.ramp.is_empty() {
        signs.push("Small dots: the ramp, one kernel at chosen intensities.");
    }
    if !scene.roofs.is_empty() {
        signs.push("Roofs are measured; bands are their 95 % intervals.");
    }
    if !signs.is_empty() {
        notes.extend(wrap(&signs.join(" "), room, 0, false).lines().map(str::to_string));
    }
    if unlettered > 0 {
        notes.push(format!("{unlettered} of {} points have no letter beside them; the table has them all.", scene.points.len()));
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
