//! A program of std's compiles after its `use` lines were changed: items, variance, sizes, conversions of errors.
#![forbid(unsafe_code)]

mod common;

use std::error::Error;
use std::fs::read_to_string;
use std::io;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::path::Path;

use greenling::sync::atomic::{AtomicU32, Ordering};
use greenling::sync::{Arc, LazyLock, Mutex, RwLock, RwLockReadGuard, Weak};
use greenling::thread::{self, Builder, JoinError, JoinHandle, ThreadId};
use greenling::time::{Duration, SystemTime, UNIX_EPOCH};
use greenling::{hub, spawn};

#[test]
#[allow(clippy::arc_with_non_send_sync, reason = "as a program of std's has it")]
fn what_programs_take_from_std_is_std_s() {
    let shared: Arc<Mutex<u32>> = Arc::new(Mutex::new(1));
    let weak: Weak<_> = Arc::downgrade(&shared);
    assert_eq!(*weak.upgrade().unwrap().lock().unwrap(), 1);
    let count = AtomicU32::new(1);
    count.fetch_add(1, Ordering::Relaxed);
    assert_eq!(count.into_inner(), 2);
    assert!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap() > Duration::ZERO);
    assert!(thread::available_parallelism().unwrap().get() > 0);
    assert!(!thread::panicking());
    assert!(Duration::try_from_secs_f64(-1.0).is_err_and(|_: greenling::time::TryFromFloatSecsError| true));
}

// ---- variance -------------------------------------------------------------------------------------------------------

/// Each function compiles only if the type is covariant where its argument and result differ, as std's are.
mod covariant {
    use greenling::{io, net, os::unix, sync, thread};

    pub(crate) fn read_guard<'g, 'l: 's, 's>(
        it: sync::RwLockReadGuard<'g, &'l i32>,
    ) -> sync::RwLockReadGuard<'g, &'s i32> {
        it
    }
    pub(crate) fn read<'l: 's, 's>(it: sync::RwLockReadGuard<'l, i32>) -> sync::RwLockReadGuard<'s, i32> {
        it
    }
    pub(crate) fn write<'l: 's, 's>(it: sync::RwLockWriteGuard<'l, i32>) -> sync::RwLockWriteGuard<'s, i32> {
        it
    }
    pub(crate) fn lock<'l: 's, 's>(it: sync::MutexGuard<'l, i32>) -> sync::MutexGuard<'s, i32> {
        it
    }
    pub(crate) fn iter<'l: 's, 's>(it: sync::mpsc::Iter<'l, i32>) -> sync::mpsc::Iter<'s, i32> {
        it
    }
    pub(crate) fn try_iter<'l: 's, 's>(it: sync::mpsc::TryIter<'l, i32>) -> sync::mpsc::TryIter<'s, i32> {
        it
    }
    pub(crate) fn stdin<'l: 's, 's>(it: io::StdinLock<'l>) -> io::StdinLock<'s> {
        it
    }
    pub(crate) fn stdout<'l: 's, 's>(it: io::StdoutLock<'l>) -> io::StdoutLock<'s> {
        it
    }
    pub(crate) fn stderr<'l: 's, 's>(it: io::StderrLock<'l>) -> io::StderrLock<'s> {
        it
    }
    pub(crate) fn incoming<'l: 's, 's>(it: net::Incoming<'l>) -> net::Incoming<'s> {
        it
    }
    pub(crate) fn unix_incoming<'l: 's, 's>(it: unix::net::Incoming<'l>) -> unix::net::Incoming<'s> {
        it
    }
    pub(crate) fn scoped<'l: 's, 's>(it: thread::ScopedJoinHandle<'l, i32>) -> thread::ScopedJoinHandle<'s, i32> {
        it
    }
}

#[test]
fn guards_and_iterators_may_be_taken_for_shorter_lived_ones() {
    // std's own test of this, `test_read_guard_covariance`.
    fn do_stuff<'a>(_: RwLockReadGuard<'_, &'a i32>, _: &'a i32) {}
    let j = 5;
    let lock = RwLock::new(&j);
    {
        let i = 6;
        do_stuff(lock.read().unwrap(), &i);
    }
    assert_eq!(**covariant::read_guard(lock.read().unwrap()), 5);
    let number = RwLock::new(1);
    *covariant::write(number.write().unwrap()) += 1;
    assert_eq!(*covariant::read(number.read().unwrap()), 2);
    let mutex = Mutex::new(3);
    assert_eq!(*covariant::lock(mutex.lock().unwrap()), 3);
    let (sender, receiver) = greenling::sync::mpsc::channel();
    sender.send(5).unwrap();
    assert_eq!(covariant::try_iter(receiver.try_iter()).next(), Some(5));
    sender.send(6).unwrap();
    assert_eq!(covariant::iter(receiver.iter()).next(), Some(6));
    let _ = (covariant::stdin, covariant::stdout, covariant::stderr);
    let _ = (covariant::incoming, covariant::unix_incoming);
    thread::scope(|s| assert_eq!(covariant::scoped(s.spawn(|| 7)).join().unwrap(), 7));
}

