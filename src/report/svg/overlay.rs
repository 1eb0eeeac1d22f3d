//! What lies over the grid: axis labels, watermark, ridge, whiskers, markers and their letters, and the roofs' names.

use std::fmt::Write;

use super::super::chart::{intensity_label, rate_label};
use super::super::scene::{Point, Scene};
use super::super::text::xml;
use super::labels::{Field, Patch};
use super::plot::{Axes, Frame, Spot};
use super::{GREY, INK, legend, look, marks};
use crate::units::{FlopRate, Intensity};
use crate::view::View;

/// Size of the letters at markers.
const LETTER: f64 = 25.0;
/// Size of the roofs' names.
const NAME: f64 = 23.0;

/// Half of the size of the ramp's dots.
const RAMP: f64 = 6.0;

/// Elements over the grid.
pub(super) struct Overlay {
    pub elements: String,
    /// Texts of roofs that found no place in the plot; the legend gives them one.
    pub unlabelled: Vec<String>,
    /// Points without a letter beside them.
    pub unlettered: usize,
    /// Rows of points that have no pixel inside the axes.
    pub outside: Vec<usize>,
}

pub(super) type Pixel<'a> = &'a dyn Fn(Spot) -> (i32, i32);

/// The pixel of a value, if it lies inside the axes.
pub(super) struct Place<'a> {
    pub axes: &'a Axes,
    pub pixel: Pixel<'a>,
}

impl Place<'_> {
    pub fn at(&self, value: (f64, f64)) -> Option<(f64, f64)> {
        let (x, y) = (self.pixel)(self.axes.spot(value)?);
        Some((f64::from(x), f64::from(y)))
    }
}

