//! Times and counts as text.
#![forbid(unsafe_code)]

/// Returns a time in the unit that fits best, with three digits.
pub(crate) fn time(nanoseconds: u64) -> String {
    let ns = nanoseconds as f64;
    let (number, unit) = match ns {
        ns if ns < 999.5e3 => (ns / 1e3, "us"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let decimals = match number {
        number if number < 9.995 => 2,
        number if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

/// Returns a count and what is counted.
pub(crate) fn plural(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
