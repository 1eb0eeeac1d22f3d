//! How measured figures are put into words: so coarse that two recordings of one machine share them. The figure stands behind its word in
//! parentheses that open with a digit, and is all that may differ. What is exact, such as a ratio of FLOPs, stands bare.

use crate::units::digits;

/// Times up to this ratio count as the same: recordings of one machine at two moments lie as far apart.
const SAME: f64 = 1.25;
/// A share from here on is most of a roof, as it is enough to be a limiter.
const MOST: f64 = 0.6;
/// A share below this is little.
const LITTLE: f64 = 0.1;

/// Whether no verdict tells times of this ratio apart.
pub(super) fn same_time(ratio: f64) -> bool {
    (1.0 / SAME..=SAME).contains(&ratio)
}

/// How a ratio of an old time to a new one is told: `less time (2.10 times)`.
pub(super) fn time_saved(ratio: f64) -> String {
    let (times, side) = saved(ratio);
    if same_time(ratio) { format!("about the same time ({times} times {side})") } else { format!("{side} time ({times} times)") }
}

/// The same against something with a name: `less time than naive (2.10 times)`.
pub(super) fn time_against(ratio: f64, other: &str) -> String {
    let (times, side) = saved(ratio);
    match same_time(ratio) {
        true => format!("about the time of {other} ({times} times {side})"),
        false => format!("{side} time than {other} ({times} times)"),
    }
}

fn saved(ratio: f64) -> (String, &'static str) {
    if ratio >= 1.0 { (digits(ratio), "less") } else { (digits(1.0 / ratio), "more") }
}

/// How a measured time stands to a predicted one: `less than twice as long (1.42 times)`.
pub(super) fn excess(ratio: f64) -> String {
    let word = match ratio {
        r if r <= SAME => "about as long",
        r if r < 2.0 => "less than twice as long",
        _ => "over twice as long",
    };
    format!("{word} ({} times)", digits(ratio))
}

/// How a fitted exponent is told: to the nearest half, `2 (1.98)`.
pub(super) fn power(exponent: f64) -> String {
    format!("{} ({exponent:.2})", (2.0 * exponent).round() / 2.0)
}

/// How a share is told: `most of the DRAM roof (94 %)`.
pub(super) fn portion(share: f64, of: &str) -> String {
    format!("{} of {of} ({})", amount(share), percent(share))
}

/// How the shares of several are told, neighbours of one word together: `most of its roof in f32 (64 %), f16 (82 %), part of it in int4 (55 %)`.
pub(super) fn portions(shares: &[(f64, String)], of: &str) -> String {
    let mut told = String::new();
    for (at, (share, name)) in shares.iter().enumerate() {
        match at.checked_sub(1).map(|before| amount(shares[before].0)) {
            None => told += &format!("{} of {of} in ", amount(*share)),
            Some(before) if before != amount(*share) => told += &format!(", {} of it in ", amount(*share)),
            Some(_) => told += ", ",
        }
        told += &format!("{name} ({})", percent(*share));
    }
    told
}

fn amount(share: f64) -> &'static str {
    match share {
        s if s >= MOST => "most",
        s if s < LITTLE => "little",
        _ => "part",
    }
}

/// Whether a share is most of something.
pub(super) fn is_most(share: f64) -> bool {
    share >= MOST
}

/// Whether a share is little of something.
pub(super) fn is_little(share: f64) -> bool {
    share < LITTLE
}

/// `94 %`, `1.9 %`.
pub(super) fn percent(share: f64) -> String {
    let places = usize::from(100.0 * share < 9.95);
    format!("{:.places$} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_coarse_and_figures_are_exact() {
        assert_eq!((time_saved(2.1), time_saved(0.7)), ("less time (2.10 times)".into(), "more time (1.43 times)".into()));
        // Neither is told as another number.
        assert_eq!(time_saved(1.28), "less time (1.28 times)");
        assert_eq!(time_saved(1.18), "about the same time (1.18 times less)");
        assert_eq!((time_saved(0.9), time_saved(8.7)), ("about the same time (1.11 times more)".into(), "less time (8.70 times)".into()));
        assert_eq!(time_against(2.23, "flash"), "less time than flash (2.23 times)");
        assert_eq!(time_against(1.22, "naive"), "about the time of naive (1.22 times less)");
        assert_eq!(
            [1.18, 1.42, 3.95].map(excess),
            ["about as long (1.18 times)", "less than twice as long (1.42 times)", "over twice as long (3.95 times)"]
        );
        assert_eq!([0.93, 1.98, 1.4].map(power), ["1 (0.93)", "2 (1.98)", "1.5 (1.40)"]);
        let shares = [0.94, 0.51, 0.019].map(|share| portion(share, "it"));
        assert_eq!(shares, ["most of it (94 %)", "part of it (51 %)", "little of it (1.9 %)"]);
        let of = [(0.94, "f32"), (0.82, "f16"), (0.51, "int8"), (0.7, "int4")].map(|(share, name)| (share, name.to_string()));
        let told = "most of its roof in f32 (94 %), f16 (82 %), part of it in int8 (51 %), most of it in int4 (70 %)";
        assert_eq!(portions(&of, "its roof"), told);
    }

    #[test]
    fn a_ratio_that_is_no_number_is_told_as_none() {
        assert_eq!((time_saved(f64::NAN), same_time(f64::NAN)), ("more time (? times)".into(), false));
    }
}
