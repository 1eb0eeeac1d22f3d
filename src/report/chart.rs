//! The roofline in a terminal: both axes logarithmic, roofs as Braille lines, points as letters, a legend line for each letter.

mod canvas;

use std::collections::BTreeMap;

use canvas::Canvas;

use super::scene::{Axis, Point, Scene};
use super::{Style, cache_word, text};
use crate::units::{FlopRate, Intensity};
use crate::view::View;

/// Columns left of the canvas: a label of six, a space and the axis.
const MARGIN: usize = 8;
/// Narrower terminals get the legend without the picture.
const NARROWEST: usize = 40;

/// The chart and its legend; no line is wider than `style.width`.
pub fn terminal(view: &View, style: &Style) -> String {
    let scene = Scene::of(view);
    if scene.is_empty() {
        return text::fit("nothing to chart: no roof and no verified kernel", style.width, style.ascii) + "\n";
    }
    let mut out = String::new();
    if style.width < NARROWEST {
        out += &text::fit(&format!("a chart needs {NARROWEST} columns"), style.width, style.ascii);
        out.push('\n');
    } else {
        out += &draw(&scene, style);
    }
    let letters = letters(&scene);
    out + &roofs_legend(&scene, style) + &points_legend(view, &scene, &letters, style)
}

/// Character of each point: its key, or `*` where keys no longer fit one cell.
fn letters(scene: &Scene) -> Vec<char> {
    let letter = |p: &Point| if p.key.len() == 1 { p.key.chars().next().unwrap_or('*') } else { '*' };
    scene.points.iter().map(letter).collect()
}

/// Canvas cells, wide and tall.
fn size(style: &Style) -> (usize, usize) {
    let wide = style.width - MARGIN - 1;
    (wide, (wide / 4).clamp(10, 26))
}

/// Cell of a value.
fn cell(scene: &Scene, (wide, tall): (usize, usize), x: f64, y: f64) -> (usize, usize) {
    let along = |share: f64, cells: usize| ((share * cells as f64) as usize).min(cells - 1);
    (along(scene.x.share(x), wide), along(1.0 - scene.y.share(y), tall))
}

fn draw(scene: &Scene, style: &Style) -> String {
    let size = size(style);
    let mut canvas = Canvas::new(size.0, size.1, style);
    for roof in &scene.roofs {
        if let Some(ends) = scene.ends(roof, roof.value) {
            let place = |(x, y): (f64, f64)| (scene.x.share(x), 1.0 - scene.y.share(y));
            canvas.line(place(ends[0]), place(ends[1]), if roof.slope { '/' } else { '-' });
        }
    }
    for (tag, group) in tags(scene) {
        let roof = &scene.roofs[group[0]];
        if let Some(ends) = scene.ends(roof, roof.value) {
            // Slopes are tagged where they begin, flat roofs where they end: there are fewest points.
            let (x, y) = if roof.slope { ends[0] } else { ends[1] };
            let at = cell(scene, size, x, y);
            canvas.tag(at, tag, roof.slope);
        }
    }
    for (point, letter) in scene.points.iter().zip(letters(scene)) {
        canvas.point(cell(scene, size, point.x, point.y), letter, point.doubted);
    }
    for step in &scene.ramp {
        canvas.point(cell(scene, size, step.x, step.y), ramp_dot(style), step.doubted);
    }
    frame(scene, size, &canvas, style)
}

/// What stands for a point of the ramp.
fn ramp_dot(style: &Style) -> char {
    if style.ascii { '.' } else { '·' }
}

/// Tag characters with the roofs they stand for: every compute roof, and every memory level with its directions.
fn tags(scene: &Scene) -> Vec<(char, Vec<usize>)> {
    ('1'..='9').chain("#%&@$!?".chars()).zip(scene.roof_groups()).collect()
}

fn frame(scene: &Scene, (wide, tall): (usize, usize), canvas: &Canvas, style: &Style) -> String {
    let (bar, corner, dash, tick) = if style.ascii { ('|', '+', '-', '+') } else { ('│', '└', '─', '┤') };
    let mut labels: BTreeMap<usize, String> = BTreeMap::new();
    for value in scene.y.ticks().0.into_iter().rev() {
        labels.entry(cell(scene, (wide, tall), scene.x.min, value).1).or_insert_with(|| rate_label(value));
    }
    let mut out = format!("{:>6}\n", "FLOP/s");
    for row in 0..tall {
        let label = labels.get(&row);
        let edge = if label.is_some() { tick } else { bar };
        let line = format!("{:>6} {edge}{}", label.map_or("", String::as_str), canvas.row(row));
        out += line.trim_end();
        out.push('\n');
    }
    out += &format!("{:>6} {corner}{}\n", "", dash.to_string().repeat(wide));
    out + &x_labels(&scene.x, wide)
}

