//! What is typed at a server that was started on a terminal: `quit` and `stats`.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::sync::Arc;

use greenling::io::stdin;

use crate::counters;
use crate::service::Service;

/// What there is to type.
const HINT: &str = "type quit to stop, stats for the counters";

/// Starts a green thread that reads standard input, if that is a terminal, and ours.
pub(crate) fn watch(service: &Arc<Service>) {
    if stdin().is_terminal() && in_foreground() {
        service.say(HINT);
        service.in_background(read_commands);
    }
}

/// Stops the server on `quit` and at the end of input.
fn read_commands(service: &Service) {
    let mut line = String::new();
    loop {
        line.clear();
        match stdin().read_line(&mut line) {
            Ok(0) => break,
            Ok(_) if line.trim() == "quit" => break,
            Ok(_) if line.trim() == "stats" => counters::show(service),
            Ok(_) if line.trim().is_empty() => {}
            Ok(_) => service.say(HINT),
            Err(error) if error.kind() == ErrorKind::InvalidData => service.say(HINT),
            // The terminal is gone, the clients are not.
            Err(_) => return,
        }
    }
    service.handle.drain();
}

/// Reports whether what is typed is for this process: the kernel stops a process that was started with `&` as soon as
/// it reads from its terminal and something is typed there.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // proc_pid_stat(5): after the name in parentheses, field 2 is the process group, 5 the terminal's foreground group.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let no_terminal = fields.get(5) == Some(&"-1");
    no_terminal || fields.get(2) == fields.get(5)
}

// Output of a session, with a client that said "hello" and left:
//
//     listening on 127.0.0.1:7007
//     try: nc 127.0.0.1 7007
//     type quit to stop, stats for the counters
//     127.0.0.1:53004 connected (1 now)
//     127.0.0.1:53004 left: echoed 6 bytes, closed by the client (0 now)
//     quit
//     stopped
