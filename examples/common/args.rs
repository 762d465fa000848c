//! The arguments of the examples, and their values.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use super::{help, misused};

/// Reads the command line of a program that takes no arguments but `--help`.
pub(crate) fn no_arguments(program: &str, text: &str) {
    use lexopt::prelude::*;
    match lexopt::Parser::from_env().next() {
        Ok(None) => {}
        Ok(Some(Long("help") | Short('h'))) => help(program, text),
        Ok(Some(other)) => misused(program, other.unexpected()),
        Err(error) => misused(program, error),
    }
}

/// Reads the command line of a server that takes an address, with or without `--addr` before the address.
pub(crate) fn address(program: &str, text: &str, default: &str) -> String {
    use lexopt::prelude::*;
    let parse = || -> Result<Option<String>, String> {
        let mut addr = None;
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
            match arg {
                Long("addr") => addr = Some(self::text("--addr", &mut parser)?),
                Long("help") | Short('h') => help(program, text),
                Value(value) if addr.is_none() => addr = Some(value.string().map_err(|error| error.to_string())?),
                other => return Err(other.unexpected().to_string()),
            }
        }
        Ok(addr)
    };
    parse().unwrap_or_else(|what| misused(program, what)).unwrap_or_else(|| default.to_owned())
}

/// Reads the value of an option, as text.
pub(crate) fn text(option: &str, parser: &mut lexopt::Parser) -> Result<String, String> {
    let value: OsString = parser.value().map_err(|_| format!("{option} needs a value"))?;
    value.into_string().map_err(|value| format!("{option} {}: not UTF-8", value.display()))
}

/// Reads the value of an option that is a whole number, 1 or more.
pub(crate) fn count<N: FromStr + PartialOrd + From<u8>>(
    option: &str,
    parser: &mut lexopt::Parser,
) -> Result<N, String> {
    let value = text(option, parser)?;
    match value.parse() {
        Ok(number) if number >= N::from(1) => Ok(number),
        _ => Err(format!("{option} {value}: not a whole number, 1 or more")),
    }
}

/// Reads the value of an option that is a duration: `0`, `0.5` (seconds), `2s`, `500ms`.
pub(crate) fn duration(option: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    let value = text(option, parser)?;
    let seconds = [("ms", 1e-3), ("s", 1.0), ("", 1.0)].iter().find_map(|(unit, factor)| {
        let number = value.strip_suffix(unit)?;
        Some(number.trim_end().parse::<f64>().ok()? * factor)
    });
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(duration)) => Ok(duration),
        _ => Err(format!("{option} {value}: not a duration: 2s, 500ms")),
    }
}
