//! How a budget of time is written.

use std::time::Duration;

/// `90s`, `2m`, `500ms`, or plain seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err(format!("'{unit}' is no unit of time; write 90s or 2m")),
    };
    let seconds = number.parse::<f64>().map_err(|_| format!("'{text}' is no time; write 90s or 2m"))? * scale;
    if !(0.001..=1e6).contains(&seconds) {
        return Err(format!("{text} is out of range; write something between 1ms and 10000m"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
