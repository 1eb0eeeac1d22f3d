//! Our kernels beside the vendor's libraries: how many times a library's time the fastest of ours takes.

use super::scene::drawable;
use super::{cache_word, doubted, is_reference};
use crate::plan::Library;
use crate::view::{Row, View};

/// A sentence for each op, precision and library: at every problem that both were measured at, the time of the fastest of ours as a
/// multiple of the library's. Doubted times are marked, wrong outputs have none.
pub(super) fn sentences(view: &View) -> Vec<String> {
    let timed: Vec<(&Row, f64)> =
        view.rows.iter().filter(|row| drawable(row).is_ok()).filter_map(|row| Some((row, row.time_ns?.median))).collect();
    let mut kinds: Vec<(&Row, Vec<String>)> = Vec::new();
    for &(reference, its) in timed.iter().filter(|(row, _)| is_reference(row)) {
        let same = |row: &Row| {
            (&row.op, &row.problem, row.precision, row.cache) == (&reference.op, &reference.problem, reference.precision, reference.cache)
        };
        let ours = timed.iter().filter(|(row, _)| !is_reference(row) && same(row));
        let Some(&(fastest, time)) = ours.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        let doubt = if doubted(reference) || doubted(fastest) { ", SUSPECT" } else { "" };
        let cache = if reference.cache == crate::record::Cache::Cold { "" } else { cache_word(reference.cache) };
        let place = format!("{:.2} at {} {cache}", time / its, reference.label);
        let place = format!("{} ({}{doubt})", place.trim_end(), fastest.variant);
        let kind = |row: &Row| (row.op.clone(), row.variant.clone(), row.precision);
        match kinds.iter_mut().find(|(first, _)| kind(first) == kind(reference)) {
            Some((_, places)) => places.push(place),
            None => kinds.push((reference, vec![place])),
        }
    }
    let sentence = |(row, places): (&Row, Vec<String>)| {
        let library = Library::find(&row.variant).map_or(row.variant.clone(), |library| library.to_string());
        format!("Time of our fastest {} in {}, as a multiple of {library}'s: {}.", row.op, row.precision, places.join(", "))
    };
    kinds.into_iter().map(sentence).collect()
}
