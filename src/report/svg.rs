//! `roofline.svg`: the picture of a view.
//!
//! plotters draws grid, bands and lines ([`plot`]); markers, texts and legend are written here, because plotters gives no ids
//! and has no font to measure with. Each marker carries its row in `data-row` and a `<title>`; the group `plot` carries the
//! axes' bounds and pixels, so that a reader (and a test) can turn pixels back into values. All lengths are in pixels of a
//! picture drawn at twice its shown size, which hides plotters' rounding to whole pixels. The same view gives the same bytes.

mod figure;
mod labels;
mod legend;
mod marks;
mod overlay;
mod plot;

pub use figure::figure;
use plot::{Axes, Frame, Shape};

use super::scene::{LeftOut, Roof, Scene};
use super::text::{fit, xml};
use super::{heading, scene};
use crate::error::Result;
use crate::view::View;

/// Pixels across; shown at half of that.
const WIDTH: i32 = 1920;
/// Where the legend begins.
const LEGEND: i32 = 1190;
/// Typeface; no font is embedded.
const FONT: &str = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif";
/// Texts.
const INK: &str = "#1b1f24";
/// Lesser texts.
const GREY: &str = "#57606a";

/// A picture and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The file's text.
    pub svg: String,
    /// Rows drawn, each by exactly one marker.
    pub drawn: usize,
    /// Rows not drawn: with `drawn`, all rows of the view.
    pub left_out: Vec<LeftOut>,
    /// Ceilings that cannot be drawn. Directions that would only crowd the picture are no part of this list.
    pub roofs_left_out: Vec<LeftOut>,
}

/// Draws a view.
///
/// # Errors
/// [`crate::Error::Backend`] where plotters fails, which no value in the view can cause.
pub fn roofline(view: &View) -> Result<Picture> {
    let scene = Scene::of(view);
    let frame = Frame { width: WIDTH, height: LEGEND, left: 170, top: 150, right: WIDTH - 50, bottom: 1060 };
    let axes = Axes { x: scene.x, y: scene.y };
    let shapes = shapes(&scene, &axes);
    let (grid, over) = plot::draw(frame, axes, &shapes, |pixel| overlay::draw(view, &scene, &axes, &frame, pixel))?;
    let legend = legend::draw(view, &scene, LEGEND, &over);
    let (title, facts) = heading(&view.header);
    let elements = format!("{grid}\n{}{}", over.elements, legend.elements);
    let svg = sheet(&format!("Roofline of {title}"), &facts, &elements, LEGEND + legend.height);
    let drawn = scene.points.len() - over.outside.len();
    let outside = over.outside.iter().map(|&row| LeftOut { id: view.rows[row].id.clone(), why: "it lies outside the axes".into() });
    let left_out = scene.left_out.into_iter().chain(outside).collect();
    Ok(Picture { svg, drawn, left_out, roofs_left_out: scene.roofs_left_out })
}

/// Title and subtitle.
fn caption(title: &str, facts: &str) -> String {
    let line = |y: i32, size: i32, rest: &str, text: &str| {
        let room = (1700.0 / (labels::EM * f64::from(size))) as usize;
        format!("<text x=\"50\" y=\"{y}\" font-size=\"{size}\" {rest}>{}</text>\n", xml(&fit(text, room, false)))
    };
    line(68, 38, &format!("font-weight=\"bold\" fill=\"{INK}\""), title) + &line(110, 25, &format!("fill=\"{GREY}\""), facts)
}

/// The whole file: caption and elements on white, `height` pixels tall.
fn sheet(title: &str, facts: &str, elements: &str, height: i32) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"{FONT}\" \
         role=\"img\">\n<title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n{}{elements}</svg>\n",
        WIDTH / 2,
        height / 2,
        xml(title),
        caption(title, facts),
    )
}

/// Colour and width of a roof's line: the slower the level, the darker; the strong line of a group is wide.
fn look(scene: &Scene, roof: &Roof) -> ([u8; 3], u32) {
    let colour = if roof.slope {
        let levels = scene.roofs.iter().filter(|r| r.slope && r.main);
        match levels.filter(|r| r.value < roof.value && r.group != roof.group).count() {
            0 => [38, 70, 110],
            1 => [84, 120, 160],
            2 => [130, 160, 192],
            _ => [168, 190, 212],
        }
    } else if roof.main && scene.ridge.is_none_or(|ridge| ridge.y == roof.value) {
        [60, 60, 60]
    } else {
        [140, 140, 140]
    };
    (colour, if roof.main { 5 } else { 2 })
}

/// Tints under the roof, bands of the roofs' intervals, and the roofs.
fn shapes(scene: &Scene, axes: &Axes) -> Vec<Shape> {
    let mut shapes = tints(scene, axes);
    let spots = |corners: &[(f64, f64)]| corners.iter().map(|&c| axes.spot(c)).collect::<Option<Vec<_>>>();
    let mut lines = Vec::new();
    for roof in scene.roofs.iter().rev() {
        let (colour, width) = look(scene, roof);
        let (low, high) = (scene.ends(roof, roof.low), scene.ends(roof, roof.high));
        if let (Some([a, b]), Some([c, d])) = (low, high)
            && let Some(corners) = spots(&[a, b, d, c])
        {
            shapes.push(Shape::Area(corners, colour, 0.18));
        }
        if let Some(ends) = scene.ends(roof, roof.value)
            && let (Some(from), Some(to)) = (axes.spot(ends[0]), axes.spot(ends[1]))
        {
            lines.push(Shape::Line([from, to], colour, width));
        }
    }
    shapes.extend(lines);
    shapes
}

/// Light areas: left of the ridge memory limits, right of it arithmetic.
fn tints(scene: &Scene, axes: &Axes) -> Vec<Shape> {
    let Some(scene::Ridge { x, y }) = scene.ridge else { return Vec::new() };
    let slope = y / x;
    let left = axes.x.min.max(axes.y.min / slope);
    let memory = [(left, axes.y.min), (left, (left * slope).max(axes.y.min)), (x, y), (x, axes.y.min)];
    let compute = [(x, axes.y.min), (x, y), (axes.x.max, y), (axes.x.max, axes.y.min)];
    let area = |corners: [(f64, f64); 4], colour| {
        let spots: Option<Vec<_>> = corners.into_iter().map(|c| axes.spot(c)).collect();
        spots.map(|spots| Shape::Area(spots, colour, 0.06))
    };
    [area(memory, [0, 114, 178]), area(compute, [213, 94, 0])].into_iter().flatten().collect()
}
