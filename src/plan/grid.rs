//! Work-groups as arithmetic over sizes and tiles: `n/BN,m/BM`.
//!
//! Whole numbers, `+ - * / %` and parentheses, one to three parts by comma. `/` rounds **up**, since a last tile that is not full needs
//! a group as well. `fold(E)` spreads E groups over two dimensions where one is too short, as our kernels do ([`super::fold`]).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Deepest nesting of parentheses.
const DEEPEST: u32 = 32;

/// A grid by its expressions; parsed once, worked out for each problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Grid {
    text: String,
    parts: Vec<Expression>,
    fold: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Number(u64),
    Name(String),
    Both(char, Box<Expression>, Box<Expression>),
}

impl Grid {
    /// Reads a grid such as `n/BN,m/BM`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the place where it cannot be read.
    pub fn parse(text: &str) -> Result<Self> {
        let folded = text.trim().strip_prefix("fold(").and_then(|rest| rest.strip_suffix(')'));
        let parts: Vec<&str> = folded.map_or_else(|| text.split(',').collect(), |inside| vec![inside]);
        if parts.len() > 3 {
            return Err(Error::usage(format!("grid '{text}' has {} parts; a grid has x, y and z at most", parts.len())));
        }
        let read = |part: &&str| {
            let mut reader = Reader { text: part, at: 0, depth: 0 };
            reader.whole().map_err(|why| Error::usage(format!("grid '{text}': {why}; write it as in n/BN,m/BM")))
        };
        Ok(Grid { text: text.into(), parts: parts.iter().map(read).collect::<Result<_>>()?, fold: folded.is_some() })
    }

    /// Work-groups along x, y and z, where names stand for these values.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is not there, and where a part is not between 1 and 2³² − 1.
    pub fn groups(&self, values: &[(&str, u64)]) -> Result<[u32; 3]> {
        let refused = |why: String| Error::usage(format!("grid '{}': {why}", self.text));
        if self.fold {
            let groups = self.parts[0].value(values).map_err(refused)?;
            return match groups {
                0 => Err(refused("it has no groups".into())),
                _ => Ok(super::fold(groups)),
            };
        }
        let mut grid = [1; 3];
        for ((groups, part), axis) in grid.iter_mut().zip(&self.parts).zip(["x", "y", "z"]) {
            let value = part.value(values).map_err(refused)?;
            *groups = u32::try_from(value)
                .ok()
                .filter(|&v| v > 0)
                .ok_or_else(|| refused(format!("{value} groups along {axis} are not between 1 and {}", u32::MAX)))?;
        }
        Ok(grid)
    }

    /// Whether a name occurs in it.
    pub fn names(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.names(name))
    }
}

impl TryFrom<String> for Grid {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Grid::parse(&text)
    }
}

impl From<Grid> for String {
    fn from(grid: Grid) -> String {
        grid.text
    }
}

impl Expression {
    fn value(&self, values: &[(&str, u64)]) -> Result<u64, String> {
        match self {
            Expression::Number(number) => Ok(*number),
            Expression::Name(name) => values.iter().find(|(known, _)| known == name).map(|&(_, value)| value).ok_or_else(|| {
                let known: Vec<_> = values.iter().map(|&(known, _)| known).collect();
                format!("there is no '{name}'; known names are {}", known.join(", "))
            }),
            Expression::Both(sign, a, b) => {
                let (a, b) = (a.value(values)?, b.value(values)?);
                let result = match sign {
                    '+' => a.checked_add(b),
                    '-' => a.checked_sub(b),
                    '*' => a.checked_mul(b),
                    '/' => (b > 0).then(|| a.div_ceil(b)),
                    _ => a.checked_rem(b),
                };
                result.ok_or_else(|| format!("{a} {sign} {b} is no whole number of 64 bits"))
            }
        }
    }

    fn names(&self, wanted: &str) -> bool {
        match self {
            Expression::Number(_) => false,
            Expression::Name(name) => name == wanted,
            Expression::Both(_, a, b) => a.names(wanted) || b.names(wanted),
        }
    }
}

