//! The programs of which there are pictures.

mod drain;
mod hub;
mod kill;
mod park;
mod reactor;
mod select;
mod timers;

/// A program, and what its page says of it.
pub(crate) struct Program {
    /// The name of the page.
    pub(crate) name: &'static str,
    /// The title of the page.
    pub(crate) title: &'static str,
    /// What to look for.
    pub(crate) intro: &'static str,
    /// The file of the chapter in `docs/book`.
    pub(crate) chapter: &'static str,
    /// The text of the program.
    pub(crate) source: &'static str,
    /// Whether the program runs on the kernel's clock and sockets, and not in a simulation.
    pub(crate) in_life: bool,
    /// Runs the program.
    pub(crate) run: fn(),
}

/// All programs, in the order of their chapters.
pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "hub",
        title: "Turns: the run queue",
        intro: "Three threads yield, one is spawned by another, and one switches to a greenlet by name. A thread \
                that can run stands in the queue; the first of the queue has the next turn; and a switch by name \
                goes past it.",
        chapter: "05-the-hub.md",
        source: include_str!("hub.rs"),
        in_life: false,
        run: hub::run,
    },
    Program {
        name: "park",
        title: "Park: a wake-up that is lost, and its cure",
        intro: "The careless thread looks, and leaves its handle later: the wake-up between the two finds nothing \
                to wake. The careful one leaves its handle first. What comes then is kept as a permit, or wakes \
                it.",
        chapter: "06-park-and-unpark.md",
        source: include_str!("park.rs"),
        in_life: false,
        run: park::run,
    },
    Program {
        name: "reactor",
        title: "The reactor: an echo server with two clients",
        intro: "Real sockets, and the kernel's epoll. A descriptor enters the epoll set when a call on it has to \
                wait for the first time, and leaves it when it is closed. Between the two the kernel reports, and \
                a wait costs no system call of its own.",
        chapter: "07-the-reactor.md",
        source: include_str!("reactor.rs"),
        in_life: true,
        run: reactor::run,
    },
    Program {
        name: "timers",
        title: "Timers: the wheel",
        intro: "Sleeps of 0.2 ms to 6 s lie on several levels of the wheel. When the wheel comes to a slot of a \
                higher level, the slot cascades: watch the entry of the longer sleep. The limit of the patient \
                thread never fires, and its entry stays behind until it is the first.",
        chapter: "08-the-timer-wheel.md",
        source: include_str!("timers.rs"),
        in_life: false,
        run: timers::run,
    },
    Program {
        name: "kill",
        title: "Kill: how threads are unwound",
        intro: "A kill is an unwinding that begins where the thread waits: destructors run, the inner one first. A \
                thread that has had no turn ends without one line of its code, and drops what it was given. A \
                parent in a scope takes its child along.",
        chapter: "12-kill-timeouts-and-the-end.md",
        source: include_str!("kill.rs"),
        in_life: false,
        run: kill::run,
    },
    Program {
        name: "drain",
        title: "Drain: the orderly end of a server",
        intro: "An idle client is closed at once, a busy one gets its answer first, and one that comes too late is \
                refused. The report accounts for all of them.",
        chapter: "12-kill-timeouts-and-the-end.md",
        source: include_str!("drain.rs"),
        in_life: false,
        run: drain::run,
    },
    Program {
        name: "select",
        title: "Select: one of several things",
        intro: "One thread waits for two channels and for the time. The first event decides; what did not win is \
                taken back, and neither takes a value nor fires.",
        chapter: "13-waiting-for-several-things.md",
        source: include_str!("select.rs"),
        in_life: false,
        run: select::run,
    },
];

/// Returns the program with this name.
pub(crate) fn find(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name)
}
