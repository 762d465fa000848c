//! What is printed: `fmt` and `EnvFilter` as they are, and the names of green threads.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenling::thread::{Builder, own_thread_locals_supported, try_current};
use greenling::{sleep, yield_now};
use greenling_tracing::{GreenSpans, WithThreadNames};
use log::Log;
use support::child;
use tracing::{Subscriber, debug, info, info_span, instrument, span};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::Context;
use tracing_subscriber::{EnvFilter, Layer, fmt, prelude::*, registry};

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

impl Lines {
    /// Returns what makes a writer for each line.
    fn writer(&self) -> impl Fn() -> Lines + Send + Sync + 'static + use<> {
        let lines = self.clone();
        move || lines.clone()
    }

    fn all(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(String::from).collect()
    }
}

#[instrument]
fn inner() {
    sleep(Duration::from_millis(1));
    info!("deep");
}

#[instrument]
fn request(id: u32, wait: u64) {
    info!("begins");
    sleep(Duration::from_millis(wait));
    inner();
    info!("ends");
}

#[test]
fn lines_have_the_names_of_green_threads_and_their_own_spans() {
    child("lines_have_the_names_of_green_threads_and_their_own_spans", || {
        let lines = Lines::default();
        let format = WithThreadNames(fmt::format().without_time().with_target(false).with_ansi(false));
        let layer = fmt::layer().with_writer(lines.writer()).with_ansi(false).event_format(format);
        registry().with(GreenSpans::new()).with(layer).init();
        std::thread::Builder::new().name("plain".into()).spawn(|| info!("no hub")).unwrap().join().unwrap();
        let worker = |id: u32, wait| {
            let builder = Builder::new().name(format!("worker-{id}"));
            if id == 2 && own_thread_locals_supported().is_ok() {
                builder.own_thread_locals().spawn(move || request(id, wait)).unwrap()
            } else {
                builder.spawn(move || request(id, wait)).unwrap()
            }
        };
        for worker in [worker(1, 30), worker(2, 10), worker(3, 20)] {
            worker.join().unwrap();
        }
        greenling::spawn(|| info!("no name")).join().unwrap();
        let mut all = lines.all();
        assert_eq!(all.remove(0), "plain:  INFO no hub");
        let last = all.pop().unwrap();
        assert!(last.starts_with("ThreadId(") && last.ends_with("):  INFO no name"), "{last}");
        for (id, wait) in [(1, 30), (2, 10), (3, 20)] {
            let begin = format!("worker-{id}: ");
            let own: Vec<_> = all.iter().filter_map(|line| line.strip_prefix(&begin)).map(str::trim).collect();
            let span = format!("INFO request{{id={id} wait={wait}}}:");
            let expected =
                ["{span} begins", "{span}inner: deep", "{span} ends"].map(|line| line.replace("{span}", &span));
            assert_eq!(own, expected, "{all:#?}");
        }
        assert_eq!(all.len(), 9);
    });
}

