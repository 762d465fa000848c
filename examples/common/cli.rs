//! What the examples share as command-line programs: durations and numbers, one clear line for a wrong argument, a quiet
//! end when nobody reads the output.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "no example needs all of it")]

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

/// Ends the process with exit code `code`, after one line on standard error that begins with the program's name.
pub(crate) fn fail(code: i32, program: &str, what: impl Display) -> ! {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "{program}: {what}");
    std::process::exit(code);
}

/// [`fail`] for a command line that cannot be understood.
pub(crate) fn misused(program: &str, what: impl Display) -> ! {
    fail(2, program, format_args!("{what} (try --help)"))
}

/// [`fail`] for an address, as the command line has it, on which it cannot listen; says what to do about it.
pub(crate) fn cannot_listen(program: &str, addr: &str, error: &io::Error) -> ! {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => {
            fail(2, program, format_args!("{addr} is in use; take another port with --addr HOST:PORT"))
        }
        io::ErrorKind::InvalidInput => "; it must be HOST:PORT",
        io::ErrorKind::PermissionDenied => "; take a port from 1024 up",
        _ => "",
    };
    fail(2, program, format_args!("cannot listen on {addr}: {error}{cure}"))
}

/// Prints the help and ends the process.
pub(crate) fn help(text: &str) -> ! {
    match io::stdout().write_all(text.as_bytes()) {
        // `--help | head -1` is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "cannot print the help: {error}");
            std::process::exit(1);
        }
        _ => std::process::exit(0),
    }
}

/// Prints a line. When nobody reads any more, as after `| head`, that is the end of the program, not a panic.
pub(crate) fn say(program: &str, line: impl Display) {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => fail(1, program, error),
    }
}

/// The value of an option, as text.
pub(crate) fn text(option: &str, parser: &mut lexopt::Parser) -> Result<String, String> {
    let value: OsString = parser.value().map_err(|_| format!("{option} needs a value"))?;
    value.into_string().map_err(|value| format!("{option} {}: not UTF-8", value.display()))
}

/// The value of an option that is a whole number, 1 or more.
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

/// The value of an option that is a duration: `0`, `0.5` (seconds), `2s`, `500ms`.
pub(crate) fn duration(option: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    let value = text(option, parser)?;
    let seconds = [("ms", 1e-3), ("s", 1.0), ("", 1.0)].iter().find_map(|(unit, factor)| {
        let number = value.strip_suffix(unit)?;
        Some(number.trim_end().parse::<f64>().ok()? * factor)
    });
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(duration)) => Ok(duration),
        _ => Err(format!("{option} {value}: not a duration such as 0, 0.5 (seconds), 2s or 500ms")),
    }
}
