//! Progress on standard error: a bar in a terminal, one plain line a stage elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::record::{Record, State};

/// What the user sees while measuring.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    verbose: bool,
    started: Instant,
}

impl Progress {
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:24} {pos}/{len} {prefix}: {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress { bar, quiet, verbose, started: Instant::now() }
    }

    pub fn stage(&self, name: &str, items: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(items as u64);
                bar.set_position(0);
                bar.set_prefix(name.to_string());
            }
            None => self.line(name),
        }
    }

    pub fn item(&self, name: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(name.to_string());
                bar.inc(1);
            }
            None if self.verbose => self.line(name),
            None => {}
        }
    }

    /// Says at once what went wrong; the rest is in the table.
    pub fn record(&self, record: &Record) {
        match record {
            Record::Measurement(m) if m.state == State::Wrong => {
                self.line(&format!("WRONG {}", m.reasons.first().map_or("", String::as_str)))
            }
            Record::Skip(s)
                if matches!(s.state, State::Timeout | State::OutOfMemory | State::DeviceLost | State::Wrong | State::NotCompiled) =>
            {
                // Of a compiler's log the first line; the record has them all.
                self.line(&format!("{}/{}: {}", s.op, s.variant, s.why.lines().next().unwrap_or_default()));
            }
            Record::Measurement(m) if self.verbose => self.line(&format!("{} {:?} {}", m.id, m.state, m.reasons.join("; "))),
            Record::Skip(s) if self.verbose => self.line(&format!("{}/{} {:?}: {}", s.op, s.variant, s.state, s.why)),
            _ => {}
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Says something once.
    pub fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let line = format!("{:>5.1} s  {text}", self.started.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}
