//! Where texts go, so that none covers another, a marker or the edge.
//!
//! Widths are estimated at 0.6 em a character, wider than any sans-serif face sets ordinary text, since no font is at hand; the few
//! letters that are wider, which matter where one stands alone, at 0.95 em.

use std::collections::BTreeMap;

/// Estimated width of a character in em.
pub(super) const EM: f64 = 0.6;
/// Letters wider than that, and by how much in em: a bold W takes 0.94.
const BROAD: (&str, f64) = ("MWmw", 0.35);
/// Height taken by a line of text in em: capitals and descenders.
pub(super) const TALL: f64 = 0.95;

/// A rectangle turned by `angle` radians about its centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Patch {
    pub x: f64,
    pub y: f64,
    half_wide: f64,
    half_tall: f64,
    pub angle: f64,
}

impl Patch {
    /// Around a text of `size` pixels centred at (x, y).
    pub fn text(text: &str, size: f64, (x, y): (f64, f64), angle: f64) -> Self {
        let broad = text.chars().filter(|&c| BROAD.0.contains(c)).count() as f64;
        let wide = (super::super::text::width(text) as f64 * EM + broad * BROAD.1) * size;
        Patch { x, y, half_wide: wide / 2.0, half_tall: TALL * size / 2.0, angle }
    }

    /// A square around a marker.
    pub fn square((x, y): (f64, f64), half: f64) -> Self {
        Patch { x, y, half_wide: half, half_tall: half, angle: 0.0 }
    }

    /// Around a line of some pixels' width.
    pub fn line((x0, y0): (f64, f64), (x1, y1): (f64, f64), wide: f64) -> Self {
        let (dx, dy) = (x1 - x0, y1 - y0);
        Patch { x: (x0 + x1) / 2.0, y: (y0 + y1) / 2.0, half_wide: dx.hypot(dy) / 2.0, half_tall: wide / 2.0, angle: dy.atan2(dx) }
    }

    /// Pixels along the text.
    pub fn wide(&self) -> f64 {
        2.0 * self.half_wide
    }

    fn corners(&self) -> [(f64, f64); 4] {
        let (sin, cos) = self.angle.sin_cos();
        [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(a, b)| {
            let (u, v) = (a * self.half_wide, b * self.half_tall);
            (self.x + u * cos - v * sin, self.y + u * sin + v * cos)
        })
    }

    /// Whether two patches share a point: they do unless one of their four edge directions separates them.
    pub fn touches(&self, other: &Patch) -> bool {
        let reach = self.half_wide.hypot(self.half_tall) + other.half_wide.hypot(other.half_tall);
        if (self.x - other.x).hypot(self.y - other.y) > reach {
            return false;
        }
        let (mine, others) = (self.corners(), other.corners());
        let directions = [self.angle, other.angle].into_iter().flat_map(|a| [a, a + std::f64::consts::FRAC_PI_2]);
        directions.into_iter().all(|angle| {
            let (sin, cos) = angle.sin_cos();
            let span = |corners: &[(f64, f64); 4]| {
                let along = corners.map(|(x, y)| x * cos + y * sin);
                (along.iter().copied().fold(f64::MAX, f64::min), along.iter().copied().fold(f64::MIN, f64::max))
            };
            let ((a0, a1), (b0, b1)) = (span(&mine), span(&others));
            a0 <= b1 && b0 <= a1
        })
    }

    fn inside(&self, (left, top, right, bottom): (f64, f64, f64, f64)) -> bool {
        self.corners().iter().all(|&(x, y)| x >= left && x <= right && y >= top && y <= bottom)
    }
}

/// Patches, found by the squares of a coarse raster that they reach into: thousands of markers are asked about for each letter.
#[derive(Default)]
struct Raster {
    patches: Vec<Patch>,
    squares: BTreeMap<(i32, i32), Vec<usize>>,
}

impl Raster {
    /// Side of a square in pixels.
    const SIDE: f64 = 80.0;

    fn squares(patch: &Patch) -> impl Iterator<Item = (i32, i32)> {
        let corners = patch.corners();
        let ends = |along: fn(&(f64, f64)) -> f64| {
            let squares = corners.each_ref().map(|c| (along(c) / Self::SIDE).floor() as i32);
            squares.into_iter().min().zip(squares.into_iter().max()).unwrap_or_default()
        };
        let ((left, right), (top, bottom)) = (ends(|c| c.0), ends(|c| c.1));
        (left..=right).flat_map(move |x| (top..=bottom).map(move |y| (x, y)))
    }

    fn add(&mut self, patch: Patch) {
        for square in Self::squares(&patch) {
            self.squares.entry(square).or_default().push(self.patches.len());
        }
        self.patches.push(patch);
    }

    fn touches(&self, patch: &Patch) -> bool {
        Self::squares(patch).filter_map(|s| self.squares.get(&s)).flatten().any(|&index| self.patches[index].touches(patch))
    }
}

/// The plot's area with what is taken of it.
pub(super) struct Field {
    /// Left, top, right, bottom.
    bounds: (f64, f64, f64, f64),
    /// Never covered: texts and markers.
    taken: Raster,
    /// Covered only where there is no other place: lines.
    lines: Raster,
}

impl Field {
    /// An empty field.
    pub fn new(bounds: (f64, f64, f64, f64)) -> Self {
        Field { bounds, taken: Raster::default(), lines: Raster::default() }
    }

    /// Marks a place as never to be covered.
    pub fn take(&mut self, patch: Patch) {
        self.taken.add(patch);
    }

    /// Marks a line as better not covered.
    pub fn avoid(&mut self, line: Patch) {
        self.lines.add(line);
    }

    /// Takes the first free candidate and gives its index; one that crosses a line only if all the others do or are taken.
    pub fn place(&mut self, candidates: impl Iterator<Item = Patch>) -> Option<(usize, Patch)> {
        self.place_led(candidates.map(|patch| (patch, None)))
    }

    /// The same for texts that a line may lead to, which is to be as free as they are.
    pub fn place_led(&mut self, candidates: impl Iterator<Item = (Patch, Option<Patch>)>) -> Option<(usize, Patch)> {
        let mut chosen = None;
        for (index, (patch, leader)) in candidates.enumerate() {
            let any = |touches: &dyn Fn(&Patch) -> bool| touches(&patch) || leader.as_ref().is_some_and(touches);
            if !patch.inside(self.bounds) || any(&|patch| self.taken.touches(patch)) {
                continue;
            }
            let crosses = any(&|patch| self.lines.touches(patch));
            if !crosses {
                chosen = Some((index, patch, leader));
                break;
            }
            chosen = chosen.or(Some((index, patch, leader)));
        }
        let (index, patch, leader) = chosen?;
        self.taken.add(patch);
        leader.into_iter().for_each(|leader| self.taken.add(leader));
        Some((index, patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turned_patches_touch_only_where_they_share_a_point() {
        let flat = Patch::line((0.0, 0.0), (100.0, 0.0), 10.0);
        assert!(flat.touches(&Patch::line((50.0, -40.0), (50.0, 40.0), 4.0)));
        assert!(!flat.touches(&Patch::line((0.0, -20.0), (100.0, -8.0), 4.0)));
        // Axis-aligned boxes around these two diagonals overlap; the diagonals do not.
        let up = Patch::line((0.0, 0.0), (100.0, 100.0), 4.0);
        assert!(!up.touches(&Patch::line((30.0, 0.0), (130.0, 100.0), 4.0)));
    }
}
