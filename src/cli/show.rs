//! `rooftrace show`: table and chart from a file.

use super::{Showing, output};
use crate::error::{Error, Result};
use crate::record;
use crate::report::{self, Style};
use crate::roofline;
use crate::view::View;

/// Shows a recorded run.
pub fn run(args: &Showing) -> Result<i32> {
    let file = record::read(&args.file)?;
    for warning in &file.warnings {
        eprintln!("rooftrace: {}: {warning}", args.file.display());
    }
    let view = roofline::view(&file.records)?;
    if let Some(path) = &args.svg {
        output::write(path, &report::svg::roofline(&view)?.svg)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&view).map_err(|e| Error::usage(e.to_string()))?;
        return output::print(&(json + "\n"));
    }
    if args.markdown {
        return output::print(&report::table::markdown(&view));
    }
    let style = Style { width: output::width(), colour: output::colour(), ascii: args.ascii };
    output::print(&text(&view, &style))
}

/// Table, sentences and chart, as `run` ends and `show` prints.
pub fn text(view: &View, style: &Style) -> String {
    let verdict = report::verdict::terminal(view, style);
    format!("{}\n{verdict}\n{}", report::table::terminal(view, style), report::chart::terminal(view, style))
}