/// Makes them all.
pub(super) fn draw(view: &View, scene: &Scene, axes: &Axes, frame: &Frame, pixel: Pixel) -> Overlay {
    let place = Place { axes, pixel };
    let bounds = (frame.left as f64 + 8.0, frame.top as f64 + 8.0, frame.right as f64 - 8.0, frame.bottom as f64 - 8.0);
    let mut field = Field::new(bounds);
    for point in &scene.points {
        if let Some(at) = place.at((point.x, point.y)) {
            field.take(Patch::square(at, marks::HALF + 3.0));
            if let Some(end) = point.moved.and_then(|moved| place.at((moved.max(scene.x.min), point.y))) {
                field.avoid(Patch::line(end, at, 20.0));
            }
        }
    }
    for step in &scene.ramp {
        if let Some(at) = place.at((step.x, step.y)) {
            field.avoid(Patch::square(at, RAMP));
        }
    }
    let axis_names = ["Compulsory intensity, FLOP per byte", "Performance, FLOP/s"];
    let mut out = axis_labels(frame, &place, axis_names, [&intensity_label, &rate_label]);
    if view.header.device.simulated {
        let (x, y) = ((frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2);
        let _ = writeln!(
            out,
            r##"<text class="watermark" x="{x}" y="{y}" transform="rotate(-20 {x} {y})" font-size="200" font-weight="bold" letter-spacing="20" text-anchor="middle" fill="#b00020" opacity="0.07">SIMULATED</text>"##
        );
    }
    for roof in &scene.roofs {
        if let Some([a, b]) = scene.ends(roof, roof.value)
            && let (Some(a), Some(b)) = (place.at(a), place.at(b))
        {
            field.avoid(Patch::line(a, b, 5.0));
        }
    }
    if let Some(at) = scene.ridge.and_then(|r| place.at((r.x, r.y))) {
        field.take(Patch::square(at, 10.0));
    }
    let (names, unlabelled) = names(scene, &place, &mut field);
    out += &ridge(scene, frame, &place, &mut field);
    out += &names;
    let (markers, outside) = markers(view, scene, &place);
    let (letters, lettered) = letters(scene, &place, &mut field);
    out += &ramp(view, scene, &place);
    out += &markers;
    out += &letters;
    let corner = |value| place.at(value).unwrap_or_default();
    let (low, high) = (corner((axes.x.min, axes.y.min)), corner((axes.x.max, axes.y.max)));
    let elements = format!(
        "<g id=\"plot\" data-x-min=\"{:e}\" data-x-max=\"{:e}\" data-y-min=\"{:e}\" data-y-max=\"{:e}\" data-left=\"{}\" \
         data-right=\"{}\" data-bottom=\"{}\" data-top=\"{}\">\n{out}</g>\n",
        axes.x.min, axes.x.max, axes.y.min, axes.y.max, low.0, high.0, low.1, high.1
    );
    Overlay { elements, unlabelled, unlettered: scene.points.len() - lettered - outside.len(), outside }
}

/// Frame, labels of the steps, made by `texts`, and the axes' names; across, then up.
pub(super) fn axis_labels(frame: &Frame, place: &Place, names: [&str; 2], texts: [&dyn Fn(f64) -> String; 2]) -> String {
    let Frame { left, top, right, bottom, .. } = *frame;
    let Axes { x: axis_x, y: axis_y } = *place.axes;
    let mut out = format!(
        "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#8c959f\" stroke-width=\"2\"/>\n",
        right - left,
        bottom - top
    );
    let text = |x: f64, y: f64, anchor: &str, text: &str| {
        format!("<text class=\"tick\" x=\"{x}\" y=\"{y}\" font-size=\"25\" text-anchor=\"{anchor}\" fill=\"{INK}\">{text}</text>\n")
    };
    let (mut across, mut up, mut widest) = (f64::MIN, f64::MAX, 5);
    for value in axis_x.ticks().0 {
        let label = texts[0](value);
        if let Some((x, _)) = place.at((value, axis_y.min)).filter(|at| at.0 >= across + 90.0 && !label.is_empty()) {
            out += &text(x, f64::from(bottom) + 38.0, "middle", &label.replace(' ', "\u{a0}"));
            across = x;
        }
    }
    for value in axis_y.ticks().0 {
        if let Some((_, y)) = place.at((axis_x.min, value)).filter(|at| at.1 <= up - 40.0) {
            let label = texts[1](value);
            widest = widest.max(label.chars().count() as i32);
            out += &text(f64::from(left) - 16.0, y + 9.0, "end", &label.replace(' ', "\u{a0}"));
            up = y;
        }
    }
    let (x, y) = ((left + right) / 2, (top + bottom) / 2);
    let name = |x: i32, y: i32, turn: &str, text: &str| {
        format!("<text class=\"axis\" x=\"{x}\" y=\"{y}\" {turn} font-size=\"27\" text-anchor=\"middle\" fill=\"{INK}\">{text}</text>\n")
    };
    out += &name(x, bottom + 84, "", names[0]);
    let side = left - 37 - 15 * widest;
    out + &name(side, y, &format!("transform=\"rotate(-90 {side} {y})\""), names[1])
}

/// A text in the plot, centred at a patch, on a white halo.
pub(super) fn label(patch: &Patch, text: &str, size: f64, rest: &str) -> String {
    let (x, y) = (patch.x, patch.y);
    let turn =
        if patch.angle == 0.0 { String::new() } else { format!(" transform=\"rotate({:.2} {x:.1} {y:.1})\"", patch.angle.to_degrees()) };
    format!(
        "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\"{turn} font-size=\"{size}\" text-anchor=\"middle\" stroke=\"#fff\" stroke-width=\"6\" \
         stroke-linejoin=\"round\" paint-order=\"stroke\" {rest}>{}</text>\n",
        y + 0.35 * size,
        xml(text)
    )
}

/// Names and values of the roofs along their lines: a slope's from its lower end, a flat roof's from its right end.
fn names(scene: &Scene, place: &Place, field: &mut Field) -> (String, Vec<String>) {
    let (mut out, mut unlabelled) = (String::new(), Vec::new());
    for group in scene.roof_groups() {
        let texts = legend::roof_texts(scene, &group);
        // Directions of a level run side by side; the text goes above the highest of them.
        let highest = group.iter().map(|&i| &scene.roofs[i]).max_by(|a, b| a.value.total_cmp(&b.value));
        let ends = highest.and_then(|roof| scene.ends(roof, roof.value).map(|e| (roof, e)));
        let Some((roof, Some(a), Some(b))) = ends.map(|(roof, [a, b])| (roof, place.at(a), place.at(b))) else { continue };
        let mut owners = Vec::new();
        let places = texts.iter().flat_map(|text| along(text, a, b, roof.slope).map(move |patch| (text, patch)));
        let placed = field.place(places.map(|(text, patch)| {
            owners.push(text);
            patch
        }));
        match placed {
            Some((index, patch)) => {
                let text = owners[index];
                let ([r, g, b], _) = look(scene, &scene.roofs[group[0]]);
                let dark = |c: u8| u32::from(c) * 3 / 5;
                out += &label(&patch, text, NAME, &format!("fill=\"#{:02x}{:02x}{:02x}\"", dark(r), dark(g), dark(b)));
                if *text != texts[0] {
                    unlabelled.push(texts[0].clone());
                }
            }
            None => unlabelled.push(texts[0].clone()),
        }
    }
    (out, unlabelled)
}

/// Places for a text above, then below a line, from its quiet end on.
pub(super) fn along(text: &str, a: (f64, f64), b: (f64, f64), slope: bool) -> impl Iterator<Item = Patch> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (length, angle) = (dx.hypot(dy), dy.atan2(dx));
    let half = Patch::text(text, NAME, a, 0.0);
    let need = half.wide() + 24.0;
    let steps = ((length - need) / 14.0).floor().max(-1.0) as i64;
    let text = text.to_string();
    [-1.0, 1.0].into_iter().flat_map(move |side| {
        let text = text.clone();
        (0..=steps).map(move |step| {
            let offset = need / 2.0 + step as f64 * 14.0;
            let t = if slope { offset } else { length - offset };
            let (sin, cos) = angle.sin_cos();
            // 20 pixels off the line, so that halo and line do not meet.
            let lift = side * 20.0;
            Patch::text(&text, NAME, (a.0 + t * cos - lift * sin, a.1 + t * sin + lift * cos), angle)
        })
    })
}

