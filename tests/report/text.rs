//! Tables, terminal chart and verdict.

use std::path::Path;

use rooftrace::cost::{self, Asked, Limit, Nominal};
use rooftrace::plan::Precision;
use rooftrace::record::{Energy, State};
use rooftrace::report::{self, Style, chart, svg, table, verdict};
use rooftrace::view::{Interval, View};

use super::fixture;

/// Compares with a file under `tests/snapshots/`; `UPDATE_SNAPSHOTS=1` writes it anew.
fn snapshot(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, found).expect("snapshots can be written");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (kept, found)) in kept.lines().zip(found.lines()).enumerate() {
        assert_eq!(kept, found, "{name}, line {}; UPDATE_SNAPSHOTS=1 accepts it", line + 1);
    }
    assert!(kept == found, "{name} has {} lines, found {}", kept.lines().count(), found.lines().count());
}

fn style(width: usize) -> Style {
    Style { width, colour: false, ascii: false }
}

#[test]
fn the_table_looks_as_it_did() {
    let view = fixture::host();
    for width in [80, 100, 140] {
        snapshot(&format!("table_{width}.txt"), &table::terminal(&view, &style(width)));
    }
    snapshot("table_ascii.txt", &table::terminal(&view, &Style { ascii: true, ..style(100) }));
    snapshot("table.md", &table::markdown(&view));
}

#[test]
fn the_chart_looks_as_it_did() {
    let view = fixture::host();
    for width in [80, 100, 140] {
        snapshot(&format!("chart_{width}.txt"), &chart::terminal(&view, &style(width)));
    }
    snapshot("chart_ascii.txt", &chart::terminal(&view, &Style { ascii: true, ..style(100) }));
    snapshot("verdict.txt", &verdict::terminal(&view, &style(100)));
}

/// All that can be asked of costs: 2.50 an hour, 20 ms, 16 MiB, 500 mJ, beside 100 GFLOP/s and 51.2 GB/s.
fn everything() -> Asked {
    let limit = |amount, unit, scale| Some(Limit { amount, unit, scale });
    Asked {
        price: Some(2.5),
        max_latency: limit(20.0, "ms", 1e6),
        max_memory: limit(16.0, "MiB", 1_048_576.0),
        max_energy: limit(500.0, "mJ", 1e-3),
        nominal: Nominal { compute: vec![(None, 100e9)], byte_per_s: Some(51.2e9) },
    }
}

/// The fixture with memory measured for all rows but the last, energy at 35 W for all but the last two, and its costs.
fn priced(asked: &Asked) -> View {
    let mut view = fixture::host();
    let last = view.rows.len() - 1;
    view.rows[..last].iter_mut().for_each(|row| row.peak_bytes = Some(row.bytes_compulsory + 65_536));
    for row in &mut view.rows[..last - 1] {
        let source = "RAPL: package-0".into();
        let of = |time: Interval| Energy {
            source,
            launches: 1000,
            wall_ns: (time.median * 1e3) as u64,
            uj: (time.median * 35.0) as u64,
            updates: 1999,
            idle_uw: 12_500_000,
        };
        row.energy = row.time_ns.map(of);
    }
    let late = "energy is not available: the budget ended before its pass; raise --budget";
    view.rows[last - 1..].iter_mut().for_each(|row| row.reasons.push(late.into()));
    cost::fill(&mut view, asked);
    view
}

#[test]
fn the_table_of_costs_looks_as_it_did() {
    let asked = everything();
    let view = priced(&asked);
    for width in [80, 100, 140] {
        snapshot(&format!("cost_{width}.txt"), &report::cost::terminal(&view, &asked, &style(width)));
    }
    let plain = Asked::default();
    snapshot("cost.md", &report::cost::markdown(&priced(&plain), &plain));
}

