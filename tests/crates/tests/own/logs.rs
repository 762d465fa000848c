//! Logs: `tracing` with spans that are entered over waits, and `log` with `env_logger` over a socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::sleep;

use greenling_crates::{MANY, Meeting, PAUSE, Threads, patched_with_locks};
use log::Log;
use tracing_subscriber::layer::SubscriberExt;

/// A buffer for all lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Each thread is in a span while it waits for all others, and in a second one after that. What each says on the way
/// has its own spans.
fn spans(threads: Threads, lines: &Lines) -> Vec<String> {
    lines.0.lock().unwrap().clear();
    let meeting = Arc::new(Meeting::default());
    threads.many(move |number| {
        let span = tracing::info_span!("request", number);
        let _in_it = span.enter();
        tracing::info!("begins {number}");
        meeting.wait();
        tracing::info_span!("inner").in_scope(|| {
            sleep(PAUSE);
            tracing::info!("ends {number}");
        });
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let mut said: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
    said.sort_unstable();
    said
}

#[test]
fn tracing_lines_have_their_own_spans() {
    let _guard = patched_with_locks();
    let lines = Lines::default();
    let writer = {
        let lines = lines.clone();
        move || lines.clone()
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).without_time();
    let subscriber = tracing_subscriber::registry().with(layer.with_target(false));
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let said = spans(Threads::Own, &lines);
    let line = |number| {
        let span = format!("INFO request{{number={number}}}");
        [format!("{span}: begins {number}"), format!("{span}:inner: ends {number}")]
    };
    let mut expected: Vec<_> = (0..MANY).flat_map(line).collect();
    expected.sort_unstable();
    assert_eq!(said, expected);
    assert_eq!(spans(Threads::Os, &lines), expected);
}

/// The reader at the other end begins when all are about to write, or have written; more than a socket holds.
fn logged(threads: Threads) -> Vec<String> {
    let (near, far) = UnixStream::pair().unwrap();
    let pipe = env_logger::Target::Pipe(Box::new(near));
    let logger = env_logger::Builder::new().filter_level(log::LevelFilter::Info).target(pipe).build();
    let (logger, meeting) = (Arc::new(logger), Arc::new(Meeting::default()));
    let reader = {
        let meeting = Arc::clone(&meeting);
        threads.spawn(move || {
            meeting.await_all();
            BufReader::new(far).lines().map(Result::unwrap).collect::<Vec<_>>()
        })
    };
    threads.many(move |number| {
        let text = format!("{number};").repeat(5000);
        meeting.come();
        logger.log(&log::Record::builder().level(log::Level::Info).args(format_args!("{text}")).build());
    });
    let mut lines = reader.join();
    lines.sort_unstable();
    lines
}

#[test]
fn env_logger_writes_whole_lines_to_a_slow_socket() {
    let _guard = patched_with_locks();
    let lines = logged(Threads::Own);
    assert_eq!(lines.len(), MANY);
    assert!(lines.iter().any(|line| line.ends_with(&format!(" {}", "7;".repeat(5000)))), "{:.200}", lines[7]);
    assert_eq!(lines, logged(Threads::Os));
}
