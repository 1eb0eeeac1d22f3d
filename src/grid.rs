//! A table of text before it is written: cells, and columns that know how to give way where room is short.

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its title where there is room: in Markdown.
    pub name: &'static str,
    /// Its title in a terminal.
    pub title: &'static str,
    /// Whether it is aligned to the right.
    pub right: bool,
    /// Columns that it may be cut to before others are dropped, where it may be cut.
    pub least: Option<usize>,
    /// Whether its last word stays whole when it is cut.
    pub tail: bool,
    /// When it is dropped, where it may be: the lowest first.
    pub drop: Option<u8>,
}

impl Column {
    /// Left-aligned: text.
    pub const fn left(name: &'static str) -> Self {
        Column { name, title: name, right: false, least: None, tail: false, drop: None }
    }

    /// Right-aligned: numbers.
    pub const fn right(name: &'static str) -> Self {
        Column { right: true, ..Self::left(name) }
    }

    /// Under a shorter title in a terminal.
    pub const fn titled(self, title: &'static str) -> Self {
        Column { title, ..self }
    }

    /// May be cut to `least` columns where room is short, and to fewer once nothing is left to drop.
    pub const fn shrinks(self, least: usize) -> Self {
        Column { least: Some(least), ..self }
    }

    /// As `shrinks`, but the last word stays whole: a share, a filter's size.
    pub const fn shrinks_before_tail(self, least: usize) -> Self {
        Column { least: Some(least), tail: true, ..self }
    }

    /// May be dropped where shortening and shrinking are not enough; the lowest `order` goes first.
    pub const fn drops(self, order: u8) -> Self {
        Column { drop: Some(order), ..self }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, a cell for each column.
    pub rows: Vec<Vec<String>>,
}
