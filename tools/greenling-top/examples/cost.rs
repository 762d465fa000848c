//! Measures what one look a second costs the program that is looked at: its CPU time, idle and looked at, in turns.
//!
//! `GREENLING_CONSOLE=1 cargo run --release --example demo -- 10000`; then `cargo run --release --example cost -- PID`.

use std::error::Error;
use std::time::{Duration, Instant};
use std::{fs, thread};

use greenling_top::agent::{Agent, find};
use serde_json::json;

/// The length of a turn.
const TURN: u32 = 10;

/// Returns the CPU time that all OS threads of a process have had.
fn cpu_time(process: &str) -> Result<Duration, Box<dyn Error>> {
    let mut time = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // The first figure is the time on a processor, in nanoseconds.
        let figures = fs::read_to_string(task?.path().join("schedstat"))?;
        time += figures.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(time))
}

fn main() -> Result<(), Box<dyn Error>> {
    let process = std::env::args().nth(1).ok_or("usage: cost PID")?;
    let mut agent = Agent::connect(&find(&process)?)?;
    for _ in 0..3 {
        let mut shares = [0.0; 2];
        for (looks, share) in [false, true].iter().zip(&mut shares) {
            let (begin, before) = (Instant::now(), cpu_time(&process)?);
            for second in 1..=TURN {
                if *looks {
                    for what in ["hubs", "groups", "threads"] {
                        agent.ask(&json!({ "get": what, "limit": 50 }))?;
                    }
                }
                thread::sleep((Duration::from_secs(1) * second).saturating_sub(begin.elapsed()));
            }
            *share = (cpu_time(&process)? - before).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
        }
        let [idle, looked] = shares;
        println!("idle {idle:.2} %, looked at each second {looked:.2} %, so a look costs {:.2} %", looked - idle);
    }
    Ok(())
}
