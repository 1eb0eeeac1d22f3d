//! A study's answer: its question, the table, what it comes to, and what is to be known of the figures.

use super::table;
use super::{Style, heading, state_word, text, verdict};
use crate::study::Study;
use crate::view::View;

/// For a terminal.
pub fn terminal(view: &View, study: &Study, style: &Style) -> String {
    let telling = study.answer(view);
    let (title, facts) = heading(&view.header);
    let line = |text: &str| text::fit(&text::plain(text, style.ascii), style.width, style.ascii) + "\n";
    let wrapped = |text: &String| text::wrap(&text::plain(text, style.ascii), style.width, 2, style.ascii) + "\n";
    let all = |lines: &[String]| lines.iter().map(wrapped).collect::<String>();
    let mut parts = vec![format!("{}{}{}", line(&title), line(&facts), line(&asked(study)))];
    if !telling.grid.rows.is_empty() {
        parts.push(telling.grid.terminal(style));
    }
    parts.push(all(&telling.sentences));
    parts.push(all(&under(view, study)));
    let (notes, skips) = (all(&notes(view)), all(&skips(view)));
    parts.push(notes);
    parts.push(if skips.is_empty() { skips } else { format!("left out\n{skips}") });
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// As Markdown.
pub fn markdown(view: &View, study: &Study) -> String {
    let telling = study.answer(view);
    let (title, facts) = heading(&view.header);
    let escape = |text: &String| table::escape(text);
    let list = |lines: Vec<String>| lines.iter().map(|l| format!("- {}\n", table::escape(l))).collect::<String>();
    let mut parts = vec![format!("**{}**\n\n{}, {}\n", table::escape(&asked(study)), table::escape(&title), table::escape(&facts))];
    parts.push(format!("{}\n", telling.sentences.iter().map(escape).collect::<Vec<_>>().join("\n")));
    if !telling.grid.rows.is_empty() {
        parts.push(telling.grid.markdown());
    }
    parts.push(list(under(view, study)));
    parts.push(list(notes(view)));
    let skips = list(skips(view));
    parts.push(if skips.is_empty() { skips } else { format!("Left out:\n\n{skips}") });
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn asked(study: &Study) -> String {
    let mut letters = study.question.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The roof, and when it was measured where that was another time.
fn under(view: &View, study: &Study) -> Vec<String> {
    study.ridge(view).into_iter().chain(verdict::roof_taken(view)).collect()
}

/// What is to be known of the figures. A study's rows have no keys.
fn notes(view: &View) -> Vec<String> {
    table::notes(view, &vec![None; view.rows.len()])
}

/// Problems of one kernel that are named among what was left out; of more, the rest is counted.
const NAMED: usize = 6;

/// What was left out: a line for each kernel and reason, with its problems. A reason may end in figures, in parentheses, which follow the
/// problem that they are of.
fn skips(view: &View) -> Vec<String> {
    let mut groups: Vec<((String, String), Vec<String>)> = Vec::new();
    for skip in &view.skips {
        // A compiler's log goes on for lines; the record has them all.
        let why = skip.why.lines().next().unwrap_or_default();
        let (phrase, figures) = match why.rsplit_once(" (") {
            Some((phrase, figures)) if figures.starts_with(|c: char| c.is_ascii_digit()) && figures.ends_with(')') => (phrase, figures),
            _ => (why, ""),
        };
        let key = (format!("{} {}", skip.op, skip.variant), format!("{phrase} ({})", state_word(skip.state)));
        let words = [skip.label.clone().unwrap_or_default(), if figures.is_empty() { String::new() } else { format!("({figures}") }];
        let problem = joined(&words, " ");
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, problems)) if problems.contains(&problem) => {}
            Some((_, problems)) => problems.push(problem),
            None => groups.push((key, vec![problem])),
        }
    }
    let line = |((kernel, reason), problems): ((String, String), Vec<String>)| {
        let more = problems.len().saturating_sub(NAMED);
        let named = joined(&problems[..problems.len() - more], ", ");
        let more = if more > 0 { format!("and {more} more") } else { String::new() };
        format!("{}: {reason}", joined(&[kernel, named, more], " "))
    };
    groups.into_iter().map(line).collect()
}

fn joined(words: &[String], with: &str) -> String {
    words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(with)
}
