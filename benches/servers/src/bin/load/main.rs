//! A load driver on a timetable: requests are due at fixed moments, whatever the server does, and each latency counts
//! from there. `load --help` says the rest.
//!
//! One OS thread over one epoll, by `mio`: none of the runtimes that are measured drives the measurement, none talks to
//! its own kind, and the driver has no garbage to collect and no other thread to wait for. How late the driver was
//! itself is printed beside the figures.
#![forbid(unsafe_code)]

mod chat;
mod engine;
mod frames;
mod options;
mod report;
mod requests;
mod server;
mod timetable;
mod upstream;
mod wire;

use std::io;
use std::process::ExitCode;

use options::{Mode, Plan};

fn main() -> ExitCode {
    greenling_servers::streams::raise_limit();
    let plan = match options::parse(lexopt::Parser::from_env()) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("load: {what} (try --help)");
            return ExitCode::from(2);
        }
    };
    drive(&plan).unwrap_or_else(|error| {
        eprintln!("load: {error}");
        ExitCode::FAILURE
    })
}

/// Drives what the plan says, and prints what was counted.
fn drive(plan: &Plan) -> io::Result<ExitCode> {
    let (report, unit) = match &plan.mode {
        Mode::Upstream => return upstream::run(plan.addr, plan.life()).map(|()| ExitCode::SUCCESS),
        Mode::Requests(protocol) => (requests::run(plan, plan.addr, protocol)?, "requests"),
        Mode::Chat => (chat::run(plan, plan.addr)?, "deliveries"),
    };
    println!("{}", report.text(unit, plan.lines));
    if let Some(what) = &report.first_error {
        eprintln!("load: {} errors, the first: {what}", report.errors);
    }
    Ok(if report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