/// A reader of one expression, by recursive descent.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl Reader<'_> {
    fn whole(&mut self) -> Result<Expression, String> {
        let read = self.sum()?;
        match self.peek() {
            None => Ok(read),
            Some(odd) => Err(format!("'{odd}' is not expected there")),
        }
    }

    fn sum(&mut self) -> Result<Expression, String> {
        let mut left = self.product()?;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            self.at += 1;
            left = Expression::Both(sign, left.into(), self.product()?.into());
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Expression, String> {
        let mut left = self.factor()?;
        while let Some(sign @ ('*' | '/' | '%')) = self.peek() {
            self.at += 1;
            left = Expression::Both(sign, left.into(), self.factor()?.into());
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Expression, String> {
        match self.peek() {
            Some('(') if self.depth == DEEPEST => Err(format!("parentheses are nested more than {DEEPEST} deep")),
            Some('(') => {
                (self.at, self.depth) = (self.at + 1, self.depth + 1);
                let inside = self.sum()?;
                if self.peek() != Some(')') {
                    return Err("a parenthesis is not closed".into());
                }
                (self.at, self.depth) = (self.at + 1, self.depth - 1);
                Ok(inside)
            }
            Some(c) if c.is_ascii_digit() => {
                let digits = self.word(|c| c.is_ascii_digit());
                digits.parse().map(Expression::Number).map_err(|_| format!("{digits} does not fit 64 bits"))
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                Ok(Expression::Name(self.word(|c| c.is_ascii_alphanumeric() || c == '_').into()))
            }
            Some(odd) => Err(format!("'{odd}' is not expected there")),
            None => Err("it ends where a number or a name is expected".into()),
        }
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn word(&mut self, belongs: fn(char) -> bool) -> &str {
        let rest = &self.text[self.at..];
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &[(&str, u64)] = &[("m", 100), ("n", 65), ("BM", 32), ("BN", 64)];

    #[test]
    fn a_grid_is_worked_out_with_division_that_rounds_up() {
        let cases = [
            ("n/BN,m/BM", [2, 4, 1]),
            ("7", [7, 1, 1]),
            (" ( m + n ) * 2 / 3 , m % BM - 1, 1+2*3", [110, 3, 7]),
            ("m/BM/2,m/(BM/2)", [2, 7, 1]),
            ("10-3-2", [5, 1, 1]),
            ("fold(m*n*1000/256)", super::super::fold(25_391)),
            ("fold(m*1000)", [25_000, 4, 1]),
        ];
        for (text, grid) in cases {
            assert_eq!(Grid::parse(text).and_then(|g| g.groups(VALUES)).expect(text), grid, "{text}");
        }
        assert!(Grid::parse("n/BN").is_ok_and(|g| g.names("BN") && !g.names("N")));
    }

    #[test]
    fn what_is_no_grid_is_refused_with_the_reason() {
        let cases = [
            ("", "ends"),
            ("n/", "ends"),
            ("n,,m", "ends"),
            ("(n", "not closed"),
            ("n)", "')'"),
            ("n m", "'m'"),
            ("n/BK", "no 'BK'; known names are m, n, BM, BN"),
            ("n^2", "'^'"),
            ("1,2,3,4", "4 parts"),
            ("n-m", "65 - 100"),
            ("n/0", "65 / 0"),
            ("n%(m-m)", "65 % 0"),
            ("m-m", "0 groups along x"),
            ("fold(m-m)", "no groups"),
            ("fold(m,n)", "','"),
            ("fold(m)+(n)", "')'"),
            ("1,4294967296", "4294967296 groups along y"),
            ("99999999999999999999", "64 bits"),
            ("18446744073709551615*2", "64 bits"),
            ("2\u{d7}n", "'\u{d7}'"),
        ];
        for (text, says) in cases {
            let refused = Grid::parse(text).and_then(|g| g.groups(VALUES)).expect_err(text).to_string();
            assert!(refused.contains(says) && !refused.contains('\n'), "{text}: {refused}");
        }
        let deep = "(".repeat(100_000);
        assert!(Grid::parse(&deep).is_err());
    }

    #[test]
    fn a_grid_travels_as_its_text() {
        let grid = Grid::parse("n/BN,m/BM").expect("a grid");
        let text = serde_json::to_string(&grid).expect("JSON");
        assert_eq!(text, "\"n/BN,m/BM\"");
        assert_eq!(serde_json::from_str::<Grid>(&text).expect("a grid"), grid);
        assert!(serde_json::from_str::<Grid>("\"n/\"").is_err());
    }
}
