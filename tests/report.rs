//! What a person sees: tables, terminal chart, verdict and picture, from views built by hand.

#[path = "report/fixture.rs"]
mod fixture;
#[path = "report/hostile.rs"]
mod hostile;
#[path = "report/picture.rs"]
mod picture;
#[path = "report/text.rs"]
mod text;

/// Writes what the fixtures look like under the folder named by `LOOK`; for eyes, not for CI.
#[test]
fn every_form_of_every_fixture_can_be_made() {
    use rooftrace::report::{Style, chart, svg, table, verdict};
    for (name, view) in
        [("host", fixture::host()), ("card", fixture::card()), ("crowd", fixture::crowd(60)), ("mass", fixture::crowd(5000))]
    {
        let picture = svg::roofline(&view).expect("drawn");
        assert!(picture.svg.starts_with("<svg ") && picture.svg.ends_with("</svg>\n"));
        let mut texts = String::new();
        for (width, ascii) in [(80, false), (100, true), (140, false)] {
            let style = Style { width, colour: false, ascii };
            texts += &[table::terminal(&view, &style), verdict::terminal(&view, &style), chart::terminal(&view, &style)].join("\n");
        }
        assert!(view.rows.len() > 18 || texts.contains("WRONG") && texts.contains("SUSPECT"));
        if let Some(folder) = std::env::var_os("LOOK").map(std::path::PathBuf::from) {
            std::fs::write(folder.join(format!("{name}.svg")), &picture.svg).expect("LOOK is a folder");
            std::fs::write(folder.join(format!("{name}.txt")), &texts).expect("LOOK is a folder");
            std::fs::write(folder.join(format!("{name}.md")), table::markdown(&view)).expect("LOOK is a folder");
        }
    }
}