#[test]
fn without_kernels_or_ceilings_the_table_of_costs_says_so() {
    let asked = everything();
    let mut bare = priced(&asked);
    bare.ceilings.clear();
    cost::fill(&mut bare, &asked);
    let text = report::cost::terminal(&bare, &asked, &style(100));
    assert!(text.contains("no MBU: no DRAM read ceiling") && text.contains("no MFU for f32"), "{text}");
    bare.rows.clear();
    assert!(report::cost::terminal(&bare, &asked, &style(100)).contains("no kernel was placed"));
    assert!(report::cost::markdown(&bare, &asked).contains("No kernel was placed"));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut long = fixture::host();
    long.rows[3].label = "x".repeat(500);
    long.rows[4].variant = "y".repeat(500);
    long.skips[0].why = "z".repeat(500);
    long.ceilings[0].name = "w".repeat(500);
    long.header.device.name = "v".repeat(500);
    let asked = everything();
    for mut view in [fixture::host(), fixture::card(), long] {
        cost::fill(&mut view, &asked);
        for width in [1, 10, 39, 40, 60, 80, 99, 100, 120, 140, 250] {
            for ascii in [false, true] {
                let style = Style { width, colour: false, ascii };
                let costs = report::cost::terminal(&view, &asked, &style);
                for text in [table::terminal(&view, &style), chart::terminal(&view, &style), verdict::terminal(&view, &style), costs] {
                    for line in text.lines() {
                        assert!(line.chars().count() <= width, "{width}: {line}");
                        assert!(!ascii || line.is_ascii(), "{line}");
                    }
                }
            }
        }
    }
}

#[test]
fn colour_only_adds_to_the_text() {
    let view = fixture::host();
    for width in [80, 140] {
        let coloured = Style { colour: true, ..style(width) };
        let pairs = [
            (table::terminal(&view, &coloured), table::terminal(&view, &style(width))),
            (chart::terminal(&view, &coloured), chart::terminal(&view, &style(width))),
        ];
        for (with, without) in pairs {
            assert!(with.contains('\u{1b}'));
            assert_eq!(stripped(&with), without);
        }
    }
}

fn stripped(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |out, part| out + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// The line of the kernel table that shows `name`.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no line has {name}"))
}

#[test]
fn a_wrong_row_shows_the_word_and_never_a_rate_even_if_the_view_has_one() {
    let mut view = fixture::host();
    let mut row = view.rows[3].clone();
    (row.id, row.variant, row.state) = ("w".into(), "mutant".into(), State::Wrong);
    // A view that contradicts itself: 55.2 GFLOP/s, 4.86 ms.
    view.rows.push(row);
    for text in [table::terminal(&view, &style(140)), table::markdown(&view)] {
        let line = line(&text, "mutant");
        assert!(line.contains("WRONG"), "{line}");
        for rate in ["55.2", "ms", "74%", "0.65"] {
            assert!(!line.contains(rate), "{rate} in {line}");
        }
    }
    assert!(!chart::terminal(&view, &style(140)).contains("mutant"));
}

#[test]
fn a_row_above_its_roof_is_suspect_with_its_share_and_its_causes() {
    let view = fixture::host();
    let text = table::terminal(&view, &style(140));
    let row = line(&text, "4x28x28x96");
    assert!(row.contains("SUSPECT") && row.contains("117%") && row.contains("49.9"), "{row}");
    let note = line(&text, "of its roof");
    assert!(note.contains("117%") && note.contains("data still in a cache"), "{note}");
    let mut told = fixture::host();
    told.rows[17].reasons = vec!["machine changed speed".into()];
    let text = table::terminal(&told, &style(140));
    assert!(line(&text, "of its roof").contains("machine changed speed"));
}

#[test]
fn every_row_and_skip_and_ceiling_of_the_view_is_in_the_table() {
    let view = fixture::host();
    for text in [table::terminal(&view, &style(140)), table::markdown(&view).replace('\\', "")] {
        for row in &view.rows {
            let all = |l: &&str| [&row.op, &row.variant, &row.label].iter().all(|word| l.contains(word.as_str()));
            assert!(text.lines().any(|l| all(&l)), "{}", row.id);
        }
        for skip in &view.skips {
            assert!(text.contains(&skip.why), "{}", skip.why);
        }
        for ceiling in &view.ceilings {
            assert!(text.contains(&ceiling.name), "{}", ceiling.name);
        }
    }
}

#[test]
fn narrow_tables_say_which_columns_are_missing() {
    let text = table::terminal(&fixture::host(), &style(80));
    let note = line(&text, "too narrow for");
    for column in ["GB/s", "FLOP/B"] {
        assert!(note.contains(column), "{note}");
    }
    assert!(!table::terminal(&fixture::host(), &style(140)).contains("too narrow"));
}

#[test]
fn the_width_that_a_narrow_table_names_shows_all_its_columns() {
    let asked = everything();
    let view = priced(&asked);
    for width in [80, 100, 120] {
        for write in [&|width| table::terminal(&view, &style(width)), &|width| report::cost::terminal(&view, &asked, &style(width))]
            as [&dyn Fn(usize) -> String; 2]
        {
            let text = write(width).replace('\n', " ");
            let named = text.split("COLUMNS=").skip(1).map(|rest| rest.split(' ').next().and_then(|n| n.parse::<usize>().ok()));
            if let Some(enough) = named.map(|width| width.expect("a width")).max() {
                assert!(enough > width && !write(enough).contains("too narrow"), "{width}: {enough}");
            }
        }
    }
    assert!(report::cost::terminal(&view, &asked, &style(100)).contains("COLUMNS="));
}

