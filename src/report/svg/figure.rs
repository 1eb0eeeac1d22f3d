//! The picture of a study: panels side by side, every line and every named mark with its own text beside it.
//!
//! plotters draws the grid; lines are paths, because it has no dashes. A mark that does not lie inside the axes, or is no number, is not
//! drawn; a name that finds no place stands below the panels. Of points that have names of their own the line's name is a legend, with its
//! marker, below the panels too. A line that a later one covers is drawn wider, so that it is seen without colour.

use super::super::scene::{Axis as Scale, X_LIMITS};
use super::super::text::{clean, wrap, xml};
use super::super::{chart, heading};
use super::labels::{EM, Field, Patch};
use super::overlay::{Place, along, around, axis_labels, label, leader, led};
use super::plot::{self, Axes, Frame};
use super::{GREY, INK, WIDTH, marks, sheet};
use crate::error::Result;
use crate::record::Header;
use crate::study::{Axis, Figure, Line, Look, Panel, Quantity};

/// Where the panels begin and end.
const TOP: i32 = 150;
const BOTTOM: i32 = 1060;
/// Where notes begin.
const NOTES: i32 = 1196;
/// From one line below the panels to the next.
const LINE: i32 = 34;
/// Room left of a panel for labels, and right of the last.
const SIDE: i32 = 200;
const EDGE: i32 = 50;
/// Size of a line's name and of a mark's.
const NAME: f64 = 25.0;
/// Values that an axis can reach.
const LIMITS: (f64, f64) = (X_LIMITS.0, 1e18);

/// Draws a study's figure for the device in a header.
///
/// # Errors
/// [`crate::Error::Backend`] where plotters fails, which no value in the figure can cause.
pub fn figure(figure: &Figure, header: &Header) -> Result<String> {
    let (device, facts) = heading(header);
    let count = figure.panels.len().max(1) as i32;
    let wide = (WIDTH - EDGE) / count;
    let (mut elements, mut homeless, mut y) = (String::new(), Vec::new(), NOTES);
    for (at, panel) in (0..).zip(&figure.panels) {
        let left = at * wide + SIDE;
        let right = if at + 1 == count { WIDTH - EDGE } else { (at + 1) * wide - 10 };
        let frame = Frame { width: WIDTH, height: NOTES, left, top: TOP, right, bottom: BOTTOM };
        let axes = axes(panel);
        let (grid, over) = plot::draw(frame, axes, &[], |pixel| draw(panel, &frame, &Place { axes: &axes, pixel }, &mut homeless))?;
        let (legend, below) = legend(panel, &frame);
        elements += &format!("{grid}\n<g class=\"panel\">\n{over}{legend}</g>\n");
        y = y.max(below);
    }
    let notes = notes(figure, homeless);
    let room = (f64::from(WIDTH - 2 * EDGE) / (EM * 21.0)) as usize;
    let lines: Vec<String> = notes.iter().flat_map(|note| wrap(note, room, 0, false).lines().map(xml).collect::<Vec<_>>()).collect();
    for line in &lines {
        elements += &format!("<text class=\"note\" x=\"{EDGE}\" y=\"{y}\" font-size=\"21\" fill=\"{GREY}\">{line}</text>\n");
        y += LINE;
    }
    Ok(sheet(&clean(&figure.title), &format!("{device}, {facts}"), &elements, y))
}

/// Whether a line's name says what its points have in common.
fn is_legend(line: &Line) -> bool {
    line.look == Look::Points && !line.name.is_empty() && line.marks.iter().any(|mark| !mark.name.is_empty())
}

/// Markers with the names of their families, side by side under their panel; and where the next line below it begins.
fn legend(panel: &Panel, frame: &Frame) -> (String, i32) {
    let (left, right) = (f64::from(frame.left), f64::from(frame.right));
    let (mut out, mut x, mut y) = (String::new(), left, NOTES);
    for line in panel.lines.iter().filter(|line| is_legend(line)) {
        let wide = Patch::text(&line.name, NAME, (0.0, 0.0), 0.0).wide() + 60.0;
        if x > left && x + wide > right {
            (x, y) = (left, y + LINE);
        }
        let shape = marks::outline(marks::look(line.family), false);
        out += &format!("<g class=\"key\" transform=\"translate({} {})\">{shape}</g>\n", x + marks::HALF, y - 8);
        let (at, name) = (x + 36.0, xml(&line.name));
        out += &format!("<text class=\"note\" x=\"{at}\" y=\"{y}\" font-size=\"{NAME}\" fill=\"{INK}\">{name}</text>\n");
        x += wide;
    }
    let below = if out.is_empty() { NOTES } else { y + LINE };
    (out, below)
}

