//! Views that no machine gives: nothing hangs, lies or breaks out of its quotes.

use std::time::{Duration, Instant};

use rooftrace::plan::Precision;
use rooftrace::record::{Cache, State};
use rooftrace::report::{Style, chart, svg, table, verdict};
use rooftrace::view::View;

use super::picture::{check, markers, parse};
use super::{fixture, fixture::row};

const BAD: [f64; 12] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -1.0, 1e300, 1e-300, f64::MAX, f64::MIN_POSITIVE, 1e-5, 1e19];

/// Every form is made, soon, and texts keep to their width.
fn survives(view: &View) -> svg::Picture {
    let start = Instant::now();
    let picture = check(view);
    for style in [Style::default(), Style { width: 40, colour: true, ascii: true }, Style { width: 0, colour: false, ascii: false }] {
        let texts = [table::terminal(view, &style), chart::terminal(view, &style), verdict::terminal(view, &style)];
        let escapes = |text: &String| style.colour || !text.contains('\u{1b}');
        assert!(texts.iter().all(escapes), "no control character comes through");
    }
    assert!(!table::markdown(view).contains('\u{1b}'));
    // The check above parses the picture and compares every pair of labels, too.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    picture
}

#[test]
fn values_that_cannot_be_drawn_are_listed_and_never_drawn() {
    let mut view = fixture::host();
    let good = view.rows.len() - 1;
    for (index, bad) in BAD.into_iter().enumerate() {
        for field in 0..2 {
            let mut row = row("bad", "naive", "1", Cache::Cold, 1e9, 1e8, 1e10, ("dram", 0.9));
            row.id = format!("bad {index} {field}");
            match field {
                0 => row.intensity = bad,
                _ => row.flop_per_s = Some(bad),
            }
            view.rows.push(row);
        }
    }
    let picture = survives(&view);
    // 1e19 is an impossible rate and intensity, and 1e-5 FLOP/byte lies below the axis, as 1e-5 FLOP/s does.
    assert_eq!(picture.drawn, good);
    assert_eq!(picture.left_out.len(), 1 + 2 * BAD.len());
    assert!(!picture.svg.contains("NaN") && !picture.svg.contains("inf"));
}

#[test]
fn odd_values_beside_a_good_point_do_not_move_or_hide_it() {
    for bad in BAD {
        let mut view = fixture::host();
        for row in &mut view.rows {
            row.intensity_moved = bad;
            row.roof_fraction = Some(bad);
            row.limiter_share = Some(bad);
            row.byte_per_s = Some(bad);
            if let Some(time) = &mut row.time_ns {
                (time.low, time.high) = (bad, -bad);
            }
        }
        assert_eq!(survives(&view).drawn, 17, "{bad:e}");
    }
}

#[test]
fn odd_ceilings_are_listed_and_change_nothing_else() {
    for bad in BAD {
        let mut view = fixture::host();
        view.ceilings.push(fixture::compute("odd compute", Precision::F16, bad));
        view.ceilings.push(fixture::bandwidth("l9", "triad", None, bad));
        (view.ceilings[0].low, view.ceilings[0].high) = (bad, bad);
        let picture = survives(&view);
        assert_eq!(picture.drawn, 17, "{bad:e}");
        let listed = |name: &str| picture.roofs_left_out.iter().any(|l| l.id == name);
        let drawn = |name: &str| picture.svg.contains(name);
        for name in ["odd compute", "l9 triad"] {
            assert!(listed(name) != drawn(name), "{name} of {bad:e} is either drawn or listed: {:?}", picture.roofs_left_out);
        }
    }
}

#[test]
fn an_empty_view_gives_an_empty_chart_that_says_so() {
    let mut view = fixture::host();
    (view.rows, view.ceilings, view.skips, view.curves) = (vec![], vec![], vec![], vec![]);
    let picture = survives(&view);
    assert_eq!((picture.drawn, picture.left_out.len()), (0, 0));
    assert!(picture.svg.contains("Nothing to draw"));
    assert!(chart::terminal(&view, &Style::default()).contains("nothing to chart"));
    assert!(table::terminal(&view, &Style::default()).contains("no kernel was placed"));
}