/// Compiles only if the type is unwind-safe in both ways, as std's.
fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}

#[test]
fn what_is_unwind_safe_in_std_is_so_here() {
    use greenling::{fs, io, net, os::unix, process};
    unwind_safe::<(net::TcpStream, net::TcpListener, net::UdpSocket)>();
    unwind_safe::<(unix::net::UnixStream, unix::net::UnixListener, unix::net::UnixDatagram)>();
    unwind_safe::<(fs::File, fs::OpenOptions, fs::DirBuilder, fs::ReadDir, fs::DirEntry)>();
    unwind_safe::<(io::Stdin, io::Stdout, io::Stderr, io::PipeReader, io::PipeWriter, process::Child)>();
    unwind_safe::<(thread::Thread, ThreadId, Builder)>();
    unwind_safe::<(Mutex<u32>, RwLock<u32>, LazyLock<u32>)>();
    fn by_reference<T: RefUnwindSafe>() {}
    by_reference::<thread::Scope<'_, '_>>();
}

// ---- threads --------------------------------------------------------------------------------------------------------

#[test]
fn an_optional_thread_id_is_no_larger_than_one() {
    assert_eq!(size_of::<Option<ThreadId>>(), size_of::<ThreadId>());
    assert_eq!(thread::current().id(), thread::current().id());
    let other = spawn(|| thread::current().id());
    let id = other.thread().id();
    assert_eq!(other.join().unwrap(), id);
}

/// Runs `spawn` with a builder whose name has a zero byte in it, and returns the words of its panic.
fn refused(spawn: impl FnOnce(Builder)) -> String {
    let live = hub::live_threads();
    let panic = catch_unwind(AssertUnwindSafe(|| spawn(Builder::new().name("zero\0byte".into())))).unwrap_err();
    assert_eq!(hub::live_threads(), live, "nothing was spawned");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn a_zero_byte_in_a_name_panics_at_the_spawn_and_starts_nothing() {
    let _guard = common::guard();
    let mut builder = Some(Builder::new().name("a\0b".into()));
    assert!(builder.take().is_some(), "a name alone is not looked at");
    let by_std = catch_unwind(|| std::thread::Builder::new().name("zero\0byte".into()).spawn(|| ())).unwrap_err();
    let words = "thread name may not contain interior null bytes";
    assert!(by_std.downcast_ref::<String>().is_some_and(|text| text.starts_with(words)));
    let spawned = refused(|builder| drop(builder.spawn(|| unreachable!("its name is refused"))));
    assert!(spawned.starts_with(words), "{spawned}");
    let scoped = refused(|builder| {
        thread::scope(|s| drop(builder.spawn_scoped(s, || unreachable!("its name is refused"))));
    });
    assert!(scoped.starts_with(words), "{scoped}");
    let tried = refused(|builder| {
        let _ = thread::try_scope(|s| {
            s.spawn_with(builder, || -> io::Result<()> { unreachable!("its name is refused") }).map(drop)
        });
    });
    assert!(tried.starts_with(words), "{tried}");
}

#[test]
fn the_end_of_a_thread_is_an_error_of_each_kind_that_a_main_returns() {
    let _guard = common::guard();
    /// As std's programs have it.
    fn any(handle: JoinHandle<u32>) -> thread::Result<u32> {
        Ok(handle.join()?)
    }
    fn io(handle: JoinHandle<u32>) -> io::Result<u32> {
        Ok(handle.join()?)
    }
    fn boxed(handle: JoinHandle<u32>) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(handle.join()?)
    }
    let panics = || spawn(|| -> u32 { std::panic::resume_unwind(Box::new("a payload")) });
    let killed = || {
        let handle = spawn(|| 0);
        assert!(handle.kill());
        handle
    };
    assert_eq!(any(spawn(|| 1)).unwrap(), 1);
    assert_eq!(any(panics()).unwrap_err().downcast_ref::<&str>(), Some(&"a payload"), "the payload itself, as std's");
    assert!(any(killed()).unwrap_err().downcast_ref::<JoinError>().is_some_and(JoinError::is_killed));
    let error = io(panics()).unwrap_err();
    assert_eq!(error.to_string(), "the green thread panicked: a payload");
    assert!(error.get_ref().is_some_and(|inner| inner.downcast_ref::<JoinError>().is_some_and(JoinError::is_panic)));
    assert_eq!(io(killed()).unwrap_err().kind(), io::ErrorKind::Other);
    assert!(boxed(killed()).unwrap_err().downcast_ref::<JoinError>().is_some());
}

// ---- errors ---------------------------------------------------------------------------------------------------------

/// Compiles only if `?` takes the error in a main that returns `io::Result` or a boxed error.
fn for_any_main<E: Into<io::Error> + Error + Send + Sync + 'static>() {
    let _: fn(E) -> Box<dyn Error + Send + Sync> = Box::<dyn Error + Send + Sync>::from;
}

