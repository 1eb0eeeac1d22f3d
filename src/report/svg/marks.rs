//! Markers: a shape for each op, a colour for each variant of an op, hollow where the rate is doubted, hollow with a dot where a
//! vendor's library ran.

use std::fmt::Write;

use super::super::scene::Point;
use crate::view::View;

/// The palette of Okabe and Ito, which the common kinds of colour blindness tell apart; yellow is left out: too pale on white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Half of a marker's size in pixels.
pub(super) const HALF: f64 = 12.0;

/// Shape and colour of one kind of row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    shape: usize,
    colour: &'static str,
}

/// The look of each row of a view, by row.
pub(super) fn looks(view: &View) -> Vec<Look> {
    let (mut ops, mut kinds) = (Vec::new(), Vec::new());
    let index = |known: &mut Vec<String>, name: String| {
        known.iter().position(|k| *k == name).unwrap_or_else(|| {
            known.push(name);
            known.len() - 1
        })
    };
    let look = |row: &crate::view::Row| Look {
        shape: index(&mut ops, row.op.clone()),
        colour: COLOURS[index(&mut kinds, format!("{}\n{}", row.op, row.variant)) % COLOURS.len()],
    };
    view.rows.iter().map(look).collect()
}

/// The look of a family of lines.
pub(super) fn look(family: usize) -> Look {
    Look { shape: family, colour: COLOURS[family % COLOURS.len()] }
}

impl Look {
    /// As SVG has it.
    pub fn colour(&self) -> &'static str {
        self.colour
    }

    /// A darker one of the same hue, for texts: pale letters are lost on white and in grey.
    pub fn dark(&self) -> String {
        let part = |at: usize| u32::from_str_radix(&self.colour[at..at + 2], 16).unwrap_or(0) * 3 / 5;
        format!("#{:02x}{:02x}{:02x}", part(1), part(3), part(5))
    }
}

/// The SVG element of the marker of a point, centred at the origin: hollow with a dot for a library.
pub(super) fn marker(look: Look, point: &Point) -> String {
    let dot = if point.reference { format!(r#"<circle r="3.5" fill="{}"/>"#, look.colour) } else { String::new() };
    outline(look, point.doubted || point.reference) + &dot
}

/// The SVG element of a marker centred at the origin.
pub(super) fn outline(look: Look, hollow: bool) -> String {
    let paint = if hollow {
        format!(r##"fill="#fff" stroke="{}" stroke-width="5""##, look.colour)
    } else {
        format!(r##"fill="{}" stroke="#fff" stroke-width="2.5""##, look.colour)
    };
    let r = if hollow { HALF - 2.0 } else { HALF };
    match look.shape % 6 {
        0 => format!(r#"<circle r="{r}" {paint}/>"#),
        1 => format!(r#"<rect x="{0:.1}" y="{0:.1}" width="{1:.1}" height="{1:.1}" {paint}/>"#, -0.9 * r, 1.8 * r),
        shape => {
            let (corners, turn) = [(4, 0.0), (3, 0.0), (3, 180.0), (6, 0.0)][shape - 2];
            let mut points = String::new();
            for corner in 0..corners {
                let angle = (turn - 90.0 + 360.0 / corners as f64 * corner as f64).to_radians();
                let _ = write!(points, "{:.1},{:.1} ", 1.25 * r * angle.cos(), 1.25 * r * angle.sin());
            }
            format!(r#"<polygon points="{}" {paint}/>"#, points.trim_end())
        }
    }
}
