//! The green thread that says on a terminal how far the run is.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::sync::Event;
use greenling::thread;

use crate::report;
use crate::run::Run;

/// The thread, while it runs.
pub(crate) struct Progress {
    /// Tells the thread to end.
    stop: Rc<Event>,
    /// The thread, if progress is to be shown.
    speaker: Option<thread::JoinHandle<()>>,
}

impl Progress {
    /// Starts the thread, if there is a terminal, or `--progress`.
    pub(crate) fn start(run: &Rc<Run>) -> Progress {
        let stop = Rc::new(Event::new());
        let terminal = io::stderr().is_terminal();
        let speaker = (terminal || run.options.progress).then(|| {
            let (run, stop) = (Rc::clone(run), Rc::clone(&stop));
            thread::spawn(move || speak(&run, &stop, terminal))
        });
        Progress { stop, speaker }
    }

    /// Ends the thread, and clears the line.
    pub(crate) fn stop(self) {
        self.stop.set();
        if let Some(speaker) = self.speaker {
            speaker.join().expect("it only speaks");
        }
    }
}

/// Writes one line that changes on a terminal, one line after the other elsewhere.
fn speak(run: &Run, stop: &Event, terminal: bool) {
    let pause = Duration::from_millis(if terminal { 250 } else { 1000 });
    let (mut answers, mut at) = (0, Instant::now());
    while !stop.wait_timeout(pause) {
        let rate = (run.answers.get() - answers) as f64 / at.elapsed().as_secs_f64();
        (answers, at) = (run.answers.get(), Instant::now());
        let line = report::progress(run, rate);
        let (begin, end) = if terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        // The output may have no reader.
        let _ = write!(io::stderr(), "{begin}{line}{end}");
    }
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}