#[test]
fn filters_for_what_is_inside_a_span_follow_the_thread() {
    child("filters_for_what_is_inside_a_span_follow_the_thread", || {
        let lines = Lines::default();
        let layer = fmt::layer().with_writer(lines.writer()).with_ansi(false).without_time().with_target(false);
        // Not a global filter: one of this layer.
        let filtered = layer.with_filter(EnvFilter::new("info,[request{id=3}]=debug"));
        registry().with(GreenSpans::new()).with(filtered).init();
        let threads = (0..6).map(|id| {
            greenling::spawn(move || {
                let _in_it = info_span!("request", id).entered();
                (0..id % 4).for_each(|_| yield_now());
                debug!("looks closer");
                yield_now();
                info!("done");
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        debug!("not this");
        let mut all = lines.all();
        all.sort();
        let mut expected: Vec<_> = (0..6).map(|id| format!(" INFO request{{id={id}}}: done")).collect();
        expected.push("DEBUG request{id=3}: looks closer".into());
        expected.sort();
        assert_eq!(all, expected);
    });
}

#[test]
fn a_global_filter_follows_the_thread_too() {
    child("a_global_filter_follows_the_thread_too", || {
        let lines = Lines::default();
        let layer = fmt::layer().with_writer(lines.writer()).with_ansi(false).without_time().with_target(false);
        registry().with(layer).with(EnvFilter::new("warn,[request]=debug")).with(GreenSpans::new()).init();
        let inside = greenling::spawn(|| info_span!("request").in_scope(|| (yield_now(), yield_now(), debug!("in")).1));
        let outside = greenling::spawn(|| (debug!("out"), yield_now(), debug!("out")).1);
        inside.join().unwrap();
        outside.join().unwrap();
        assert_eq!(lines.all(), ["DEBUG request: in"]);
    });
}

/// A layer that panics the first time that a span is left.
struct PanicsOnce(AtomicBool);

impl<S: Subscriber> Layer<S> for PanicsOnce {
    fn on_exit(&self, _: &span::Id, _: Context<'_, S>) {
        assert!(self.0.swap(true, Ordering::Relaxed), "on purpose");
    }
}

#[test]
fn a_layer_that_panics_in_a_switch_does_not_mix_up_spans() {
    let printed = child("a_layer_that_panics_in_a_switch_does_not_mix_up_spans", || {
        let lines = Lines::default();
        let layer = fmt::layer().with_writer(lines.writer()).with_ansi(false).without_time().with_target(false);
        registry().with(GreenSpans::new()).with(layer).with(PanicsOnce(AtomicBool::new(false))).init();
        let threads = (0..3).map(|id| {
            greenling::spawn(move || {
                info_span!("request", id).in_scope(|| (0..3).for_each(|_| (yield_now(), info!("{id}")).1));
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        let mut all = lines.all();
        all.sort();
        let expected: Vec<_> = (0..9).map(|line| format!(" INFO request{{id={0}}}: {0}", line / 3)).collect();
        assert_eq!(all, expected);
    });
    assert!(printed.is_none_or(|printed| printed.matches("on purpose").count() == 1));
}

#[test]
fn a_span_is_idle_while_its_thread_waits() {
    child("a_span_is_idle_while_its_thread_waits", || {
        let lines = Lines::default();
        let layer = fmt::layer().with_writer(lines.writer()).with_span_events(FmtSpan::CLOSE).with_ansi(false);
        registry().with(GreenSpans::new()).with(layer).init();
        greenling::spawn(|| info_span!("request").in_scope(|| sleep(Duration::from_millis(1500)))).join().unwrap();
        let all = lines.all();
        assert_eq!(all.len(), 1, "{all:?}");
        // It was not busy while it slept.
        let idle = all[0].split_once("time.idle=").unwrap().1.split(' ').next().unwrap();
        let seconds = idle.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 1.4), "{all:?}");
    });
}

#[test]
fn lines_of_log_have_the_names_of_green_threads() {
    let lines = Lines::default();
    let format = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let thread = try_current();
        let name = thread.as_ref().and_then(|thread| thread.name()).unwrap_or("?");
        writeln!(out, "{name}: {} {}", record.level(), record.args())
    };
    let target = env_logger::Target::Pipe(Box::new(lines.clone()));
    let logger = env_logger::Builder::new().filter_level(log::LevelFilter::Info).format(format).target(target).build();
    let logger = std::rc::Rc::new(logger);
    let threads = (0..100).map(|number| {
        let logger = std::rc::Rc::clone(&logger);
        let say = move |what: &str| {
            logger.log(&log::Record::builder().level(log::Level::Info).args(format_args!("{what} {number}")).build());
        };
        let builder = Builder::new().name(format!("worker-{number}"));
        builder.spawn(move || (say("begins"), yield_now(), say("ends")).1).unwrap()
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    let all = lines.all();
    assert_eq!(all.len(), 200);
    for number in 0..100 {
        for what in ["begins", "ends"] {
            assert!(all.contains(&format!("worker-{number}: INFO {what} {number}")), "{all:#?}");
        }
    }
}
