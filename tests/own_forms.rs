//! The other ways to start a thread with thread-locals of its own: scopes that fail fast, groups, pools, servers, and
//! hubs of other OS threads. For each of them what a kill, a time limit, the end of the hub or of the OS thread, and a
//! panic do.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenling::group::{Group, OwnPool, Pool};
use greenling::net::{TcpStream, UdpSocket};
use greenling::server::{Server, TcpServer, UdpServer};
use greenling::thread::{self, Builder, OwnBuilder, own_thread_locals_supported, try_scope};
use greenling::{hub, sleep, spawn, timeout, yield_now};

/// Reports, once for each test, that there is nothing to test.
fn unsupported() -> bool {
    own_thread_locals_supported().inspect_err(|error| eprintln!("skipped: {error}")).is_err()
}

fn own() -> OwnBuilder {
    Builder::new().own_thread_locals()
}

fn pool() -> OwnPool {
    Pool::new(2).own_thread_locals().unwrap()
}

/// What the threads of a test have done.
#[derive(Default)]
struct Seen {
    /// Threads that have begun.
    begun: AtomicUsize,
    /// Closures and the like that were dropped, on the threads' stacks or before they had any.
    dropped: AtomicUsize,
    /// Thread-locals that were destroyed.
    destroyed: AtomicUsize,
}

impl Seen {
    /// Returns the counts, in the order of the fields.
    fn counts(&self) -> (usize, usize, usize) {
        let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (get(&self.begun), get(&self.dropped), get(&self.destroyed))
    }

    /// Waits until the counts are these.
    #[track_caller]
    fn wait_for(&self, counts: (usize, usize, usize)) {
        let patience = Instant::now() + Duration::from_secs(20);
        while self.counts() != counts {
            assert!(Instant::now() < patience, "{:?}, not {counts:?}", self.counts());
            sleep(Duration::from_millis(1));
        }
    }
}

/// Counts its drop; waits before, as a thread-local's destructor may.
struct Witness(Arc<Seen>);

impl Drop for Witness {
    fn drop(&mut self) {
        yield_now();
        self.0.destroyed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts its drop.
struct Ticket(Arc<Seen>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
    static WITNESS: RefCell<Option<Witness>> = const { RefCell::new(None) };
}

/// Returns what a thread does first: sees fresh thread-locals, and leaves something in them.
fn begin(seen: &Arc<Seen>) -> impl Fn() + Send + Sync + 'static {
    let ticket = Ticket(Arc::clone(seen));
    move || {
        let seen = &ticket.0;
        assert_eq!(COUNT.replace(1), 0, "fresh thread-locals");
        WITNESS.set(Some(Witness(Arc::clone(seen))));
        seen.begun.fetch_add(1, Ordering::Relaxed);
        yield_now();
        assert_eq!(COUNT.get(), 1, "and its own");
    }
}

/// Returns a closure that waits for ever.
fn waits(seen: &Arc<Seen>) -> impl Fn() -> u32 + Send + Sync + 'static {
    let begin = begin(seen);
    move || {
        begin();
        loop {
            thread::park();
        }
    }
}

/// Returns a closure that panics.
fn panics(seen: &Arc<Seen>) -> impl Fn() -> u32 + Send + Sync + 'static {
    let begin = begin(seen);
    move || {
        begin();
        panic!("as the test wants");
    }
}

/// Starts a server with handlers of this kind, and connects to it.
fn serve(handler: impl Fn() -> u32 + Send + Sync + 'static) -> (Server, TcpStream) {
    let server = TcpServer::bind("127.0.0.1:0").unwrap().grace(Duration::ZERO).start_own(move |_stream, _| {
        handler();
    });
    let server = server.unwrap();
    let client = TcpStream::connect(server.local_addr()).unwrap();
    (server, client)
}