/// The ridge: a ring, a dotted line down to the axis, its value, and names of the two sides.
fn ridge(scene: &Scene, frame: &Frame, place: &Place, field: &mut Field) -> String {
    let Some((ridge, (x, y))) = scene.ridge.and_then(|r| place.at((r.x, r.y)).map(|at| (r, at))) else { return String::new() };
    let bottom = f64::from(frame.bottom);
    field.avoid(Patch::line((x, y), (x, bottom), 3.0));
    let mut out = format!(
        "<g class=\"ridge\"><title>{}</title><path d=\"M{x} {y}V{bottom}\" stroke=\"{GREY}\" stroke-width=\"3\" stroke-dasharray=\"3 9\" \
         stroke-linecap=\"round\"/><circle cx=\"{x}\" cy=\"{y}\" r=\"8\" fill=\"#fff\" stroke=\"{GREY}\" stroke-width=\"4\"/></g>\n",
        xml(&format!("Ridge at {} FLOP/byte, {}", Intensity(ridge.x), FlopRate(ridge.y)))
    );
    let row = bottom - 28.0;
    let mut put = |text: &str, middle: f64, rest: &str| {
        let up = (0..6).map(|i| Patch::text(text, NAME, (middle, row - 34.0 * f64::from(i)), 0.0));
        field.place(up).map_or(String::new(), |(_, patch)| label(&patch, text, NAME, rest))
    };
    let value = format!("ridge {} FLOP/byte", Intensity(ridge.x));
    let wide = Patch::text(&value, NAME, (0.0, 0.0), 0.0).wide();
    let right = x + wide + 24.0 < f64::from(frame.right);
    out += &put(&value, if right { x + wide / 2.0 + 14.0 } else { x - wide / 2.0 - 14.0 }, &format!("fill=\"{INK}\""));
    let side = format!("fill=\"{GREY}\" font-style=\"italic\"");
    out += &put("memory-bound", (f64::from(frame.left) + x) / 2.0, &side);
    out + &put("compute-bound", (f64::from(frame.right) + x) / 2.0 + wide / 2.0, &side)
}

/// Whiskers, then markers, so that no line covers a marker; and the rows that got none.
fn markers(view: &View, scene: &Scene, place: &Place) -> (String, Vec<usize>) {
    let looks = marks::looks(view);
    let (mut whiskers, mut markers, mut outside) = (String::new(), String::new(), Vec::new());
    for point in &scene.points {
        let Some((x, y)) = place.at((point.x, point.y)) else {
            outside.push(point.row);
            continue;
        };
        whiskers += &whisker(point, scene, place, (x, y));
        let row = &view.rows[point.row];
        let _ = writeln!(
            markers,
            "<g class=\"mark\" data-row=\"{}\" transform=\"translate({x} {y})\"><title>{}</title>{}</g>",
            xml(&row.id),
            xml(&legend::sentence(row, point)),
            marks::marker(looks[point.row], point)
        );
    }
    (whiskers + &markers, outside)
}

