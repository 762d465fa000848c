//! What each report of a drained server must say.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use greenling::server::{DrainReport, Server};

/// Whether nothing listens there.
pub(crate) fn refuses(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Checks that the report accounts for everything that came.
#[track_caller]
pub(crate) fn adds_up(report: &DrainReport) {
    let came = report.active_at_start + report.from_backlog;
    let went = report.finished + report.closed_idle + report.killed + report.stuck + report.turned_away;
    assert_eq!(came, went, "{report:?}");
    assert_eq!(report.counters.active(), report.stuck, "{report:?}");
}

/// Drains, and checks what every report must say.
#[track_caller]
pub(crate) fn drain(server: Server) -> DrainReport {
    let addr = server.local_addr();
    let report = server.drain().expect("no panic");
    adds_up(&report);
    assert!(refuses(addr), "the port is closed");
    report
}