#[test]
fn each_form_gives_its_threads_their_own() {
    if unsupported() {
        return;
    }
    COUNT.set(77);
    let seen = Arc::new(Seen::default());
    let job = |n: u32| {
        let begin = begin(&seen);
        move || {
            begin();
            n
        }
    };
    // A scope that fails fast, with both kinds of threads.
    let sum: Result<u32, String> = try_scope(|scope| {
        let (first, second) = (job(1), job(2));
        let first = scope.spawn_own(own(), move || Ok(first())).unwrap();
        let second = scope.spawn_own(own().name("second".into()), move || Ok(second())).unwrap();
        let light = scope.spawn(|| Ok(COUNT.get()));
        assert_eq!(second.thread().name(), Some("second"));
        Ok(first.join().unwrap() + second.join().unwrap() + light.join().unwrap())
    });
    assert_eq!(sum, Ok(80));
    // A group.
    let group = Group::new();
    group.add(own().spawn(job(3)).unwrap());
    group.spawn(|| COUNT.get());
    assert!(group.join_all().into_iter().map(Result::unwrap).eq([3, 77]));
    // Pools.
    let pool = pool();
    assert_eq!(pool.apply(job(4)), 4);
    assert_eq!(pool.spawn(job(5)).join().unwrap(), 5);
    assert_eq!(pool.try_spawn(job(6)).unwrap().join().unwrap(), 6);
    assert_eq!(pool.spawn_timeout(Duration::from_secs(1), job(7)).unwrap().join().unwrap(), 7);
    let begin = Arc::new(begin(&seen));
    let jobs = || {
        let begin = Arc::clone(&begin);
        move |n: u32| {
            begin();
            n
        }
    };
    assert_eq!(pool.map(8..12, jobs()), [8, 9, 10, 11]);
    assert!(pool.imap(8..12, jobs()).map(Result::unwrap).eq(8..12));
    assert_eq!(pool.imap_unordered(8..12, jobs()).map(Result::unwrap).sum::<u32>(), 38);
    pool.join();
    assert_eq!((pool.free(), pool.len(), pool.capacity(), pool.is_empty()), (2, 0, 2, true));
    // Another hub's, here this one.
    assert_eq!(hub::handle().spawn_own(job(12)).join().unwrap(), 12);
    assert_eq!(hub::handle().spawn(|| COUNT.get()).join().unwrap(), 77);
    let begun = seen.begun.load(Ordering::Relaxed);
    assert_eq!(begun, 20);
    drop((begin, job));
    seen.wait_for((begun, 9, begun));
}

#[test]
fn each_connection_and_each_datagram_has_its_own() {
    if unsupported() {
        return;
    }
    let seen = Arc::new(Seen::default());
    let handler = begin(&seen);
    let server = TcpServer::bind("127.0.0.1:0").unwrap().start_own(move |mut stream: TcpStream, _| {
        handler();
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        stream.write_all(&[byte[0] + 1])
    });
    let server = server.unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&[number as u8]).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(usize::from(byte[0]), number + 1);
    }
    let report = server.drain().unwrap();
    assert_eq!((report.counters.completed, report.counters.accepted), (3, 3));
    seen.wait_for((3, 1, 3));

    let seen = Arc::new(Seen::default());
    let handler = begin(&seen);
    let server = UdpServer::bind("127.0.0.1:0").unwrap().start_own(move |datagram| {
        handler();
        datagram.reply(datagram.bytes())
    });
    let server = server.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        client.send_to(b"echo", server.local_addr()).unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 4);
    }
    assert_eq!(server.drain().unwrap().counters.completed, 3);
    seen.wait_for((3, 1, 3));
}