/// A small dot for each point of the ramp.
fn ramp(view: &View, scene: &Scene, place: &Place) -> String {
    let mut out = String::new();
    for step in &scene.ramp {
        let Some((x, y)) = place.at((step.x, step.y)) else { continue };
        let row = &view.ramp[step.row];
        let share = row.roof_fraction.filter(|f| f.is_finite()).map_or(String::new(), |f| format!(", {:.0} % of its roof", 100.0 * f));
        let doubt = if step.doubted { " SUSPECT" } else { "" };
        let title = format!("ramp: {} at {} FLOP/byte{share}{doubt}", FlopRate(step.y), Intensity(step.x));
        let paint = if step.doubted { format!("fill=\"#fff\" stroke=\"{INK}\" stroke-width=\"2\"") } else { format!("fill=\"{INK}\"") };
        let _ = writeln!(
            out,
            "<g class=\"ramp\" data-row=\"{}\"><title>{}</title><circle cx=\"{x}\" cy=\"{y}\" r=\"{RAMP}\" {paint}/></g>",
            xml(&row.id),
            xml(&title)
        );
    }
    out
}

/// The letters that find a place beside their marker, and how many.
fn letters(scene: &Scene, place: &Place, field: &mut Field) -> (String, usize) {
    let (mut letters, mut count) = (String::new(), 0);
    for point in scene.points.iter().take(legend::MOST) {
        let Some(at) = place.at((point.x, point.y)) else { continue };
        if let Some((_, patch)) = field.place(around(&point.key, at)) {
            letters += &leader(at, &patch);
            letters += &label(&patch, &point.key, LETTER, &format!("font-weight=\"bold\" fill=\"{INK}\""));
            count += 1;
        }
    }
    (letters, count)
}

/// Places around a marker, nearest first, right and above before left and below.
pub(super) fn around(text: &str, (x, y): (f64, f64)) -> impl Iterator<Item = Patch> {
    let rings = [30.0, 36.0, 46.0, 60.0, 78.0, 100.0, 130.0];
    let angles = [-45, 0, -90, 45, -135, 180, 90, 135, -22, 22, -68, -112, -158, 158, 112, 68].map(|a: i32| f64::from(a).to_radians());
    let text = text.to_string();
    rings.into_iter().flat_map(move |r| {
        let text = text.clone();
        angles.into_iter().map(move |a| Patch::text(&text, LETTER, (x + r * a.cos(), y + r * a.sin()), 0.0))
    })
}

/// A thin line from a marker to a letter that had to go far.
pub(super) fn leader(spot: (f64, f64), patch: &Patch) -> String {
    led(spot, (patch.x, patch.y), marks::HALF).map_or(String::new(), |((x0, y0), (x1, y1))| {
        let path = format!("M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}");
        format!("<path class=\"leader\" d=\"{path}\" stroke=\"{GREY}\" stroke-width=\"1.5\"/>\n")
    })
}

/// The ends of a line from `clear` pixels off a marker to a text; none where the text is near.
pub(super) fn led((x, y): (f64, f64), (to_x, to_y): (f64, f64), clear: f64) -> Option<((f64, f64), (f64, f64))> {
    let (dx, dy) = (to_x - x, to_y - y);
    let far = dx.hypot(dy);
    let at = |share: f64| (x + dx * share, y + dy * share);
    (far >= 45.0).then(|| (at(clear / far), at(1.0 - 14.0 / far)))
}

/// A line left to the intensity by moved bytes, and one up and down over the interval where it would be seen.
fn whisker(point: &Point, scene: &Scene, place: &Place, (x, y): (f64, f64)) -> String {
    let mut path = String::new();
    if let Some(moved) = point.moved
        && let Some((end, _)) = place.at((moved.max(scene.x.min), point.y))
    {
        let tick = if moved < scene.x.min { "m12 -8l-12 8l12 8".to_string() } else { "m0 -9v18".into() };
        let _ = write!(path, "M{x} {y}H{end}{tick}");
    }
    let inside = |rate: f64| place.at((point.x, rate.clamp(scene.y.min, scene.y.max)));
    if let Some((low, high)) = point.ends
        && let (Some((_, low)), Some((_, high))) = (inside(low), inside(high))
        && low - high > 2.0 * marks::HALF
    {
        let _ = write!(path, "M{} {low}h12m-6 0V{high}m-6 0h12", x - 6.0);
    }
    if path.is_empty() {
        path
    } else {
        format!("<path class=\"whisker\" d=\"{path}\" fill=\"none\" stroke=\"{GREY}\" stroke-width=\"3\"/>\n")
    }
}
