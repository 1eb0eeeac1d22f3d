//! The only module that speaks to plotters: grid, areas and lines in, SVG elements and pixels out.
//!
//! plotters 0.3.7 draws NaN, zero and infinity as ordinary points at an edge, and its own logarithmic ticks can loop for ever.
//! So a value enters only as a [`Spot`], which is finite, positive and inside the axes, and ticks are always given explicitly.

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::prelude::*;

use super::super::scene::Axis;
use crate::error::{Error, Result};

/// Size of the picture and the plot's rectangle in it, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub width: i32,
    pub height: i32,
    pub left: i32,
    pub top: i32,
    pub right: i32,
    pub bottom: i32,
}

/// Both axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes {
    pub x: Axis,
    pub y: Axis,
}

/// A place inside the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spot {
    x: f64,
    y: f64,
}

impl Axes {
    /// The place of (x, y), if it is finite, positive and inside; a rounding error beyond the edge is pulled in.
    pub fn spot(&self, (x, y): (f64, f64)) -> Option<Spot> {
        let inside = |v: f64, axis: &Axis| {
            let kept = v.is_finite() && v > 0.0 && v >= axis.min * (1.0 - 1e-9) && v <= axis.max * (1.0 + 1e-9);
            kept.then(|| v.clamp(axis.min, axis.max))
        };
        Some(Spot { x: inside(x, &self.x)?, y: inside(y, &self.y)? })
    }
}

/// What plotters draws.
pub(super) enum Shape {
    /// A filled polygon: corners, colour, opacity.
    Area(Vec<Spot>, [u8; 3], f64),
    /// A line: its ends, colour, width in pixels.
    Line([Spot; 2], [u8; 3], u32),
}

/// Draws a grid and `shapes`; `overlay` may ask for the pixel of any spot. Returns the elements, without the outer tag, and
/// what `overlay` made.
///
/// # Errors
/// [`Error::Backend`] where plotters itself fails.
pub(super) fn draw<T>(
    frame: Frame,
    axes: Axes,
    shapes: &[Shape],
    overlay: impl FnOnce(&dyn Fn(Spot) -> (i32, i32)) -> T,
) -> Result<(String, T)> {
    let mut text = String::new();
    let made = paint(&mut text, frame, axes, shapes, overlay).map_err(|why| Error::Backend { backend: "plotters", why })?;
    let inner = text.split_once('>').map(|(_, rest)| rest.trim_end().trim_end_matches("</svg>"));
    let inner = inner.ok_or_else(|| Error::Backend { backend: "plotters", why: "wrote no SVG".into() })?;
    Ok((inner.trim().to_string(), made))
}

fn paint<T>(
    text: &mut String,
    frame: Frame,
    axes: Axes,
    shapes: &[Shape],
    overlay: impl FnOnce(&dyn Fn(Spot) -> (i32, i32)) -> T,
) -> std::result::Result<T, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let root = SVGBackend::with_string(text, (frame.width as u32, frame.height as u32)).into_drawing_area();
    let axis = |axis: Axis| {
        let (bold, light) = axis.ticks();
        (axis.min..axis.max).log_scale().with_key_points(bold).with_light_points(light)
    };
    let mut chart = ChartBuilder::on(&root)
        .margin_left(frame.left)
        .margin_top(frame.top)
        .margin_right(frame.width - frame.right)
        .margin_bottom(frame.height - frame.bottom)
        .build_cartesian_2d(axis(axes.x), axis(axes.y))
        .map_err(|e| told(&e))?;
    let grid = |level: u8| RGBColor(level, level, level).stroke_width(2);
    let mut mesh = chart.configure_mesh();
    mesh.disable_axes().bold_line_style(grid(221)).light_line_style(grid(242)).draw().map_err(|e| told(&e))?;
    let pair = |s: &Spot| (s.x, s.y);
    for shape in shapes {
        match shape {
            Shape::Area(corners, [r, g, b], alpha) => {
                let area = Polygon::new(corners.iter().map(pair).collect::<Vec<_>>(), RGBColor(*r, *g, *b).mix(*alpha).filled());
                chart.draw_series([area]).map_err(|e| told(&e))?;
            }
            Shape::Line(ends, [r, g, b], width) => {
                let line = LineSeries::new(ends.iter().map(pair), RGBColor(*r, *g, *b).stroke_width(*width));
                chart.draw_series(line).map_err(|e| told(&e))?;
            }
        }
    }
    let made = overlay(&|spot| chart.backend_coord(&(spot.x, spot.y)));
    root.present().map_err(|e| told(&e))?;
    Ok(made)
}
