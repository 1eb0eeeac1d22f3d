//! A grid of character cells, each either a letter or eight Braille dots (one character in ASCII).

use super::Style;

/// What a cell holds; later kinds win over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// Braille dots, bit by bit; 0 is empty.
    Dots(u8),
    /// A line in ASCII.
    Stroke(char),
    /// The digit of a roof.
    Tag(char),
    /// A kernel's letter.
    Point { letter: char, doubted: bool },
}

/// The canvas; (0, 0) is the upper left.
pub(super) struct Canvas {
    wide: usize,
    tall: usize,
    cells: Vec<Cell>,
    style: Style,
}

/// Bit of each of the 2 × 4 dots of a Braille character, by row, then column (Unicode block U+2800).
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Canvas {
    pub fn new(wide: usize, tall: usize, style: &Style) -> Self {
        Canvas { wide, tall, cells: vec![Cell::Dots(0); wide * tall], style: *style }
    }

    /// A straight line between two points given as shares of width and height; `stroke` stands for it in ASCII.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: char) {
        let dots = (self.wide * 2, self.tall * 4);
        let steps = 2 * dots.0.max(dots.1);
        for step in 0..=steps {
            let t = step as f64 / steps as f64;
            let at = |a: f64, b: f64, cells: usize| (((a + (b - a) * t) * cells as f64).max(0.0) as usize).min(cells - 1);
            let (x, y) = (at(from.0, to.0, dots.0), at(from.1, to.1, dots.1));
            let cell = &mut self.cells[y / 4 * self.wide + x / 2];
            match cell {
                _ if self.style.ascii => *cell = Cell::Stroke(stroke),
                Cell::Dots(bits) => *bits |= DOTS[y % 4][x % 2],
                _ => {}
            }
        }
    }

    /// A roof's tag near `at`: further along to the right (from the left end) or to the left, where another tag is.
    pub fn tag(&mut self, at: (usize, usize), tag: char, rightwards: bool) {
        let mut x = at.0;
        while matches!(self.cells[at.1 * self.wide + x], Cell::Tag(_)) {
            match (rightwards, x) {
                (true, x) if x + 1 >= self.wide => return,
                (false, 0) => return,
                _ => {}
            }
            x = if rightwards { x + 1 } else { x - 1 };
        }
        self.cells[at.1 * self.wide + x] = Cell::Tag(tag);
    }

    /// A kernel's letter; the first one of a cell stays, the legend tells of the others.
    pub fn point(&mut self, at: (usize, usize), letter: char, doubted: bool) {
        let cell = &mut self.cells[at.1 * self.wide + at.0];
        if !matches!(cell, Cell::Point { .. }) {
            *cell = Cell::Point { letter, doubted };
        }
    }

    /// One row of text.
    pub fn row(&self, row: usize) -> String {
        let mut out = String::new();
        for cell in &self.cells[row * self.wide..(row + 1) * self.wide] {
            let (c, code) = match *cell {
                Cell::Dots(0) => (' ', ""),
                Cell::Dots(bits) => (char::from_u32(0x2800 + bits as u32).unwrap_or(' '), "2"),
                Cell::Stroke(c) => (c, "2"),
                Cell::Tag(c) => (c, "2"),
                Cell::Point { letter, doubted: false } => (letter, "1;36"),
                Cell::Point { letter, doubted: true } => (letter, "1;33"),
            };
            if self.style.colour && !code.is_empty() {
                out += &format!("\u{1b}[{code}m{c}\u{1b}[0m");
            } else {
                out.push(c);
            }
        }
        out
    }
}
