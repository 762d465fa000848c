//! The examples that do not compile or run as they are, with the reason.

/// How an example fails.
#[derive(Clone, Copy)]
pub enum Fails {
    ToCompile,
    /// It compiles.
    ToRun,
}

/// Examples that fail for the same reason.
pub struct Group {
    pub reason: &'static str,
    pub fails: Fails,
    pub examples: &'static [&'static str],
}

pub const EXCEPT: &[Group] = &[
    Group {
        reason: "a static of a type that is not Sync here: `thread_local!` around it",
        fails: Fails::ToCompile,
        examples: &[
            "sync/lazy_lock.rs: LazyLock 1",
            "sync/once.rs: Once 1",
            "sync/once.rs: call_once 1",
            "sync/once.rs: call_once_force 1",
            "sync/once.rs: is_completed 1",
            "sync/once.rs: is_completed 2",
            "sync/once.rs: is_poisoned 1",
            "sync/once.rs: wait 1",
            "sync/once_lock.rs: OnceLock 1",
            "sync/once_lock.rs: OnceLock 2",
            "sync/once_lock.rs: set 1",
        ],
    },
    Group {
        reason: "deprecated in std, and absent here",
        fails: Fails::ToCompile,
        examples: &[
            "fs.rs: soft_link 1",
            "sync/once.rs: ONCE_INIT 1",
            "sync/poison/condvar.rs: wait_timeout_ms 1",
            "thread/functions.rs: sleep_ms 1",
        ],
    },
    Group {
        reason: "an unsafe function, and absent here: `thread::scope`, `OwnedFd::from_raw_fd(fd).into()`",
        fails: Fails::ToCompile,
        examples: &["os/fd/raw.rs: from_raw_fd 1", "thread/builder.rs: spawn_unchecked 1"],
    },
    Group {
        reason: "`join` returns a JoinError; with `?` it becomes std's",
        fails: Fails::ToCompile,
        examples: &["thread/mod.rs: Result 1"],
    },
    Group {
        reason: "std's thread-locals are shared by the green threads of an OS thread: `green_local!`",
        fails: Fails::ToRun,
        examples: &["thread/local.rs: LocalKey 1"],
    },
];