#[test]
fn energy_that_could_not_be_read_is_a_note_and_puts_no_time_in_doubt() {
    let view = priced(&everything());
    let text = table::terminal(&view, &style(140));
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("energy is not available")).collect();
    assert_eq!(lines, ["NOTE energy is not available: the budget ended before its pass; raise --budget"]);
    assert!(line(&text, "117% of its roof").contains("data still in a cache"), "its own reason stays");
}

#[test]
fn every_letter_of_the_chart_has_its_legend_line_and_stands_where_its_values_are() {
    let view = fixture::host();
    let text = chart::terminal(&view, &style(100));
    let rows: Vec<Vec<char>> = text.lines().skip(1).take_while(|l| !l.contains('└')).map(|l| l.chars().collect()).collect();
    // The fastest and the slowest kernel, the leftmost and the rightmost, are where they should be relative to the others.
    let find = |letter: char| {
        let place = |(y, row): (usize, &Vec<char>)| row.iter().skip(8).position(|c| *c == letter).map(|x| (x, y));
        rows.iter().enumerate().find_map(place)
    };
    let (a, b, g, h, i) = (find('A'), find('B'), find('G'), find('H'), find('I'));
    let (a, b, g, h, i) = (a.unwrap(), b.unwrap(), g.unwrap(), h.unwrap(), i.unwrap());
    assert!(h.0 < i.0 && i.0 < a.0 && a.0 < b.0 && b.0 < g.0, "{h:?} {i:?} {a:?} {b:?} {g:?}");
    assert!(g.1 < i.1 && i.1 < h.1 && h.1 < a.1 && a.1 < b.1);
    let placed = view.rows.iter().filter(|row| row.flop_per_s.is_some()).count();
    for letter in ('A'..='Z').take(placed) {
        assert!(text.lines().any(|l| l.starts_with(&format!("{letter} "))), "{letter}");
        // A hidden letter is owned up to.
        let legend = text.lines().find(|l| l.starts_with(&format!("{letter} "))).unwrap();
        assert!(find(letter).is_some() || legend.contains("under "), "{legend}");
    }
}

#[test]
fn the_verdict_names_ridge_best_gap_and_wrong_outputs_and_never_a_doubted_row() {
    let sentences = verdict::sentences(&fixture::host()).join("\n");
    for part in ["3.93 FLOP/byte", "matmul blocked 1000x1x4096", "96 %", "depthwise rows 1x7x7x960 k3", "launch", "1 of 18"] {
        assert!(sentences.contains(part), "{part} in {sentences}");
    }
    assert!(!sentences.contains("4x28x28x96"), "{sentences}");
    let mut empty = fixture::host();
    (empty.rows, empty.ceilings) = (vec![], vec![]);
    assert!(verdict::sentences(&empty).is_empty());
}

#[test]
fn references_stand_apart_and_never_count_as_ours() {
    use rooftrace::record::Cache::Cold;
    let mut view = fixture::host();
    let count = view.rows.len();
    let row = |variant: &str, rate: f64| {
        fixture::row("matmul", variant, "4096x4096x4096", Cold, 1.37e11, 2.0e8, rate, ("compute (vector)", 0.99))
    };
    let (ours, slower, library) = (row("pipelined", 55e9), row("naive", 1e9), row("cublas", 66e9));
    view.rows.extend([ours, slower, rooftrace::view::Row { role: rooftrace::op::OpRole::Reference, ..library }]);
    let sentences = verdict::sentences(&view).join("\n");
    assert!(
        sentences.contains("Time of our fastest matmul in f32, as a multiple of cuBLAS's: 1.20 at 4096x4096x4096 (pipelined)."),
        "{sentences}"
    );
    // It is closer to its roof than any but the row that is named, and would be the fastest of its problem.
    assert!(!sentences.contains("cublas ") && sentences.contains(&format!("1 of {} kernels", count + 2)), "{sentences}");
    let beside = verdict::beside(&view, "naive").join("\n");
    assert!(beside.contains("pipelined, the fastest of ours at 4096x4096x4096") && !beside.contains("cublas"), "{beside}");
    for text in [table::terminal(&view, &Style::default()), table::markdown(&view)] {
        let (kernels, references) = text.split_once("references: the vendor's libraries, none of them ours").expect("a section of its own");
        assert!(!kernels.contains("cublas") && references.contains("cublas") && !references.contains("pipelined"), "{text}");
    }
    let chart = chart::terminal(&view, &Style::default());
    assert!(chart.lines().any(|line| line.contains("cublas") && line.contains("(reference)")), "{chart}");
    let picture = rooftrace::report::svg::roofline(&view).expect("it is drawn").svg;
    assert!(picture.contains("Hollow with a dot: a vendor"), "the legend tells the sign");
    view.rows.last_mut().expect("a row").state = State::Wrong;
    let sentences = verdict::sentences(&view).join("\n");
    assert!(sentences.contains("1 of 1 references gave a wrong output") && !sentences.contains("cuBLAS"), "{sentences}");
}