#[test]
fn every_error_converts_into_what_a_main_returns() {
    use greenling::channel::{BroadcastError, SendTimeoutError};
    use greenling::group::PoolFull;
    use greenling::offload::RunError;
    use greenling::sync::ReleaseError;
    for_any_main::<JoinError>();
    for_any_main::<BroadcastError>();
    for_any_main::<SendTimeoutError<u32>>();
    for_any_main::<PoolFull<u32>>();
    for_any_main::<RunError>();
    for_any_main::<ReleaseError>();
    for_any_main::<greenling::fs::TryLockError>();
    for_any_main::<thread::AccessError>();
    for_any_main::<greenling::TimeoutError>();
    for_any_main::<greenling::ParentError>();
    for_any_main::<greenling::SwitchError<u32>>();
    for_any_main::<greenling::sim::Failure>();
    for_any_main::<greenling::sim::ParseScheduleError>();
    #[cfg(feature = "monkey")]
    for_any_main::<greenling::monkey::PatchError>();
    let kind = |error: io::Error| error.kind();
    assert_eq!(kind(BroadcastError::Empty.into()), io::ErrorKind::WouldBlock);
    assert_eq!(kind(BroadcastError::Disconnected.into()), io::ErrorKind::BrokenPipe);
    assert_eq!(kind(BroadcastError::Lagged(1).into()), io::ErrorKind::Other);
    // What is inside need not be an error, nor `Send`.
    let rc = std::rc::Rc::new(());
    assert_eq!(kind(SendTimeoutError::Timeout(rc.clone()).into()), io::ErrorKind::TimedOut);
    assert_eq!(kind(SendTimeoutError::Disconnected(rc.clone()).into()), io::ErrorKind::BrokenPipe);
    assert_eq!(kind(PoolFull(rc).into()), io::ErrorKind::WouldBlock);
    assert_eq!(kind(greenling::ParentError::Cycle.into()), io::ErrorKind::InvalidInput);
}

/// The errors that a file defines and makes public.
fn public_errors(text: &str) -> impl Iterator<Item = &str> {
    let implements =
        text.lines().filter(|line| line.starts_with("impl")).filter_map(|line| line.split_once("Error for "));
    let names = implements
        .filter(|(before, _)| before.ends_with(' ') || before.ends_with(" std::error::"))
        .filter_map(|(_, of)| of.split(['<', ' ']).next());
    names.filter(move |name| ["struct", "enum"].iter().any(|kind| text.contains(&format!("pub {kind} {name}"))))
}

#[test]
fn no_error_type_is_forgotten() {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            let text = read_to_string(&path).unwrap();
            for name in public_errors(&text) {
                let converts = text.lines().any(|line| {
                    line.contains(&format!("From<{name}")) && line.contains(" for ") && line.contains("io::Error {")
                });
                assert!(converts, "{}: {name} does not convert into io::Error", path.display());
                found.push(name.to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() >= 12, "{found:?}");
}

// ---- lazy values ----------------------------------------------------------------------------------------------------

#[test]
fn a_lazy_value_can_be_looked_at_and_changed() {
    let mut lazy = LazyLock::new(|| String::from("a"));
    assert_eq!(LazyLock::get(&lazy), None);
    assert_eq!(LazyLock::get_mut(&mut lazy), None);
    LazyLock::force_mut(&mut lazy).push('b');
    assert_eq!(LazyLock::get(&lazy).map(String::as_str), Some("ab"));
    LazyLock::get_mut(&mut lazy).unwrap().push('c');
    lazy.push('d');
    assert_eq!(*lazy, "abcd");
    let ready: LazyLock<u32> = LazyLock::from(7);
    assert_eq!((LazyLock::get(&ready), *ready), (Some(&7), 7));
}

#[test]
fn a_lazy_value_whose_closure_panicked_is_gone_for_every_way_of_asking() {
    let mut lazy: LazyLock<u32> = LazyLock::new(|| panic!("no value"));
    let ask: [fn(&mut LazyLock<u32>) -> u32; 3] = [
        |lazy| *LazyLock::force(lazy),
        |lazy| *LazyLock::force_mut(lazy),
        |lazy| {
            **lazy += 1;
            **lazy
        },
    ];
    for way in ask {
        assert!(catch_unwind(AssertUnwindSafe(|| way(&mut lazy))).is_err());
        assert_eq!(LazyLock::get(&lazy), None);
        assert_eq!(LazyLock::get_mut(&mut lazy), None);
    }
}

// ---- what the documents say -----------------------------------------------------------------------------------------

#[test]
#[cfg(target_arch = "x86_64")]
fn the_documents_give_the_default_stack_size() {
    let size = std::thread::spawn(hub::default_stack_size).join().unwrap();
    let (thousands, rest) = (size / 1000, size % 1000);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["README.md", "README.zh-CN.md", "src/hub.rs", "src/thread/mod.rs", "src/thread/spawn.rs"] {
        let text = read_to_string(root.join(file)).unwrap();
        assert!(text.contains(&format!("{thousands},{rest:03}")), "{file} does not say {thousands},{rest:03}");
    }
}

/// That a handle may be dropped without a word, as std's.
#[test]
fn a_thread_that_is_not_joined_is_not_warned_of() {
    #![deny(unused_must_use)]
    spawn(|| ());
    thread::scope(|s| {
        s.spawn(|| ());
    });
}