#[test]
fn a_kill_ends_them_and_their_thread_locals() {
    if unsupported() {
        return;
    }
    let seen = Arc::new(Seen::default());
    let nothing: Result<(), ()> = try_scope(|scope| {
        let body = waits(&seen);
        let thread = scope.spawn_own(own(), move || Ok(body())).unwrap();
        yield_now();
        assert!(thread.kill());
        assert!(thread.join().unwrap_err().is_killed());
        Ok(())
    });
    assert_eq!(nothing, Ok(()));
    let group = Group::new();
    group.add(own().spawn(waits(&seen)).unwrap());
    yield_now();
    assert_eq!(group.kill_all(), 1);
    assert!(group.join_all()[0].as_ref().unwrap_err().is_killed());
    let pool = pool();
    let job = pool.spawn(waits(&seen));
    yield_now();
    assert_eq!(pool.kill_all(), 1);
    assert!(job.join().unwrap_err().is_killed());
    let body = waits(&seen);
    let mut results = pool.imap([1], move |_| body());
    thread::scope(|scope| {
        scope.spawn(|| {
            seen.wait_for((4, 3, 3));
            assert_eq!(pool.kill_all(), 1);
        });
        assert!(results.next().unwrap().unwrap_err().is_killed());
    });
    drop(results);
    assert_eq!(pool.free(), 2);
    let remote = hub::handle().spawn_own(waits(&seen));
    seen.wait_for((5, 4, 4));
    assert!(remote.kill());
    assert!(remote.join().unwrap_err().is_killed());
    let (server, _client) = serve(waits(&seen));
    seen.wait_for((6, 5, 5));
    assert_eq!(server.drain().unwrap().killed, 1);
    seen.wait_for((6, 6, 6));
    // Before they have begun: closures are dropped, and no thread-local was used.
    let (first, second) = (pool.spawn(waits(&seen)), hub::handle().spawn_own(waits(&seen)));
    assert!(first.kill() && second.kill());
    assert!(first.join().unwrap_err().is_killed() && second.join().unwrap_err().is_killed());
    seen.wait_for((6, 8, 6));
}

#[test]
fn a_time_limit_ends_the_wait_for_them_or_them() {
    if unsupported() {
        return;
    }
    const SHORT: Duration = Duration::from_millis(50);
    let seen = Arc::new(Seen::default());
    // The threads of a scope end with it.
    let elapsed = timeout(SHORT, || {
        try_scope(|scope| {
            let body = waits(&seen);
            drop(scope.spawn_own(own(), move || Ok::<_, ()>(body())).unwrap());
            Ok(())
        })
    });
    assert!(elapsed.is_err());
    seen.wait_for((1, 1, 1));
    // Others go on.
    let (group, pool) = (Group::new(), pool());
    group.add(own().spawn(waits(&seen)).unwrap());
    drop(pool.spawn(waits(&seen)));
    let remote = hub::handle().spawn_own(waits(&seen));
    assert!(!group.join_timeout(SHORT) && !pool.join_timeout(SHORT));
    assert!(timeout(SHORT, || pool.join()).is_err());
    drop(pool.spawn(waits(&seen)));
    assert!(pool.spawn_timeout(SHORT, waits(&seen)).is_err());
    seen.wait_for((5, 2, 1));
    assert!(timeout(SHORT, || pool.apply(waits(&seen))).is_err());
    let body = waits(&seen);
    assert!(timeout(SHORT, || pool.map([1], move |_| body())).is_err());
    assert_eq!((group.kill_all(), pool.kill_all(), remote.kill()), (1, 2, true));
    seen.wait_for((5, 8, 5));
    // A server's limit ends the handler.
    let body = waits(&seen);
    let server = TcpServer::bind("127.0.0.1:0").unwrap().total_timeout(SHORT).start_own(move |_, _| {
        body();
    });
    let server = server.unwrap();
    let mut client = TcpStream::connect(server.local_addr()).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.drain().unwrap().counters.timed_out, 1);
    seen.wait_for((6, 9, 6));
}

