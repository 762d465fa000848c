//! Output that waits for the reader as long as a program should.
#![forbid(unsafe_code)]

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, stdout};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use super::fail;

/// How long a line on an output is, at most.
pub(crate) const WIDTH: usize = 80;

/// How long [`fail`](super::fail) and [`announce`] wait for the reader of an output.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(1);

/// Prints a line of a program that does its work and ends. If the reader has gone, as after `| head`, the program ends,
/// without a panic. An output that does not block (O_NONBLOCK) is waited for like one that does.
pub(crate) fn say(program: &str, line: impl Display) {
    print(program, &fold(&format!("{line}\n")));
}

/// Prints a line unchanged, for other programs to read.
pub(crate) fn say_exactly(program: &str, line: impl Display) {
    print(program, &format!("{line}\n"));
}

/// Says at once that a server is there. The server goes on if the output is not read.
pub(crate) fn announce(line: impl Display) {
    note(stdout(), &format!("{line}\n"), LAST_WORD);
}

/// Prints the help and ends the process.
pub(crate) fn help(program: &str, text: &str) -> ! {
    print(program, text);
    std::process::exit(0)
}

/// Writes all of `text` to standard output, or ends the process.
fn print(program: &str, text: &str) {
    let out = stdout();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(&out, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => drop(has_room(&out, PollTimeout::NONE)),
            Err(Errno::EPIPE) => std::process::exit(0),
            Err(error) => fail(1, program, io::Error::from(error)),
        }
    }
}

/// Writes a short text, such as a line, if `to` has room for the text within `patience`, and returns whether so. A
/// text that could not be written is lost.
///
/// Room in a pipe means room for 4096 bytes. So a write of a line does not wait, even if a dozen other processes write
/// theirs at the same moment. Room in a terminal may be less than a line: so a terminal is opened once more, for an
/// open file of our own, which does not block.
pub(crate) fn note(to: impl AsFd + IsTerminal, text: &str, patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let to: &dyn AsFd = match terminal(&to) {
        Some(own) => own,
        None => &to,
    };
    has_room(&to, patience) && write(to, text.as_bytes()) == Ok(text.len())
}

/// Returns the terminal behind standard output or standard error, opened once more, if there is a terminal. The open
/// file of `output` itself is also the shell's, and so is its O_NONBLOCK.
fn terminal(output: &(impl AsFd + IsTerminal)) -> Option<&'static File> {
    static OUT: OnceLock<Option<File>> = OnceLock::new();
    static ERR: OnceLock<Option<File>> = OnceLock::new();
    let number = output.as_fd().as_raw_fd();
    // Each of the two is opened at most once.
    let own = if number == stdout().as_raw_fd() { &OUT } else { &ERR };
    let open = || {
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        output.is_terminal().then(|| options.open(format!("/proc/self/fd/{number}")).ok()).flatten()
    };
    own.get_or_init(open).as_ref()
}

/// Waits until `to` takes more.
fn has_room(to: &(impl AsFd + ?Sized), patience: PollTimeout) -> bool {
    let mut one = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    loop {
        match poll(&mut one, patience) {
            Err(Errno::EINTR) => {}
            result => return result.is_ok_and(|ready| ready == 1),
        }
    }
}

/// Breaks lines that are longer than [`WIDTH`] before a word; what follows is indented. A line with a word that is too
/// long by itself stays as it is.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let is_long = |text: &str| text.trim_end_matches('\n').chars().count() > WIDTH;
        if !is_long(line) || line.split(' ').any(is_long) {
            folded.push_str(line);
            continue;
        }
        // Word by word, with a new line before a word that has no room.
        let indent = line.len() - line.trim_start().len() + 2;
        let mut length = 0;
        for (number, word) in line.split(' ').enumerate() {
            let long = word.trim_end_matches('\n').chars().count();
            if number > 0 && length + 1 + long > WIDTH && length > indent {
                // Writing to a string does not fail.
                let _ = write!(folded, "\n{:indent$}", "");
                length = indent;
            } else if number > 0 {
                folded.push(' ');
                length += 1;
            }
            folded.push_str(word);
            length += long;
        }
    }
    folded
}
