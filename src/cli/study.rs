//! `rooftrace study`: a named question, answered by measuring.

use super::roof::Named;
use super::run::{self, Mode};
use super::{Measuring, Scoping, Shape, Studying, output};
use crate::error::Result;
use crate::study::{self, STUDIES, Study};

/// Lists the studies, or runs one.
pub fn run(args: &Studying) -> Result<i32> {
    let Some(name) = &args.name else {
        let line = |study: &Study| format!("{:<12} {}\n", study.name, study.question);
        return output::print(&STUDIES.iter().map(line).collect::<String>());
    };
    let (study, named) = (study::find(name)?, Named::read(args.roof.as_ref())?);
    let scope = Scoping { common: args.common.clone(), op: Vec::new(), variant: Vec::new(), precision: Vec::new() };
    run::run(
        &Measuring { scope, keeping: args.keeping.clone(), costing: args.costing.clone(), shape: Shape::default() },
        Mode::Study(study, &named),
    )
}
