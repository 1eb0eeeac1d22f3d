//! Text that is safe to show and has a known width.

/// Replaces what could move a terminal's cursor, reverse the reading direction or break a line by a space.
pub(super) fn clean(text: &str) -> String {
    let harmful =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    text.chars().map(|c| if harmful(c) { ' ' } else { c }).collect::<String>().trim().to_string()
}

/// As [`clean`], with everything beyond ASCII replaced where `ascii` is asked for.
pub(super) fn plain(text: &str, ascii: bool) -> String {
    let text = clean(text);
    if !ascii {
        return text;
    }
    let text = text.replace('±', "+-").replace('–', "-").replace('…', "..").replace('×', "x");
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// Terminal columns of a character: 2 for East Asian wide and emoji blocks, 0 for combining marks, else 1.
fn columns(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Terminal columns of a text.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// `text` in at most `room` columns; a cut is shown by `…` (`..` in ASCII).
pub(super) fn fit(text: &str, room: usize, ascii: bool) -> String {
    if width(text) <= room {
        return text.to_string();
    }
    let mark = if ascii { ".." } else { "…" };
    let keep = room.saturating_sub(width(mark));
    let mut used = 0;
    let kept: String = text
        .chars()
        .take_while(|&c| {
            used += columns(c);
            used <= keep
        })
        .collect();
    if room < width(mark) { ".".repeat(room) } else { format!("{}{mark}", kept.trim_end()) }
}

/// As [`fit`], but cut in the middle: the last word, a share or a filter's size, stays whole where there is room for it.
pub(super) fn fit_middle(text: &str, room: usize, ascii: bool) -> String {
    match text.rsplit_once(' ') {
        Some((head, tail)) if width(text) > room && width(tail) + 4 <= room => {
            format!("{} {tail}", fit(head, room - width(tail) - 1, ascii))
        }
        _ => fit(text, room, ascii),
    }
}

/// `text` padded to `room` columns.
pub(super) fn pad(text: &str, room: usize, right: bool) -> String {
    let space = " ".repeat(room.saturating_sub(width(text)));
    if right { format!("{space}{text}") } else { format!("{text}{space}") }
}

/// Words of `text` in lines of at most `room` columns; lines after the first begin with `indent` spaces.
pub(super) fn wrap(text: &str, room: usize, indent: usize, ascii: bool) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.trim().is_empty() {
            *line += word;
        } else if width(line) + 1 + width(word) <= room {
            *line += " ";
            *line += word;
        } else {
            lines.push(format!("{}{word}", " ".repeat(indent)));
        }
    }
    lines.iter().map(|line| fit(line, room, ascii)).collect::<Vec<_>>().join("\n")
}

/// `&`, `<`, `>` and quotes as entities, control characters as spaces.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The `index`-th key: `A` … `Z`, `a` … `z`, then `A2` …
pub(super) fn key(index: usize) -> String {
    let letters = ('A'..='Z').chain('a'..='z').collect::<Vec<_>>();
    let letter = letters[index % letters.len()];
    match index / letters.len() {
        0 => letter.to_string(),
        round => format!("{letter}{}", round + 1),
    }
}

/// `2026-11-22 07:43` of seconds since 1970, UTC, by the proleptic Gregorian calendar.
pub(super) fn date(seconds: u64) -> String {
    // Years begin in March here, so that the leap day is the last of its year; 719,468 days lie between 0000-03-01 and 1970.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_match_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_795_333_405), "2026-11-22 07:43");
        assert!(date(u64::MAX / 2).len() > 10);
    }

    #[test]
    fn a_cut_text_shows_that_it_was_cut_and_keeps_to_its_room() {
        assert_eq!(fit("1024x1024x1024", 8, false), "1024x10…");
        assert_eq!(fit("1024x1024x1024", 8, true), "1024x1..");
        assert_eq!(fit("short", 8, false), "short");
        assert_eq!(fit_middle("unexplained 35%", 11, false), "unexpl… 35%");
        for room in 0..6 {
            assert!(width(&fit("数値計算カーネル", room, false)) <= room);
        }
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc\u{202e}d"), "a [31mb  c d");
    }

    #[test]
    fn keys_are_distinct() {
        let all: std::collections::BTreeSet<_> = (0..5000).map(key).collect();
        assert_eq!(all.len(), 5000);
    }
}
