//! The picture, read back: one marker a placed row, at the pixel of its values.

use std::collections::BTreeMap;

use rooftrace::report::svg;
use rooftrace::view::View;

use super::fixture;

/// An element: attributes, and text up to the next tag.
#[derive(Debug)]
pub struct Element {
    pub attributes: BTreeMap<String, String>,
    pub text: String,
}

impl Element {
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    pub fn number(&self, name: &str) -> f64 {
        self.get(name).parse().unwrap_or_else(|_| panic!("{name} of {self:?}"))
    }
}

fn unescaped(text: &str) -> String {
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&apos;", "'"), ("&amp;", "&")];
    plain.iter().fold(text.to_string(), |text, (entity, c)| text.replace(entity, c))
}

/// A small strict reader: every `<` begins a tag, attributes are quoted, tags nest and close.
pub fn parse(svg: &str) -> Vec<Element> {
    let mut elements = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("a tag without an end: {piece}"));
        assert!(!text.contains('>'), "a stray > in {text}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "tags nest");
            continue;
        }
        let closed = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut attributes = BTreeMap::new();
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("an open quote in {tag}"));
            assert!(attributes.insert(key.trim().to_string(), unescaped(value)).is_none(), "{key} twice in {tag}");
            rest = after;
        }
        assert!(rest.trim().is_empty(), "{rest} in {tag}");
        assert!(["svg", "title", "rect", "text", "g", "path", "circle", "polygon", "polyline", "line"].contains(&name), "{name}");
        if !closed {
            open.push(name.to_string());
        }
        elements.push(Element { attributes, text: unescaped(text.trim_end_matches('\n')) });
    }
    assert!(open.is_empty(), "{open:?} stay open");
    elements
}

/// Markers by row, with their pixels.
pub fn markers(elements: &[Element]) -> Vec<(String, f64, f64)> {
    let marks = elements.iter().filter(|e| e.get("class") == "mark");
    let place = |e: &Element| {
        let inner = e.get("transform").trim_start_matches("translate(").trim_end_matches(')').to_string();
        let (x, y) = inner.split_once(' ').expect("two numbers");
        (e.get("data-row").to_string(), x.parse().expect("a number"), y.parse().expect("a number"))
    };
    marks.map(place).collect()
}

/// The pixel of a value, from the bounds that the picture states.
fn expected(elements: &[Element], x: f64, y: f64) -> (f64, f64) {
    let plot = elements.iter().find(|e| e.get("id") == "plot").expect("a plot");
    let along = |value: f64, axis: &str, from: &str, to: &str| {
        let (min, max) = (plot.number(&format!("data-{axis}-min")), plot.number(&format!("data-{axis}-max")));
        let (from, to) = (plot.number(from), plot.number(to));
        from + (value / min).log10() / (max / min).log10() * (to - from)
    };
    (along(x, "x", "data-left", "data-right"), along(y, "y", "data-bottom", "data-top"))
}

/// Asserts that exactly the placed rows have a marker, each at its pixel, and that the counts add up.
pub fn check(view: &View) -> svg::Picture {
    let picture = svg::roofline(view).expect("drawn");
    let elements = parse(&picture.svg);
    let markers = markers(&elements);
    assert_eq!(markers.len(), picture.drawn, "one marker a drawn row");
    assert_eq!(picture.drawn + picture.left_out.len(), view.rows.len(), "drawn and left out are all rows");
    for (id, x, y) in &markers {
        let near = |row: &&rooftrace::view::Row| {
            let (want_x, want_y) = expected(&elements, row.intensity, row.flop_per_s.unwrap_or(f64::NAN));
            row.id == *id && (x - want_x).abs() <= 1.0 && (y - want_y).abs() <= 1.0
        };
        assert!(view.rows.iter().any(|row| near(&row)), "marker of {id} at {x}, {y} is not at its values");
    }
    assert_labels_are_apart(&elements);
    picture
}

/// Corners of a text's box: 0.6 em a character, 0.9 em high, about its middle, turned as it is turned.
fn corners(e: &Element) -> [(f64, f64); 4] {
    let size = e.number("font-size");
    let (x, y) = (e.number("x"), e.number("y") - 0.35 * size);
    let turn = e.get("transform").trim_start_matches("rotate(").split(' ').next().unwrap_or("").parse().unwrap_or(0.0f64);
    let (sin, cos) = turn.to_radians().sin_cos();
    let (half_wide, half_tall) = (0.3 * size * e.text.chars().count() as f64, 0.45 * size);
    [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(a, b)| {
        let (u, v) = (a * half_wide, b * half_tall);
        (x + u * cos - v * sin, y + u * sin + v * cos)
    })
}

