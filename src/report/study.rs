//! A study's answer: its question, the table, what it comes to, and what is to be known of the figures.

use super::table;
use super::{Style, heading, text, verdict};
use crate::study::Study;
use crate::view::View;

/// For a terminal.
pub fn terminal(view: &View, study: &Study, style: &Style) -> String {
    let telling = (study.tell)(view);
    let (title, facts) = heading(&view.header);
    let line = |text: &str| text::fit(&text::plain(text, style.ascii), style.width, style.ascii) + "\n";
    let wrapped = |text: &String| text::wrap(&text::plain(text, style.ascii), style.width, 2, style.ascii) + "\n";
    let all = |lines: &[String]| lines.iter().map(wrapped).collect::<String>();
    let mut parts = vec![format!("{}{}{}", line(&title), line(&facts), line(&asked(study))), telling.grid.clone().terminal(style)];
    parts.push(all(&telling.sentences));
    parts.push(all(&under(view)));
    let (notes, skips) = (all(&notes(view)), all(&table::skips(view)));
    parts.push(notes);
    parts.push(if skips.is_empty() { skips } else { format!("left out\n{skips}") });
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// As Markdown.
pub fn markdown(view: &View, study: &Study) -> String {
    let telling = (study.tell)(view);
    let (title, facts) = heading(&view.header);
    let escape = |text: &String| table::escape(text);
    let list = |lines: Vec<String>| lines.iter().map(|l| format!("- {}\n", table::escape(l))).collect::<String>();
    let mut parts = vec![format!("**{}**\n\n{}, {}\n", table::escape(&asked(study)), table::escape(&title), table::escape(&facts))];
    parts.push(format!("{}\n", telling.sentences.iter().map(escape).collect::<Vec<_>>().join("\n")));
    parts.push(telling.grid.markdown());
    parts.push(list(under(view)));
    parts.push(list(notes(view)));
    let skips = list(table::skips(view));
    parts.push(if skips.is_empty() { skips } else { format!("Left out:\n\n{skips}") });
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn asked(study: &Study) -> String {
    let mut letters = study.question.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The roof, and when it was measured where that was another time.
fn under(view: &View) -> Vec<String> {
    verdict::ridge(view).into_iter().chain(verdict::roof_taken(view)).collect()
}

/// What is to be known of the figures. A study's rows have no keys.
fn notes(view: &View) -> Vec<String> {
    table::notes(view, &vec![None; view.rows.len()])
}
