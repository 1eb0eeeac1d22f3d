//! Units of work of a layer of images: a band of output rows of an image for a piece of its channels.

use std::ops::Range;

/// How a layer is cut. Pieces of a band follow each other, then bands of an image, then images.
#[derive(Clone, Copy)]
pub(crate) struct Units {
    images: usize,
    /// Output rows of an image, and of a band.
    rows: usize,
    band: usize,
    pieces: usize,
}

/// One of them.
pub(crate) struct Unit {
    pub(crate) image: usize,
    /// Output rows of the image.
    pub(crate) rows: Range<usize>,
    pub(crate) piece: usize,
}

impl Units {
    pub(crate) fn new(images: usize, (rows, band): (usize, usize), pieces: usize) -> Self {
        Units { images, rows, band, pieces }
    }

    /// Output rows of a band, but for an image's last one, which may have fewer.
    pub(crate) fn band(&self) -> usize {
        self.band
    }

    fn bands(&self) -> usize {
        self.rows.div_ceil(self.band)
    }

    pub(crate) fn count(&self) -> usize {
        self.images * self.bands() * self.pieces
    }

    pub(crate) fn at(&self, number: usize) -> Unit {
        let row = number / self.pieces % self.bands() * self.band;
        let image = number / self.pieces / self.bands();
        Unit { image, rows: row..(row + self.band).min(self.rows), piece: number % self.pieces }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Unit> {
        (0..self.count()).map(|number| self.at(number))
    }
}