/// Two convex shapes overlap unless a side of one of them has the other wholly outside.
fn overlap(a: &[(f64, f64); 4], b: &[(f64, f64); 4]) -> bool {
    let separates = |p: &[(f64, f64); 4], q: &[(f64, f64); 4]| {
        (0..4).any(|i| {
            let (from, to) = (p[i], p[(i + 1) % 4]);
            q.iter().all(|c| (to.0 - from.0) * (c.1 - from.1) - (to.1 - from.1) * (c.0 - from.0) <= 0.0)
        })
    };
    !separates(a, b) && !separates(b, a)
}

#[test]
fn names_in_a_figure_stand_apart_and_one_without_room_is_written_below() {
    use rooftrace::study::{Axis, Figure, Line, Look, Mark, Panel, Quantity};
    let mark = |i: u32| Mark { name: format!("a kernel called {i}"), ..Mark::at(f64::from(1 + i % 7), 1e9 * f64::from(1 + i % 5)) };
    let line = |look, name: &str, count: u32| Line { name: name.into(), look, family: 1, marks: (0..count).map(mark).collect() };
    let odd: Vec<Mark> = [(f64::NAN, 1e9), (0.0, 1e9), (1.0, f64::INFINITY), (-1.0, 1e9)].map(|(x, y)| Mark::at(x, y)).into();
    let panel = |count: u32| Panel {
        x: Axis { name: "Batch", quantity: Quantity::Count },
        y: Axis { name: "Performance", quantity: Quantity::FlopRate },
        lines: vec![line(Look::Points, "", count), Line { name: "odd".into(), look: Look::Measured, family: 2, marks: odd.clone() }],
    };
    for (count, room) in [(6, true), (600, false)] {
        let figure = Figure { title: "Names <&> more".into(), panels: vec![panel(count), panel(3)] };
        let elements = parse(&svg::figure(&figure, &fixture::header()).expect("drawn"));
        assert_labels_are_apart(&elements);
        let below = elements.iter().any(|e| e.get("class") == "note" && e.text.contains("for want of room"));
        assert_eq!(below, !room);
        assert_eq!(elements.iter().filter(|e| e.get("class") == "mark").count(), count as usize + 3, "what is no number is not drawn");
    }
}

/// A name that had to go far is led to by a line that passes under no other name.
#[test]
fn leaders_cross_no_name_and_named_points_have_a_legend_in_place_of_a_name_at_their_end() {
    use rooftrace::study::{Axis, Figure, Line, Look, Mark, Panel, Quantity};
    let mark = |i: u32| Mark { name: format!("part {i}"), ..Mark::at(40.0 + f64::from(i), 1e9 * (1.0 + 0.02 * f64::from(i % 3))) };
    let line =
        |name: &str, family, from: u32| Line { name: name.into(), look: Look::Points, family, marks: (from..from + 6).map(mark).collect() };
    let panel = Panel {
        x: Axis { name: "Compulsory intensity", quantity: Quantity::Intensity },
        y: Axis { name: "Performance", quantity: Quantity::FlopRate },
        lines: vec![line("one chain", 0, 0), line("another chain", 1, 6)],
    };
    let figure = Figure { title: "Crowded".into(), panels: vec![panel] };
    let elements = parse(&svg::figure(&figure, &fixture::header()).expect("drawn"));
    assert_labels_are_apart(&elements);
    let labels: Vec<_> = elements.iter().filter(|e| e.get("class") == "label").collect();
    let leaders: Vec<_> = elements.iter().filter(|e| e.get("class") == "leader").collect();
    assert!(!leaders.is_empty(), "the crowd is thick enough to need some");
    for leader in leaders {
        let ends: Vec<f64> =
            leader.get("d").split(['M', 'L', ' ']).filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect();
        let [x0, y0, x1, y1] = ends[..] else { panic!("two ends: {ends:?}") };
        let across = [(x0, y0), (x1, y1), (x1 + 0.1, y1 + 0.1), (x0 + 0.1, y0 + 0.1)];
        for label in &labels {
            assert!(!overlap(&corners(label), &across), "a leader crosses {}", label.text);
        }
    }
    for name in ["one chain", "another chain"] {
        assert!(elements.iter().any(|e| e.get("class") == "note" && e.text == name) && labels.iter().all(|e| e.text != name), "{name}");
    }
}

fn assert_labels_are_apart(elements: &[Element]) {
    let labels: Vec<_> = elements.iter().filter(|e| e.get("class") == "label").map(|e| (corners(e), &e.text)).collect();
    for (i, (a, name)) in labels.iter().enumerate() {
        for (b, other) in &labels[i + 1..] {
            assert!(!overlap(a, b), "{name} and {other} overlap");
        }
    }
    // No label hides a marker either.
    for (id, x, y) in markers(elements) {
        let marker = [(-9.0, -9.0), (9.0, -9.0), (9.0, 9.0), (-9.0, 9.0)].map(|(a, b)| (x + a, y + b));
        for (label, name) in &labels {
            assert!(!overlap(label, &marker), "{name} covers the marker of {id}");
        }
    }
}

