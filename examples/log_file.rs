//! You will see that every line of a log file is whole, although green threads of two hubs and an OS thread write to it
//! at once, through a global logger: a `static` with a file behind a lock. A write waits for the disk, so a thread
//! holds the lock over a wait: with `std::sync::Mutex` this program would hang.
#![forbid(unsafe_code)]

use std::io::{BufWriter, Write};
use std::time::Duration;

use greenling::fs::{self, File};
use greenling::hub::sync::{Mutex, OnceLock};
use greenling::{shield, thread};
use log::{Log, Metadata, Record, info, warn};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "log_file";

const HELP: &str = "\
Writes a log from green threads of two hubs and from an OS thread without one.

usage: log_file [FILE]

  FILE  the log; by default log_file.log in the folder for temporary files
";

struct FileLog(OnceLock<Mutex<BufWriter<File>>>);
static LOG: FileLog = FileLog(OnceLock::new());

impl Log for FileLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {} end\n", record.level(), record.args());
        // A thread that unwinds cannot wait: `lock` in a destructor would panic, and `lock_timeout` gives up.
        if let Some(Ok(mut file)) = self.0.get().map(|file| file.lock_timeout(Duration::from_secs(60))) {
            // Once the buffer is full, the write waits for the disk; other threads, of any hub, wait for the lock. The
            // shield puts off a kill, so that no line is written by halves, or twice.
            let _ = shield(|| file.write_all(line.as_bytes()));
        }
    }

    fn flush(&self) {
        let _ = self.0.get().map(|file| shield(|| file.lock().unwrap().flush()));
    }
}

/// Writes a hundred lines from each of four green threads of the calling OS thread's hub.
fn hub(name: &str) {
    thread::scope(|s| (0..4).for_each(|n| drop(s.spawn(move || (0..100).for_each(|i| info!("{name} {n}: line {i}"))))));
}

fn main() {
    // One argument at most: the file.
    let mut args = std::env::args_os().skip(1);
    let path = match (args.next(), args.next()) {
        (None, _) => std::env::temp_dir().join("log_file.log"),
        (Some(arg), None) if arg == "--help" || arg == "-h" => cli::help(NAME, HELP),
        (Some(file), None) if !file.to_string_lossy().starts_with('-') => file.into(),
        (Some(option), None) => cli::misused(NAME, format_args!("invalid option '{}'", option.to_string_lossy())),
        _ => cli::misused(NAME, "it takes one FILE"),
    };
    cli::make_hub(NAME);
    let failed = |error: std::io::Error| -> ! { cli::fail(1, NAME, format_args!("{}: {error}", path.display())) };
    // The global logger, before any thread logs.
    LOG.0.get_or_init(|| Mutex::new(BufWriter::new(File::create(&path).unwrap_or_else(|error| failed(error)))));
    log::set_logger(&LOG).map(|()| log::set_max_level(log::LevelFilter::Info)).expect("it is the only one");

    // Two hubs and an OS thread without one, all at the same time.
    let other = std::thread::spawn(|| (cli::make_hub(NAME), hub("another hub")).1);
    let plain = std::thread::spawn(|| (0..100).for_each(|i| warn!("an OS thread: line {i}")));
    hub("main's hub");
    other.join().and(plain.join()).expect("they do not panic");
    log::logger().flush();

    let text = fs::read_to_string(&path).unwrap_or_else(|error| failed(error));
    let whole = text.lines().filter(|line| line.contains(": line ") && line.ends_with(" end")).count();
    cli::say(NAME, format_args!("{whole} of {} lines are whole", text.lines().count()));
}

// Output: 900 of 900 lines are whole
// Read next: src/hub/sync/mod.rs, then src/pure/turns.rs, the queue in which the threads wait.