fn notes(figure: &Figure, homeless: Vec<String>) -> Vec<String> {
    let mut notes = Vec::new();
    if figure.panels.is_empty() {
        notes.push("Nothing to draw: no roof or no verified kernel.".to_string());
    }
    if figure.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.marks).any(|mark| mark.doubted) {
        notes.push("Hollow: SUSPECT, see the table.".into());
    }
    if !homeless.is_empty() {
        notes.push(format!("Not named in the plot for want of room: {}.", homeless.join(", ")));
    }
    notes
}

fn axes(panel: &Panel) -> Axes {
    let marks = || panel.lines.iter().flat_map(|line| &line.marks);
    let scale = |axis: Axis, values: &mut dyn Iterator<Item = f64>| match axis.quantity {
        Quantity::Bytes | Quantity::Count => Scale::over_octaves(values, (1.0, 1024.0), LIMITS),
        _ => Scale::covering(values, (1.0, 1000.0), LIMITS),
    };
    Axes {
        x: scale(panel.x, &mut marks().flat_map(|mark| [mark.x / 1.1, mark.x * 1.1])),
        y: scale(panel.y, &mut marks().flat_map(|mark| [mark.y / 1.3, mark.y * 1.5])),
    }
}

/// One panel's axes, lines, marks and names.
fn draw(panel: &Panel, frame: &Frame, place: &Place, homeless: &mut Vec<String>) -> String {
    let names = [panel.x, panel.y].map(|axis| format!("{}, {}", axis.name, unit(axis.quantity)));
    let names = names.each_ref().map(|name| name.trim_end_matches(", "));
    let mut out = axis_labels(frame, place, names, [&|value| tick(panel.x.quantity, value), &|value| tick(panel.y.quantity, value)]);
    let inset = |edge: i32, by: f64| f64::from(edge) + by;
    let mut field = Field::new((inset(frame.left, 8.0), inset(frame.top, 8.0), inset(frame.right, -8.0), inset(frame.bottom, -8.0)));
    let placed: Vec<Vec<(f64, f64)>> =
        panel.lines.iter().map(|line| line.marks.iter().filter_map(|mark| place.at((mark.x, mark.y))).collect()).collect();
    let under: Vec<bool> =
        panel.lines.iter().enumerate().map(|(at, line)| line.look == Look::Measured && covered(&placed[at], &placed[at + 1..])).collect();
    for ((line, spots), &under) in panel.lines.iter().zip(&placed).zip(&under) {
        spots.windows(2).filter(|_| line.look != Look::Points).for_each(|ends| field.avoid(Patch::line(ends[0], ends[1], 6.0)));
        spots.iter().filter(|_| has_marks(line.look)).for_each(|&spot| field.take(Patch::square(spot, marks::HALF + 3.0)));
        out += &path(line, spots, under);
    }
    for (line, spots) in panel.lines.iter().zip(&placed) {
        let named = line.marks.iter().filter(|mark| !mark.name.is_empty());
        let of_marks = named.filter_map(|mark| Some((mark.name.clone(), place.at((mark.x, mark.y))?)));
        for (name, spot) in of_marks {
            out += &beside(&name, spot, &mut field, &if is_legend(line) { ink(line) } else { INK.into() })
                .unwrap_or_else(|| unplaced(name, homeless));
        }
        if let ([first, .., last], false) = (spots.as_slice(), line.name.is_empty() || is_legend(line)) {
            let made = match line.look {
                Look::Roof => on(&line.name, *first, *last, &mut field),
                _ => beside(&line.name, *last, &mut field, &ink(line)),
            };
            out += &made.unwrap_or_else(|| unplaced(line.name.clone(), homeless));
        }
    }
    // Last, so that no line to a name covers one.
    out + &panel.lines.iter().zip(under).map(|(line, under)| markers(line, place, under)).collect::<String>()
}

fn has_marks(look: Look) -> bool {
    matches!(look, Look::Measured | Look::Points)
}

fn unplaced(name: String, homeless: &mut Vec<String>) -> String {
    homeless.push(clean(&name));
    String::new()
}

fn colour(line: &Line) -> &'static str {
    if line.look == Look::Roof { GREY } else { marks::look(line.family).colour() }
}

/// The colour of a line's name: dark enough to be read in grey.
fn ink(line: &Line) -> String {
    if line.look == Look::Roof { GREY.into() } else { marks::look(line.family).dark() }
}

