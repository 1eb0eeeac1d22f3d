//! `rooftrace show`: table and chart from a file.

use super::{Showing, output};
use crate::error::{Error, Result};
use crate::record;
use crate::report::{self, Style};
use crate::roofline;
use crate::study::Study;
use crate::view::View;

/// Shows a recorded run.
pub fn run(args: &Showing) -> Result<i32> {
    let file = record::read(&args.file)?;
    for warning in &file.warnings {
        eprintln!("rooftrace: {}: {warning}", args.file.display());
    }
    let view = roofline::view(&file.records)?;
    if let Some(path) = &args.svg {
        output::write(path, &picture(&view)?.svg)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&view).map_err(|e| Error::usage(e.to_string()))?;
        return output::print(&(json + "\n"));
    }
    if args.markdown {
        return output::print(
            &Study::of(&view).map_or_else(|| report::table::markdown(&view), |study| report::study::markdown(&view, study)),
        );
    }
    let style = Style { width: output::width(), colour: output::colour(), ascii: args.ascii };
    output::print(&text(&view, &style))
}

/// A picture and the name of its file.
pub struct Picture {
    pub file: String,
    pub svg: String,
}

/// The picture of a view: of a study its own, else the roofline.
pub fn picture(view: &View) -> Result<Picture> {
    Ok(match Study::of(view) {
        Some(study) => Picture { file: format!("{}.svg", study.name), svg: report::svg::figure(&(study.tell)(view).figure, &view.header)? },
        None => Picture { file: "roofline.svg".into(), svg: report::svg::roofline(view)?.svg },
    })
}

/// What `run` ends with and `show` prints: table, sentences and chart, or a study's answer.
pub fn text(view: &View, style: &Style) -> String {
    if let Some(study) = Study::of(view) {
        return report::study::terminal(view, study, style);
    }
    let verdict = report::verdict::terminal(view, style);
    format!("{}\n{verdict}\n{}", report::table::terminal(view, style), report::chart::terminal(view, style))
}
