//! What a study's picture shows, before any pixel.

use crate::op::stream::Kind;
use crate::units::{ByteRate, FlopRate};

/// Panels side by side under one title.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// Left to right.
    pub panels: Vec<Panel>,
}

impl Figure {
    /// Whether anything that was measured is in it.
    pub fn measured(&self) -> bool {
        let lines = self.panels.iter().flat_map(|panel| &panel.lines);
        lines.filter(|line| matches!(line.look, Look::Measured | Look::Points)).any(|line| !line.marks.is_empty())
    }
}

/// One plot on two logarithmic axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// Drawn in this order, later ones on top.
    pub lines: Vec<Line>,
}

/// What an axis measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Its name, without the unit.
    pub name: &'static str,
    /// Unit of its values.
    pub quantity: Quantity,
}

/// Units of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// FLOP per byte.
    Intensity,
    /// FLOP/s.
    FlopRate,
    /// ns.
    Time,
    /// Bytes, in octaves.
    Bytes,
    /// A number of things, in octaves.
    Count,
    /// Samples a second.
    Rate,
    /// Parts of a million.
    Millionths,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A thin grey line: what the device can do.
    Roof,
    /// Markers joined by a line.
    Measured,
    /// Markers alone.
    Points,
    /// A dashed line: what was predicted or planned.
    Predicted,
}

/// A line of places.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Written beside its end; of points that have names of their own, a legend below the panels. Empty where neither is wanted.
    pub name: String,
    /// How it looks.
    pub look: Look,
    /// Lines of one family have the same marker and colour.
    pub family: usize,
    /// In the order in which they are joined.
    pub marks: Vec<Mark>,
}

/// A place on a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Written beside it where not empty.
    pub name: String,
    /// Hollow: what was measured for it is doubted.
    pub doubted: bool,
}

impl Mark {
    /// A place without a name.
    pub fn at(x: f64, y: f64) -> Self {
        Mark { x, y, name: String::new(), doubted: false }
    }
}

impl Panel {
    /// A panel with the roofs of a device: memory up to the ridge, arithmetic from it on, over these intensities.
    pub(super) fn roofline((flop_per_s, (mix, byte_per_s)): (f64, (Kind, f64)), (least, most): (f64, f64)) -> Self {
        let ridge = flop_per_s / byte_per_s;
        let roof = |name: String, from: f64, to: f64| Line {
            name,
            look: Look::Roof,
            family: 0,
            marks: [from, to].map(|x| Mark::at(x, flop_per_s.min(byte_per_s * x))).into(),
        };
        Panel {
            x: Axis { name: "Compulsory intensity", quantity: Quantity::Intensity },
            y: Axis { name: "Performance", quantity: Quantity::FlopRate },
            lines: vec![
                roof(format!("DRAM {} {}", mix.name(), ByteRate(byte_per_s)), least.min(ridge / 4.0), ridge),
                roof(format!("f32 {}", FlopRate(flop_per_s)), ridge, most.max(4.0 * ridge)),
            ],
        }
    }
}