#[test]
fn the_overlap_test_itself_tells_apart() {
    let square = |x: f64, y: f64| [(x, y), (x + 2.0, y), (x + 2.0, y + 2.0), (x, y + 2.0)];
    assert!(overlap(&square(0.0, 0.0), &square(1.0, 1.0)));
    assert!(overlap(&square(0.0, 0.0), &square(0.0, 0.0)));
    assert!(!overlap(&square(0.0, 0.0), &square(2.5, 0.0)));
}

#[test]
fn each_placed_row_has_one_marker_at_its_values_and_no_other_row_has_any() {
    for view in [fixture::host(), fixture::card()] {
        let picture = check(&view);
        assert_eq!(picture.drawn, 17);
        assert_eq!(picture.left_out.len(), 1);
        assert_eq!(picture.left_out[0].id, view.rows[9].id);
        assert!(picture.left_out[0].why.contains("wrong"), "{:?}", picture.left_out);
        assert!(picture.roofs_left_out.is_empty(), "{:?}", picture.roofs_left_out);
        assert!(!picture.svg.contains(&view.rows[9].id), "nothing of the wrong row is drawn");
    }
}

#[test]
fn doubted_markers_are_hollow_and_the_others_are_not() {
    let view = fixture::host();
    let svg = svg::roofline(&view).unwrap().svg;
    for row in view.rows.iter().filter(|row| row.flop_per_s.is_some()) {
        let (_, rest) = svg.split_once(&format!("data-row=\"{}\"", row.id)).expect("a marker");
        let shape = rest.split("</title>").nth(1).and_then(|s| s.split("</g>").next()).expect("a shape");
        assert_eq!(shape.contains("fill=\"#fff\""), row.above_roof, "{}: {shape}", row.id);
    }
}

#[test]
fn every_roof_drawn_is_named_with_its_value_and_every_letter_is_in_the_legend() {
    let view = fixture::host();
    let elements = parse(&svg::roofline(&view).unwrap().svg);
    let texts: Vec<&str> = elements.iter().map(|e| e.text.as_str()).collect();
    for text in ["f32 vector 74.6 GFLOP/s", "f64 vector 37.2 GFLOP/s", "l3 triad 42.0 GB/s", "ridge 3.93 FLOP/byte"] {
        assert!(texts.contains(&text), "{text}");
    }
    assert!(texts.iter().any(|t| t.contains("dram triad 19.0 GB/s, read 22.4 GB/s, copy 18.2 GB/s")));
    for letter in ('A'..='Q').map(String::from) {
        let with = |class: &str| elements.iter().filter(|e| e.get("class") == class && e.text == letter).count();
        assert_eq!((with("label"), with("legend")), (1, 1), "{letter}");
    }
}

#[test]
fn a_whisker_leads_left_to_the_moved_intensity() {
    let view = fixture::host();
    let elements = parse(&svg::roofline(&view).unwrap().svg);
    for row in [&view.rows[1], &view.rows[10]] {
        let (left, y) = expected(&elements, row.intensity_moved, row.flop_per_s.unwrap());
        let found = elements.iter().filter(|e| e.get("class") == "whisker").any(|e| {
            let path = e.get("d").trim_start_matches('M');
            let (start, end) = path.split_once('H').expect("a horizontal line");
            let start_y: f64 = start.split(' ').nth(1).unwrap().parse().unwrap();
            let end: f64 = end.split('m').next().unwrap().parse().unwrap();
            (start_y - y).abs() <= 1.0 && (end - left).abs() <= 1.0
        });
        assert!(found, "{}", row.id);
    }
    assert_eq!(elements.iter().filter(|e| e.get("class") == "whisker").count(), 2);
}

#[test]
fn simulated_devices_carry_a_watermark_and_real_ones_do_not() {
    assert!(svg::roofline(&fixture::card()).unwrap().svg.contains(">SIMULATED</text>"));
    assert!(!svg::roofline(&fixture::host()).unwrap().svg.contains("SIMULATED"));
}

#[test]
fn title_date_and_version_are_in_the_picture() {
    let svg = svg::roofline(&fixture::host()).unwrap().svg;
    for text in ["Roofline of AMD EPYC 7763", "2026-11-22 07:43 UTC", "rooftrace 0.1.0"] {
        assert!(svg.contains(text), "{text}");
    }
}

#[test]
fn the_same_view_gives_the_same_bytes() {
    for view in [fixture::host(), fixture::card()] {
        let first = svg::roofline(&view).unwrap();
        for _ in 0..3 {
            assert_eq!(svg::roofline(&view).unwrap(), first);
        }
    }
}
