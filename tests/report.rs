//! Tables, chart and picture.
#[path = "report/fixture.rs"]
mod fixture;
use rooftrace::report::{Style, chart, svg, table, verdict};

#[test]
fn look() {
    let which = std::env::var("LOOK").unwrap_or_default();
    let view = if which == "card" { fixture::card() } else { fixture::host() };
    let width: usize = std::env::var("W").ok().and_then(|w| w.parse().ok()).unwrap_or(100);
    let style = Style { width, colour: std::env::var("COL").is_ok(), ascii: std::env::var("ASCII").is_ok() };
    println!("{}", table::terminal(&view, &style));
    println!("{}", verdict::sentences(&view).join("\n"));
    println!("{}", chart::terminal(&view, &style));
    std::fs::write("/tmp/roof.svg", svg::roofline(&view).unwrap().svg).unwrap();
    if which == "md" { println!("{}", table::markdown(&view)); }
}