#[test]
fn a_panic_is_that_threads_own() {
    if unsupported() {
        return;
    }
    let seen = Arc::new(Seen::default());
    // The first failure of a scope comes out, and ends the others.
    let raised = catch_unwind(AssertUnwindSafe(|| {
        try_scope(|scope| {
            let (first, second) = (waits(&seen), panics(&seen));
            drop(scope.spawn_own(own(), move || Ok::<_, ()>(first())).unwrap());
            drop(scope.spawn_own(own(), move || Ok(second())).unwrap());
            Ok(())
        })
    }));
    assert_eq!(*raised.unwrap_err().downcast::<&str>().unwrap(), "as the test wants");
    let failed: Result<(), String> = try_scope(|scope| {
        let body = begin(&seen);
        drop(scope.spawn_own(own(), move || {
            body();
            Err::<(), _>("an error".to_string())
        }));
        Ok(())
    });
    assert_eq!(failed, Err("an error".to_string()));
    let group = Group::new();
    group.add(own().spawn(panics(&seen)).unwrap());
    assert!(group.join_all()[0].as_ref().unwrap_err().is_panic());
    let pool = pool();
    assert!(catch_unwind(AssertUnwindSafe(|| pool.apply(panics(&seen)))).is_err());
    let body = panics(&seen);
    assert!(pool.imap_unordered([1], move |_| body()).all(|result| result.unwrap_err().is_panic()));
    assert!(hub::handle().spawn_own(panics(&seen)).join().unwrap_err().is_panic());
    let (server, mut client) = serve(panics(&seen));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.drain().unwrap().counters.panicked, 1);
    assert!(!std::thread::panicking());
    seen.wait_for((8, 8, 8));
}

/// Leaves a thread of each form suspended on this OS thread, and one of each that has not begun.
fn leave_all(seen: &Arc<Seen>) {
    let scoped = Arc::clone(seen);
    drop(spawn(move || {
        try_scope(|scope| {
            let body = waits(&scoped);
            drop(scope.spawn_own(own(), move || Ok::<_, ()>(body())).unwrap());
            Ok(())
        })
    }));
    let (group, pool) = (Group::new(), pool());
    group.add(own().spawn(waits(seen)).unwrap());
    drop(pool.spawn(waits(seen)));
    drop(hub::handle().spawn_own(waits(seen)));
    std::mem::forget(serve(waits(seen)));
    seen.wait_for((5, 0, 0));
    group.add(own().spawn(waits(seen)).unwrap());
    drop(pool.spawn(waits(seen)));
    std::mem::forget((group, pool));
}

#[test]
fn a_shutdown_unwinds_them_all() {
    if unsupported() {
        return;
    }
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    let os_thread = std::thread::spawn(move || {
        leave_all(&theirs);
        hub::shutdown()
    });
    assert_eq!(os_thread.join().unwrap(), 0);
    assert_eq!(seen.counts(), (5, 7, 5));
}

#[test]
fn the_end_of_the_os_thread_gives_them_up() {
    if unsupported() {
        return;
    }
    let seen = Arc::new(Seen::default());
    let theirs = Arc::clone(&seen);
    std::thread::spawn(move || leave_all(&theirs)).join().unwrap();
    // Only what had not begun is dropped.
    assert_eq!(seen.counts(), (5, 2, 0));
}

#[test]
fn a_server_that_is_gone_leaves_its_callbacks_with_its_own_thread() {
    if unsupported() {
        return;
    }
    /// Aborts if the drop is another thread's.
    struct Here(u32, #[expect(dead_code, reason = "counted")] std::rc::Rc<()>);
    impl Here {
        fn touch(&self) {
            assert_eq!(COUNT.get(), self.0);
        }
    }
    impl Drop for Here {
        fn drop(&mut self) {
            if COUNT.get() != self.0 {
                eprintln!("a callback of {} was dropped by {}", self.0, COUNT.get());
                std::process::abort();
            }
        }
    }
    COUNT.set(9);
    let seen = Arc::new(Seen::default());
    let (body, here) = (begin(&seen), std::rc::Rc::new(()));
    let (first, second) = (Here(9, std::rc::Rc::clone(&here)), Here(9, std::rc::Rc::clone(&here)));
    let server = TcpServer::bind("127.0.0.1:0")
        .unwrap()
        .on_accept_error(move |_| first.touch())
        .on_drain(move |_| second.touch());
    // The handler outlives the server, which is dropped without grace.
    let server = server.start_own(move |_, _| {
        body();
        greenling::shield(|| sleep(Duration::from_millis(30)));
    });
    let server = server.unwrap();
    let _client = TcpStream::connect(server.local_addr()).unwrap();
    seen.wait_for((1, 0, 0));
    drop(server);
    seen.wait_for((1, 1, 1));
    assert_eq!(std::rc::Rc::strong_count(&here), 1);
}
