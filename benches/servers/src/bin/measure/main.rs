//! Starts each server in turn, lets wrk and redis-benchmark ask it, and prints what that took. `benches/servers/run` builds
//! all, then starts this program.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::{env, fs, process};

use driver::{Asked, Said};
use options::Options;
use server::{Kind, Running};

mod driver;
mod options;
#[path = "../../../../results/mod.rs"]
mod results;
mod server;
mod table;

/// Connections of the row `idle`.
const IDLE: usize = 1000;

/// A row: what is asked of a server.
struct Row {
    name: &'static str,
    service: &'static str,
    asked: Asked,
}

const fn wrk(name: &'static str, service: &'static str, connections: usize, path: &'static str) -> Row {
    Row { name, service, asked: Asked::Wrk { connections, path } }
}

const fn redis(name: &'static str, connections: usize, command: &'static str, pipeline: usize) -> Row {
    Row { name, service: "kv", asked: Asked::Redis { connections, command, pipeline } }
}

/// All rows, those of a service beside each other.
const ROWS: [Row; 10] = [
    wrk("hello/50", "hello", 50, "/"),
    wrk("hello/1000", "hello", 1000, "/"),
    redis("kv-ping/50", 50, "ping_mbulk", 1),
    redis("kv-set/50", 50, "set", 1),
    redis("kv-get/50", 50, "get", 1),
    redis("kv-incr/50", 50, "incr", 1),
    redis("kv-get/1000", 1000, "get", 1),
    redis("kv-get-pipeline16/50", 50, "get", 16),
    wrk("files-1k/50", "files", 50, "/1k"),
    wrk("files-64k/50", "files", 50, "/64k"),
];

/// All values of a figure: row, what it is of it, its unit, and the server.
type Figures = BTreeMap<(usize, usize, String), Vec<f64>>;

/// What is measured of each row, with its unit.
const PARTS: [(&str, &str); 5] =
    [("rate", "requests/s"), ("cpu", "us CPU/request"), ("p50", "us"), ("p99", "us"), ("idle", "KiB/connection")];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let options = match results::take_option("servers", &mut arguments).and_then(|()| Options::of(&arguments)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("benches/servers/run: {problem} (try --help)");
            return ExitCode::from(2);
        }
    };
    let (kinds, missing) = server::installed(&options);
    missing.iter().for_each(|missing| eprintln!("not installed: {missing}"));
    let load = load_average();
    let mut figures = Figures::new();
    let mut problems = Vec::new();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        measure(&options, &kinds, round, &mut figures, &mut problems);
    }
    table::print(&kinds, &figures);
    table::print_rest(&options, load, &missing, &problems);
    table::note(&kinds, &figures);
    if let Err(error) = results::write() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::from(!problems.is_empty()))
}

/// One round: each service of each server, every second round the other way round, so that drift hits all alike.
fn measure(options: &Options, kinds: &[Kind], round: usize, figures: &mut Figures, problems: &mut Vec<String>) {
    let mut kinds: Vec<&Kind> = kinds.iter().collect();
    if round.is_multiple_of(2) {
        kinds.reverse();
    }
    let folder = folder();
    for service in ["hello", "kv", "files"].into_iter().filter(|service| options.wants_service(service)) {
        for kind in &kinds {
            let Some(command) = kind.command(service, &folder) else { continue };
            let rows = ROWS.iter().enumerate().filter(|(_, row)| row.service == service);
            let mut keep = |row: usize, part: &str, value: f64| {
                let part = PARTS.iter().position(|(name, _)| *name == part).expect("a part");
                figures.entry((row, part, kind.name.to_owned())).or_default().push(value);
            };
            // A server of its own for the memory, since what once was in use is kept by most.
            if service == "hello" {
                match Running::start(&command).and_then(|server| server.idle(IDLE)) {
                    Ok(bytes) => keep(ROWS.len(), "idle", bytes / 1024.0),
                    Err(problem) => problems.push(format!("idle, {}: {problem}", kind.name)),
                }
            }
            let server = match Running::start(&command) {
                Ok(server) => server,
                Err(problem) => {
                    problems.push(format!("{service}, {}: {problem}", kind.name));
                    continue;
                }
            };
            for (at, row) in rows {
                match ask(&server, row, options) {
                    Ok((said, cpu)) => {
                        keep(at, "rate", said.rate);
                        keep(at, "cpu", cpu);
                        keep(at, "p50", said.p50);
                        keep(at, "p99", said.p99);
                    }
                    Err(problem) => problems.push(format!("{}, {}: {problem}", row.name, kind.name)),
                }
            }
        }
    }
    let _ = fs::remove_dir_all(folder);
}

/// Asks a server as a row says. Returns what the driver said, and the server's CPU time for a request in microseconds.
fn ask(server: &Running, row: &Row, options: &Options) -> Result<(Said, f64), String> {
    let warm = row.asked.run(server.port, options.driver_core, 1, None)?;
    let before = server.cpu()?;
    let said = row.asked.run(server.port, options.driver_core, options.seconds, Some(&warm))?;
    if said.requests < 1.0 {
        return Err("no request was answered in time".to_owned());
    }
    let cpu = (server.cpu()? - before).as_secs_f64() * 1e6 / said.requests;
    Ok((said, cpu))
}

/// A folder with the files that are asked for.
fn folder() -> String {
    let folder = env::temp_dir().join(format!("greenling-servers-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    fs::write(folder.join("1k"), vec![b'1'; 1024]).expect("a file in it");
    fs::write(folder.join("64k"), vec![b'6'; 64 * 1024]).expect("a file in it");
    folder.to_str().expect("a plain name").to_owned()
}

/// The load average of a minute.
fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}