#[test]
fn the_ramp_is_told_in_a_sentence_with_its_share_at_the_ridge() {
    use rooftrace::record::Cache::Cold;
    let mut view = fixture::host();
    let step = |x: f64, share: f64| {
        let roof = fixture::F32.min(fixture::DRAM * x);
        let mut row = fixture::row("ramp", "chains", "x", Cold, 1e9 * x, 1e9, share * roof, ("dram", share));
        row.role = rooftrace::op::OpRole::Probe;
        row
    };
    // The ridge of these roofs is at 74.6 / 19 = 3.93 FLOP/byte, half way from 2 to 7.71 in log.
    let far = fixture::F32 / fixture::DRAM * fixture::F32 / fixture::DRAM / 2.0;
    view.ramp = vec![step(0.125, 0.96), step(2.0, 0.8), step(far, 0.7), step(256.0, 0.99)];
    let sentences = verdict::sentences(&view).join("\n");
    let said = "reaches 96 % of the bandwidth at 0.125 FLOP/byte, 75 % of min(compute, bandwidth) at its ridge (3.93 FLOP/byte) \
                and 99 % of the compute roof at 256 FLOP/byte.";
    assert!(sentences.contains(said), "{sentences}");
    let text = chart::terminal(&view, &Style { width: 100, colour: false, ascii: true });
    assert!(text.contains(". ramp"), "{text}");
    view.ramp[1].above_roof = true;
    assert!(verdict::sentences(&view).join("\n").contains("1 of the ramp's 4 points lie above the roof"));
    view.ramp.truncate(2);
    view.ramp[1].roof_fraction = Some(f64::NAN);
    assert!(!verdict::sentences(&view).join("\n").contains("Up the ramp"), "no sentence from one side of the ridge");
}

#[test]
fn all_shares_of_a_kernel_are_listed_where_they_are_known() {
    use rooftrace::view::Share;
    let mut view = fixture::host();
    let style = Style { width: 100, colour: false, ascii: true };
    assert_eq!(table::shares(&view, &style), "");
    let share = |resource: &str, share: f64| Share { resource: resource.into(), share };
    view.rows[3].shares = vec![share("compute (vector)", 0.74), share("exp", 0.071), share("dram", 0.004)];
    let text = table::shares(&view, &style);
    assert!(text.contains("D matmul blocked 512x512x512 cold: compute (vector) 74%, exp 7.1%, dram 0.4%"), "{text}");
}

#[test]
fn ceilings_of_integers_are_told_in_operations_and_those_of_probes_alone_make_no_ridge() {
    let mut view = fixture::host();
    view.ceilings.push(fixture::compute("int8 vector", Precision::Int8, 260.0e9));
    view.ceilings.push(fixture::compute("fp8 mma", Precision::Fp8, 310.0e9));
    let (table, chart) = (table::terminal(&view, &style(140)), chart::terminal(&view, &style(140)));
    assert!(line(&table, "int8 vector").contains("260 GOP/s") && line(&chart, "int8 vector").contains("int8 vector 260 GOP/s"));
    assert!(line(&table, "fp8 mma").contains("310 GFLOP/s") && line(&chart, "fp8 mma").contains("fp8 mma 310 GFLOP/s"));
    assert!(svg::roofline(&view).expect("drawn").svg.contains("260 GOP/s"));
    assert_eq!(verdict::sentences(&view), verdict::sentences(&fixture::host()));
    view.ceilings.retain(|ceiling| ceiling.precision.is_none_or(Precision::is_of_probes));
    assert!(!chart::terminal(&view, &style(140)).contains("ridge at"));
}
