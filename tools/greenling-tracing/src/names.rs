//! Lines with the names of green threads.

use std::fmt;

use greenling::thread;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A format of events that begins each line with the name of the green thread, as another format prints the rest.
///
/// Of a green thread without a name the line has the identity, `ThreadId(1.17)`; of an OS thread without green threads the name that
/// `std` has.
///
/// ```
/// use greenling_tracing::WithThreadNames;
/// use tracing_subscriber::fmt::format;
///
/// // worker-3: INFO request{id=7}: done
/// let lines = tracing_subscriber::fmt::layer().event_format(WithThreadNames(format().without_time().with_target(false)));
/// # use tracing_subscriber::prelude::*;
/// # tracing_subscriber::registry().with(lines);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WithThreadNames<F>(
    /// The other format. Not JSON, of which a line is an object.
    pub F,
);

impl<S, N, F> FormatEvent<S, N> for WithThreadNames<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match thread::try_current() {
            Some(green) => match green.name() {
                Some(name) => write!(writer, "{name}: ")?,
                None => write!(writer, "{:?}: ", green.id())?,
            },
            None => write!(writer, "{}: ", std::thread::current().name().unwrap_or("?"))?,
        }
        self.0.format_event(context, writer, event)
    }
}