/// Labels centred under their decades, as many as fit, and the unit at the end.
fn x_labels(axis: &Axis, wide: usize) -> String {
    let unit = "FLOP/byte";
    let mut line: Vec<char> = vec![' '; MARGIN + wide];
    let mut free = 0;
    let mut write = |at: usize, text: &str, line: &mut Vec<char>| {
        if at >= free && at + text.len() <= line.len() {
            line[at..at + text.len()].iter_mut().zip(text.chars()).for_each(|(cell, c)| *cell = c);
            free = at + text.len() + 2;
        }
    };
    for value in axis.ticks().0 {
        let label = intensity_label(value);
        let centre = MARGIN + ((axis.share(value) * wide as f64) as usize).min(wide - 1);
        let at = centre.saturating_sub(label.len() / 2);
        if at + label.len() + 2 + unit.len() <= line.len() {
            write(at, &label, &mut line);
        }
    }
    let end = line.len() - unit.len();
    write(end, unit, &mut line);
    line.iter().collect::<String>().trim_end().to_string() + "\n"
}

/// `100 G`, `1 T`.
pub(super) fn rate_label(value: f64) -> String {
    let (scale, prefix) = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")]
        .into_iter()
        .find(|(scale, _)| value >= scale * 0.999)
        .unwrap_or((1.0, ""));
    format!("{:.0} {prefix}", value / scale)
}

/// `0.01`, `10`, `1e5`.
pub(super) fn intensity_label(value: f64) -> String {
    if (0.999e-3..1e5).contains(&value) { format!("{}", (value * 1e4).round() / 1e4) } else { format!("{value:.0e}") }
}

fn roofs_legend(scene: &Scene, style: &Style) -> String {
    let entries = tags(scene).into_iter().map(|(tag, group)| {
        let first = &scene.roofs[group[0]];
        let rest = group[1..].iter().map(|&i| &scene.roofs[i]).map(|r| format!(", {} {}", r.member, r.text()));
        let doubt = if group.iter().any(|&i| scene.roofs[i].doubted) { " SUSPECT" } else { "" };
        format!("{tag} {} {}{}{doubt}", first.name, first.text(), rest.collect::<String>())
    });
    let ridge = scene.ridge.map(|r| format!("ridge at {} FLOP/byte", Intensity(r.x)));
    let ramp = (!scene.ramp.is_empty()).then(|| format!("{} ramp", ramp_dot(style)));
    let mut lines: Vec<String> = Vec::new();
    for entry in entries.chain(ridge).chain(ramp).map(|e| text::plain(&e, style.ascii)) {
        match lines.last_mut() {
            Some(line) if text::width(line) + 3 + text::width(&entry) <= style.width => *line += &format!("   {entry}"),
            _ => lines.push(entry),
        }
    }
    lines.iter().map(|line| text::fit(line, style.width, style.ascii) + "\n").collect()
}

fn points_legend(view: &View, scene: &Scene, letters: &[char], style: &Style) -> String {
    // Legends of thousands of points help nobody: the table has them all.
    const MOST: usize = 52;
    let place = if style.width < NARROWEST { (1, 1) } else { size(style) };
    let mut first: BTreeMap<(usize, usize), char> = BTreeMap::new();
    let mut lines = vec![["  kernel".to_string(), "rate".to_string(), " roof".to_string()]];
    if scene.points.is_empty() {
        return String::new();
    }
    for (point, &letter) in scene.points.iter().zip(letters).take(MOST) {
        let row = &view.rows[point.row];
        let holder = *first.entry(cell(scene, place, point.x, point.y)).or_insert(letter);
        let under = if holder == letter || style.width < NARROWEST { String::new() } else { format!(" under {holder}") };
        let roof = row.roof_fraction.filter(|f| f.is_finite()).map_or(String::new(), |f| format!("{:.0}%", f * 100.0));
        let doubt = if point.doubted { " SUSPECT" } else { "" };
        let whose = if point.reference { " (reference)" } else { "" };
        let name = format!("{} {} {} {} {}{whose}", point.key, row.op, row.kernel(), row.label, cache_word(row.cache));
        lines.push([text::plain(&name, style.ascii), FlopRate(point.y).to_string(), format!("{roof:>5}{doubt}{under}")]);
    }
    let width = |column: usize| lines.iter().map(|l| text::width(&l[column])).max().unwrap_or(0);
    let (value, rest) = (width(1), width(2));
    let name = width(0).min(style.width.saturating_sub(value + rest + 2)).max(8);
    let mut out = String::new();
    for line in &lines {
        let head = text::pad(&text::fit_middle(&line[0], name, style.ascii), name, false);
        let whole = format!("{head}  {}{}", text::pad(&line[1], value, true), line[2]);
        out += text::fit(&whole, style.width, style.ascii).trim_end();
        out.push('\n');
    }
    if scene.points.len() > MOST {
        let more = format!("* and {} more; the table has them all", scene.points.len() - MOST);
        out += &text::fit(&more, style.width, style.ascii);
        out.push('\n');
    }
    out
}
