//! A process of its own for each test, since a process has one subscriber; and a layer that notes what it sees.
#![allow(dead_code)] // each test file uses some of it

use std::fmt::{Debug, Write};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenling_tracing::GreenSpans;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, registry};

/// The environment variable that names the test which a child runs.
const ROLE: &str = "GREENLING_TRACING_TEST";

/// How long a child may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `body` in a process of its own, which runs the test `name` only. Returns what the process printed; nothing inside
/// it.
pub(crate) fn child(name: &str, body: impl FnOnce()) -> Option<String> {
    if std::env::var_os(ROLE).is_some_and(|role| role == name) {
        // A test that hangs ends.
        std::thread::spawn(|| {
            std::thread::sleep(LIMIT);
            std::process::abort();
        });
        body();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, name);
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "no test {name}");
    Some(printed)
}

/// Runs `body` with a subscriber that notes what it sees, for [`seen`].
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    child(name, || {
        tracing::subscriber::set_global_default(registry().with(Notes).with(GreenSpans::new())).unwrap();
        body();
    });
}

/// Does the same without the layer that is tested.
pub(crate) fn alone_without_layer(name: &str, body: impl FnOnce()) {
    child(name, || {
        tracing::subscriber::set_global_default(registry().with(Notes)).unwrap();
        body();
    });
}

/// An event, and the values of `name` of the spans that it was in, the outermost first.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) message: String,
    pub(crate) scope: Vec<String>,
    pub(crate) os_thread: ThreadId,
}

/// What the subscriber was told.
#[derive(Debug, Default)]
pub(crate) struct All {
    pub(crate) events: Vec<Seen>,
    pub(crate) made: u64,
    pub(crate) closed: u64,
    pub(crate) entered: u64,
    pub(crate) left: u64,
}

static ALL: Mutex<All> = Mutex::new(All { events: Vec::new(), made: 0, closed: 0, entered: 0, left: 0 });

/// Returns what the subscriber was told.
pub(crate) fn seen() -> MutexGuard<'static, All> {
    ALL.lock().unwrap()
}

struct Notes;

/// The value of one field.
struct Value(&'static str, String);

impl Visit for Value {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == self.0 {
            write!(self.1, "{value:?}").unwrap();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.0 {
            self.1.push_str(value);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut name = Value("name", String::new());
        attributes.record(&mut name);
        context.span(id).unwrap().extensions_mut().insert(name);
        seen().made += 1;
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = Value("message", String::new());
        event.record(&mut message);
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let scope = spans.map(|span| span.extensions().get::<Value>().unwrap().1.clone()).collect();
        seen().events.push(Seen { message: message.1, scope, os_thread: std::thread::current().id() });
    }

    fn on_enter(&self, _: &span::Id, _: Context<'_, S>) {
        seen().entered += 1;
    }

    fn on_exit(&self, _: &span::Id, _: Context<'_, S>) {
        seen().left += 1;
    }

    fn on_close(&self, _: span::Id, _: Context<'_, S>) {
        seen().closed += 1;
    }
}

/// Numbers at random (splitmix64). The seed is printed, and `GREENLING_SEED` repeats a run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        let seed = std::env::var("GREENLING_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
        println!("GREENLING_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn of(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
