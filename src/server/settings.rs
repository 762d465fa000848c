//! What the builder of a server was told.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

/// A function of the program that the server calls to report something.
pub(super) type Callback<T> = Box<dyn Fn(&T)>;

/// What the builder was told, as far as it is data: each hub of a server gets a copy.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Number of connections to accept before other threads have their turn.
    pub(super) accept_budget: u32,
    /// Stack size of a handler in bytes; `None` means the hub's default.
    pub(super) stack_size: Option<usize>,
    /// How long a client may take for its first byte.
    pub(super) first_byte: Option<Duration>,
    /// How long one read or write may wait.
    pub(super) idle: Option<Duration>,
    /// How long a connection may last.
    pub(super) total: Option<Duration>,
    /// How long a drain lets connections go on.
    pub(super) grace: Duration,
    /// Whether a drain closes connections that wait for their next request.
    pub(super) close_idle: bool,
    /// Whether clients are refused, instead of left waiting, when descriptors or stacks run out.
    pub(super) refuse: bool,
}

/// The functions of the program that report something.
#[derive(Default)]
pub(super) struct Callbacks {
    /// Called with the reason each time accepting is put off.
    pub(super) on_accept_error: Option<Callback<io::Error>>,
    /// Called with the number of remaining connections when a drain begins.
    pub(super) on_drain: Option<Callback<usize>>,
}

impl Settings {
    /// Checks that no time limit is zero, which would be no limit at all for some of them and no time for others.
    ///
    /// # Errors
    /// `InvalidInput` if a time limit is zero.
    pub(super) fn check(&self) -> io::Result<()> {
        if [self.first_byte, self.idle, self.total].contains(&Some(Duration::ZERO)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a server's time limit of zero"));
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            // Enough for a burst of clients, few enough that handlers run in between.
            accept_budget: 64,
            stack_size: None,
            first_byte: None,
            idle: None,
            total: None,
            grace: Duration::from_secs(5),
            close_idle: true,
            refuse: false,
        }
    }
}