/// Whether another line that is drawn later hides this one: it passes through most of its marks.
fn covered(spots: &[(f64, f64)], later: &[Vec<(f64, f64)>]) -> bool {
    let near = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).hypot(a.1 - b.1) < marks::HALF;
    let hidden = |other: &Vec<(f64, f64)>| spots.iter().filter(|spot| other.iter().any(|o| near(spot, o))).count();
    later.iter().any(|other| 2 * hidden(other) > spots.len())
}

fn path(line: &Line, spots: &[(f64, f64)], under: bool) -> String {
    let (wide, dashes) = match line.look {
        Look::Points => return String::new(),
        Look::Roof => (5, ""),
        Look::Measured => (if under { 11 } else { 3 }, ""),
        Look::Predicted => (4, " stroke-dasharray=\"14 10\""),
    };
    let steps: Vec<String> = spots.iter().map(|(x, y)| format!("{x} {y}")).collect();
    if steps.len() < 2 {
        return String::new();
    }
    format!("<path class=\"line\" d=\"M{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{wide}\"{dashes}/>\n", steps.join("L"), colour(line))
}

fn markers(line: &Line, place: &Place, under: bool) -> String {
    let (mut out, scale) = (String::new(), if under { " scale(1.5)" } else { "" });
    for mark in line.marks.iter().filter(|_| has_marks(line.look)) {
        let Some((x, y)) = place.at((mark.x, mark.y)) else { continue };
        let shape = marks::outline(marks::look(line.family), mark.doubted);
        let name = if mark.name.is_empty() { &line.name } else { &mark.name };
        out += &format!("<g class=\"mark\" transform=\"translate({x} {y}){scale}\"><title>{}</title>{shape}</g>\n", xml(name));
    }
    out
}

/// A text near a spot, with a thin line to it where it had to go far; none where there is no room.
fn beside(text: &str, spot: (f64, f64), field: &mut Field, colour: &str) -> Option<String> {
    let wide = Patch::text(text, NAME, spot, 0.0).wide();
    // Around a point the width of the text away, so that long names stand left or right of their mark, not on it.
    let shifted = [1.0, -1.0].into_iter().flat_map(|side| around(text, (spot.0 + side * (wide / 2.0 - 10.0), spot.1)));
    // From the mark to the near end of the text.
    let near = |patch: &Patch| {
        let (mut near, away) = (*patch, patch.x - spot.0);
        near.x = spot.0 + away.signum() * (away.abs() - wide / 2.0).max(0.0);
        near
    };
    let leads = |patch: &Patch| {
        let near = near(patch);
        led(spot, (near.x, near.y), marks::HALF + 6.0).map(|(from, to)| Patch::line(from, to, 2.0))
    };
    let (_, patch) = field.place_led(shifted.map(|patch| (patch, leads(&patch))))?;
    Some(leader(spot, &near(&patch)) + &label(&patch, text, NAME, &format!("fill=\"{colour}\"")))
}

/// A text along a line.
fn on(text: &str, from: (f64, f64), to: (f64, f64), field: &mut Field) -> Option<String> {
    let (_, patch) = field.place(along(text, from, to, from.1 != to.1))?;
    Some(label(&patch, text, NAME, &format!("fill=\"{GREY}\"")))
}

fn unit(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Intensity => "FLOP per byte",
        Quantity::FlopRate => "FLOP/s",
        Quantity::Time | Quantity::Bytes | Quantity::Count => "",
        Quantity::Rate => "samples a second",
        Quantity::Millionths => "parts per million",
    }
}

/// The label of a step, which is a power of ten or of two.
fn tick(quantity: Quantity, value: f64) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (scale, name) = steps.iter().find(|(scale, _)| value >= *scale).copied().unwrap_or((1.0, ""));
        format!("{} {name}", value / scale).trim_end().to_string()
    };
    let k = 1024f64;
    match quantity {
        Quantity::Intensity | Quantity::Millionths => chart::intensity_label(value),
        Quantity::FlopRate => chart::rate_label(value),
        Quantity::Rate => scaled(&[(1e9, "G"), (1e6, "M"), (1e3, "k")]),
        Quantity::Time => scaled(&[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")]),
        Quantity::Bytes => scaled(&[(k.powi(4), "TiB"), (k.powi(3), "GiB"), (k * k, "MiB"), (k, "KiB"), (1.0, "B")]),
        // The axis may begin below the first thing.
        Quantity::Count if value < 1.0 => String::new(),
        Quantity::Count => scaled(&[]),
    }
}