#[test]
fn one_point_alone_and_equal_points_have_axes_around_them() {
    for count in [1, 2, 40] {
        let mut view = fixture::host();
        view.ceilings.clear();
        view.rows = vec![view.rows[4].clone(); count];
        assert_eq!(survives(&view).drawn, count);
    }
}

#[test]
fn roofs_without_points_and_points_without_roofs_are_drawn() {
    let mut roofs = fixture::host();
    roofs.rows.clear();
    assert!(survives(&roofs).svg.contains("f32 vector"));
    let mut points = fixture::host();
    points.ceilings.clear();
    assert_eq!(survives(&points).drawn, 17);
    // Only slopes, and only flat roofs.
    for slopes in [true, false] {
        let mut view = fixture::host();
        view.ceilings.retain(|c| c.level.is_some() == slopes);
        assert_eq!(survives(&view).drawn, 17);
    }
}

#[test]
fn points_at_the_ends_of_the_axes_limits_are_drawn_at_their_place() {
    let mut view = fixture::host();
    for (index, (x, y)) in [(1e-4, 1e6), (1e6, 1e18), (1e-4, 1e18), (1e6, 1e6)].into_iter().enumerate() {
        let mut row = row("edge", "naive", "1", Cache::Cold, 1e9, 1e8, 1e10, ("dram", 0.9));
        (row.id, row.intensity, row.intensity_moved, row.flop_per_s) = (format!("edge {index}"), x, x, Some(y));
        view.rows.push(row);
    }
    assert_eq!(survives(&view).drawn, 17 + 4);
}

#[test]
fn five_thousand_points_take_less_than_a_second() {
    let view = fixture::crowd(5000);
    let start = Instant::now();
    let picture = svg::roofline(&view).unwrap();
    let drawn = start.elapsed();
    let texts = [chart::terminal(&view, &Style::default()), table::terminal(&view, &Style::default())];
    let all = start.elapsed();
    println!("5,000 points: picture {drawn:?}, with chart and table {all:?}");
    assert!(all < Duration::from_secs(1), "picture {drawn:?}, with chart and table {all:?}");
    assert!(texts.iter().all(|text| !text.is_empty()));
    assert_eq!(picture.drawn, 5000);
    assert_eq!(markers(&parse(&picture.svg)).len(), 5000);
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let names = [
        "</script><b>",
        "\"'&<>]]>--><!--",
        "\u{1b}[2J\u{1b}[31mred",
        "line\nbreak\r\ttab\0nul",
        "|pipe| `tick` *star* _line_ [a](b)",
        "\u{202e}reversed\u{2066}",
        "数値計算 🚀 e\u{301}",
        "",
    ];
    let long = "long".repeat(2500);
    for name in names.into_iter().chain([long.as_str()]) {
        let mut view = fixture::host();
        view.header.device.name = name.into();
        view.header.device.driver = name.into();
        view.header.tool.version = name.into();
        view.ceilings.iter_mut().for_each(|c| c.name = name.into());
        view.skips.iter_mut().for_each(|s| s.why = name.into());
        for row in &mut view.rows {
            (row.op, row.variant, row.label, row.limiter) = (name.into(), name.into(), name.into(), name.into());
            row.reasons = vec![name.into()];
        }
        view.rows[9].state = State::Wrong;
        let picture = survives(&view);
        assert_eq!(picture.drawn, 17);
        for banned in ["<script", "<b>", "</script", "<!--", "\u{1b}", "\u{202e}"] {
            assert!(!picture.svg.contains(banned), "{banned}");
        }
        let lines = table::markdown(&view);
        let table = lines.lines().filter(|l| l.starts_with("| ") && l.contains("SUSPECT")).collect::<Vec<_>>();
        for line in table {
            let bars = line.replace("\\|", "").matches('|').count();
            assert!(bars == 13 || bars == 6, "{bars} bars in {line}");
        }
    }
    // An id that would end its attribute is kept whole.
    let mut view = fixture::host();
    view.rows[0].id = "\"><script>alert('1')</script>&amp;".into();
    check(&view);
}
