//! `rooftrace show`: table and chart from a file.

use super::{Showing, output};
use crate::cost::{self, Asked};
use crate::error::{Error, Result};
use crate::record;
use crate::report::{self, Style};
use crate::roofline;
use crate::study::{self, Study};
use crate::view::View;

/// Shows a recorded run.
pub fn run(args: &Showing) -> Result<i32> {
    let file = record::read(&args.file)?;
    for warning in &file.warnings {
        eprintln!("rooftrace: {}: {warning}", args.file.display());
    }
    let mut view = roofline::view(&file.records)?;
    let costing = args.costing.asked(false);
    if let Some(asked) = &costing {
        cost::fill(&mut view, asked);
    }
    study::fill(&mut view);
    if let Some(path) = &args.svg {
        let picture =
            picture(&view)?.ok_or_else(|| Error::usage("--svg: nothing was measured that could be drawn; record the study again"))?;
        output::write(path, &picture.svg)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&view).map_err(|e| Error::usage(e.to_string()))?;
        return output::print(&(json + "\n"));
    }
    if args.markdown {
        let usual = Study::of(&view).map_or_else(|| report::table::markdown(&view), |study| report::study::markdown(&view, study));
        let costs = costing.map_or(String::new(), |asked| format!("\n{}", report::cost::markdown(&view, &asked)));
        return output::print(&(usual + &costs));
    }
    let style = Style { width: output::width(), colour: output::colour(), ascii: args.ascii };
    output::print(&text(&view, costing.as_ref(), &style))
}

/// A picture and the name of its file.
pub struct Picture {
    pub file: String,
    pub svg: String,
}

/// The picture of a view: of a study its own, none where it measured nothing, else the roofline.
pub fn picture(view: &View) -> Result<Option<Picture>> {
    let Some(study) = Study::of(view) else {
        return Ok(Some(Picture { file: "roofline.svg".into(), svg: report::svg::roofline(view)?.svg }));
    };
    let figure = study.answer(view).figure;
    let draw = || Ok(Picture { file: format!("{}.svg", study.name), svg: report::svg::figure(&figure, &view.header)? });
    figure.measured().then(draw).transpose()
}

/// What `run` ends with and `show` prints: table, sentences and chart, or a study's answer; below them what it costs, where asked for.
pub fn text(view: &View, costing: Option<&Asked>, style: &Style) -> String {
    let usual = match Study::of(view) {
        Some(study) => report::study::terminal(view, study, style),
        None => {
            let verdict = report::verdict::terminal(view, style);
            format!("{}\n{verdict}\n{}", report::table::terminal(view, style), report::chart::terminal(view, style))
        }
    };
    let costs = costing.map_or(String::new(), |asked| format!("\n{}", report::cost::terminal(view, asked, style)));
    usual + &costs
}
