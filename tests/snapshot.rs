//! What the threads do, as data: `hub::threads`, `ThreadInfo`, and the grouped report.
#![forbid(unsafe_code)]

mod common;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{guard, settle};
use greenling::group::{Group, Pool};
use greenling::hub::{
    self, Endpoint, HubThreads, LockKind, ProcessThreads, ThreadInfo, ThreadKind, ThreadState, Threads, WaitReason,
    all_threads, live_threads, threads,
};
use greenling::io::wait_readable;
use greenling::net::{TcpListener, TcpStream, UdpSocket, copy_bidirectional};
use greenling::offload::blocking;
use greenling::os::unix::net::UnixStream;
use greenling::process::Command;
use greenling::server::{TcpServer, UdpServer};
use greenling::sync::{Event, Mutex, Once, RwLock};
use greenling::thread::{Builder, JoinHandle, park};
use greenling::{Greenlet, channel, no_switch, shield, sleep, spawn, timeout, yield_now};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Spawns a thread that waits in `f`, with this name, and lets it get there.
#[track_caller]
fn waiting<T: 'static>(name: &str, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let thread = Builder::new().name(name.to_owned()).spawn(f).unwrap();
    settle();
    thread
}

/// Returns what is known of the thread with this name.
fn named(name: &str) -> ThreadInfo {
    let all = threads();
    all.iter().find(|info| info.name.as_deref() == Some(name)).unwrap_or_else(|| panic!("no {name}: {all:#}")).clone()
}

/// Returns what the thread with this name waits for.
fn reason(name: &str) -> WaitReason {
    let info = named(name);
    assert!(matches!(info.state, ThreadState::Waiting | ThreadState::Switched), "{info}");
    info.reason.clone().unwrap_or_else(|| panic!("{info}"))
}

#[test]
fn main_is_the_first_and_the_others_come_in_the_order_of_their_numbers() {
    let _guard = guard();
    let others: Vec<_> = (0..5).map(|_| spawn(park)).collect();
    settle();
    let all = threads();
    assert_eq!(all[0].kind, ThreadKind::Main);
    assert_eq!((all[0].state, all[0].id, all[0].spawned_at, all[0].stack), (ThreadState::Running, 1, None, None));
    let ids: Vec<_> = all.iter().skip(1).map(ThreadInfo::thread_id).collect();
    assert!(ids.iter().copied().eq(others.iter().map(|thread| thread.thread().id())));
    assert!(all.iter().all(|info| info.hub == all[0].hub) && all.is_sorted_by_key(|info| info.id));
    others.iter().for_each(|thread| thread.thread().unpark());
}

#[test]
fn each_field_says_what_the_thread_is() {
    let _guard = guard();
    let line = line!() + 1;
    let thread = waiting("fields", || timeout(LONG, || sleep(2 * LONG)));
    let info = named("fields");
    assert_eq!(
        (info.kind, info.state, &info.reason),
        (ThreadKind::GreenThread, ThreadState::Waiting, &Some(WaitReason::Sleep))
    );
    assert_eq!(info.thread_id(), thread.thread().id());
    assert!(info.waited.unwrap() < Duration::from_secs(100));
    // The wait ends with the scope at the latest.
    let (wait, scope) = (info.wait_left.unwrap(), info.timeout_left.unwrap());
    assert!(wait <= scope && scope <= LONG && wait > LONG / 2, "{wait:?} {scope:?}");
    assert!(!info.kill_pending && !info.own_thread_locals && info.awaits.is_none());
    assert_eq!((info.spawned_at.unwrap().file(), info.spawned_at.unwrap().line()), (file!(), line));
    let stack = info.stack.unwrap();
    assert_eq!(stack.reserved, hub::default_stack_size());
    let (used, deep) = (stack.used.unwrap(), stack.high_water.unwrap());
    assert!(used > 0 && used < stack.reserved && deep > 0 && deep <= stack.reserved, "{stack:?}");
    assert!(info.to_string().contains(&format!(", spawned at {}:{line}:", file!())), "{info}");
    thread.kill();
    assert!(named("fields").kill_pending, "it has not had its turn yet");
    assert_eq!(named("fields").state, ThreadState::Runnable);
    assert!(thread.join().unwrap_err().is_killed());
    assert!(threads().iter().all(|info| info.name.as_deref() != Some("fields")));
}

#[test]
fn a_kill_that_a_shield_holds_back_is_pending() {
    let _guard = guard();
    let thread = waiting("shielded", || shield(park));
    assert!(!named("shielded").kill_pending);
    thread.kill();
    settle();
    let info = named("shielded");
    assert!(info.kill_pending && info.state == ThreadState::Waiting, "{info}");
    assert!(info.to_string().contains(", to be killed"), "{info}");
    thread.thread().unpark();
    let _ = thread.join();
}

#[test]
fn a_thread_sees_itself_run_and_knows_how_deep_its_stack_is() {
    let _guard = guard();
    /// Returns the bytes of stack in use, below a frame of some size.
    #[inline(never)]
    fn deep() -> usize {
        let room = std::hint::black_box([1_u8; 20_000]);
        let info = named("runner");
        assert_eq!((info.state, info.reason, info.waited), (ThreadState::Running, None, None));
        info.stack.unwrap().used.unwrap() + usize::from(std::hint::black_box(room)[7]) - 1
    }
    let thread = Builder::new().name("runner".into()).spawn(|| (named("runner").stack.unwrap().used.unwrap(), deep()));
    let (flat, deep) = thread.unwrap().join().unwrap();
    assert!(deep >= flat + 20_000, "{flat} {deep}");
}

#[test]
fn own_thread_locals_are_told() {
    let _guard = guard();
    if greenling::thread::own_thread_locals_supported().is_err() {
        return;
    }
    let thread = Builder::new().name("own".into()).own_thread_locals().spawn(park).unwrap();
    settle();
    assert!(named("own").own_thread_locals);
    thread.thread().unpark();
    thread.join().unwrap();
}

#[test]
fn waits_for_threads_name_the_thread() {
    let _guard = guard();
    let last = waiting("last", park);
    let unparks = last.thread().clone();
    let joiner = waiting("joiner", move || last.join().unwrap());
    assert_eq!(reason("joiner"), WaitReason::Join);
    let awaits = named("joiner").awaits.unwrap();
    assert_eq!(
        (awaits.id, awaits.name.as_deref(), awaits.kind),
        (named("last").id, Some("last"), Some(ThreadKind::GreenThread))
    );
    assert!(!awaits.elsewhere && awaits.to_string().ends_with(" \"last\""));
    let scope = waiting("scope", || greenling::thread::scope(|s| drop(s.spawn(park))));
    assert_eq!(reason("scope"), WaitReason::Scope);
    let held: Rc<RefCell<Option<ThreadInfo>>> = Rc::default();
    let seen = Rc::clone(&held);
    let greenlet = Greenlet::new(move |n: u32| {
        *seen.borrow_mut() = Some(threads()[0].clone());
        n
    });
    assert_eq!(greenlet.switch(7), 7);
    let main = held.borrow_mut().take().unwrap();
    assert_eq!((main.state, main.reason, main.waited), (ThreadState::Switched, Some(WaitReason::Switch), None));
    assert_eq!(main.awaits.unwrap().kind, Some(ThreadKind::Greenlet));
    scope.kill();
    unparks.unpark();
    joiner.join().unwrap();
    hub::shutdown();
}

#[test]
fn waits_for_descriptors_show_both_addresses() {
    let _guard = guard();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let accepts = waiting("accepts", move || listener.accept().unwrap());
    let WaitReason::Read(descriptor) = reason("accepts") else { panic!("{}", named("accepts")) };
    assert_eq!(descriptor.endpoint, Some(Endpoint::TcpListener(addr)));
    let client = TcpStream::connect(addr).unwrap();
    let own = client.local_addr().unwrap();
    let (mut stream, _) = accepts.join().unwrap();
    let number = stream.as_raw_fd();
    let reads = waiting("reads", move || stream.read(&mut [0]).unwrap());
    let WaitReason::Read(descriptor) = reason("reads") else { panic!("{}", named("reads")) };
    assert_eq!(descriptor.number, number);
    assert!(
        matches!(descriptor.endpoint, Some(Endpoint::Tcp { local, peer, .. }) if (local, peer) == (addr, Some(own)))
    );
    let words = format!(" waits until descriptor {number} (tcp {addr} <-> {own}) can be read, for ");
    assert!(named("reads").to_string().contains(&words), "{}", named("reads"));
    drop(client);
    assert_eq!(reads.join().unwrap(), 0);
    let (mut full, _kept) = UnixStream::pair().unwrap();
    let writes = waiting("writes", move || drop(full.write_all(&vec![0; 64 << 20])));
    assert!(matches!(reason("writes"), WaitReason::Write(_)));
    writes.kill();
    assert!(writes.join().unwrap_err().is_killed());
}

#[test]
fn other_descriptors_say_what_they_are() {
    let _guard = guard();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = udp.local_addr().unwrap();
    let receives = waiting("receives", move || udp.recv(&mut [0]).unwrap());
    let WaitReason::Read(descriptor) = reason("receives") else { panic!("{}", named("receives")) };
    assert!(matches!(descriptor.endpoint, Some(Endpoint::Udp { local, peer: None, .. }) if local == addr));
    let (mut one, other) = UnixStream::pair().unwrap();
    let unix = waiting("unix", move || one.read(&mut [0]).unwrap());
    let WaitReason::Read(descriptor) = reason("unix") else { panic!("{}", named("unix")) };
    assert_eq!(descriptor.endpoint.unwrap().to_string(), "unix unnamed <-> unnamed");
    let (reader, _writer) = pipe().unwrap();
    let piped = waiting("piped", move || wait_readable(&reader));
    let WaitReason::Read(descriptor) = reason("piped") else { panic!("{}", named("piped")) };
    assert!(matches!(descriptor.endpoint, Some(Endpoint::File(name)) if name.starts_with("pipe:[")));
    drop(other);
    assert_eq!(unix.join().unwrap(), 0);
    [receives.kill(), piped.kill()].iter().for_each(|alive| assert!(alive));
    settle();
}

#[test]
fn waits_for_locks_name_the_holder() {
    let _guard = guard();
    let (lock, table, once) = (Rc::new(Mutex::new(())), Rc::new(RwLock::new(())), Rc::new(Once::new()));
    let all = (Rc::clone(&lock), Rc::clone(&table), Rc::clone(&once));
    let holder = waiting("holder", move || {
        let (_lock, _table) = (all.0.lock().unwrap(), all.1.write().unwrap());
        all.2.call_once(park);
    });
    let (ours, mine) = (Rc::clone(&lock), Rc::clone(&table));
    let waiters = [
        waiting("mutex", move || drop(ours.lock().unwrap())),
        waiting("read", move || drop(mine.read().unwrap())),
        waiting("write", move || drop(table.write().unwrap())),
        waiting("once", move || once.call_once(|| ())),
    ];
    for (name, wanted) in
        [("mutex", LockKind::Mutex), ("read", LockKind::Read), ("write", LockKind::Write), ("once", LockKind::Once)]
    {
        assert!(
            matches!(reason(name), WaitReason::Lock { kind, shared: false, .. } if kind == wanted),
            "{}",
            named(name)
        );
        assert_eq!(named(name).awaits.unwrap().name.as_deref(), Some("holder"), "{}", named(name));
    }
    holder.thread().unpark();
    holder.join().unwrap();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
}

#[test]
fn other_waits_have_a_kind_each() {
    let _guard = guard();
    let (send, receive) = channel::bounded::<u32>(1);
    let receives = waiting("receives", move || receive.recv().is_err());
    assert_eq!(reason("receives"), WaitReason::Receive);
    drop(send);
    assert!(receives.join().unwrap());
    let (send, receive) = channel::bounded::<u32>(1);
    send.send(1).unwrap();
    let sends = waiting("sends", move || send.send(2).is_err());
    assert_eq!(reason("sends"), WaitReason::Send);
    drop(receive);
    assert!(sends.join().unwrap());
    let event = Rc::new(Event::new());
    let ours = Rc::clone(&event);
    let waits = waiting("event", move || ours.wait());
    assert!(matches!(reason("event"), WaitReason::Event(_)));
    event.set();
    waits.join().unwrap();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let job = waiting("job", move || blocking(move || gone.recv().is_err()));
    assert!(matches!(reason("job"), WaitReason::Job(_)), "{}", named("job"));
    drop(go);
    assert!(job.join().unwrap());
}

#[test]
fn a_lock_that_hubs_share_is_shared() {
    let _guard = guard();
    static LOCK: hub::sync::Mutex<()> = hub::sync::Mutex::new(());
    let held = LOCK.lock().unwrap();
    let waiter = waiting("waiter", || drop(LOCK.lock().unwrap()));
    assert!(matches!(reason("waiter"), WaitReason::Lock { kind: LockKind::Mutex, shared: true, .. }));
    assert_eq!(named("waiter").awaits.unwrap().kind, Some(ThreadKind::Main));
    drop(held);
    waiter.join().unwrap();
}

/// A snapshot is plain data: what it describes may be gone.
#[test]
fn a_snapshot_may_be_kept_and_sent_away() {
    fn sendable<T: Send + Sync + 'static>(_: &T) {}
    let _guard = guard();
    let thread = waiting("gone", || sleep(LONG));
    let all = threads();
    sendable(&all);
    thread.kill();
    assert!(thread.join().is_err());
    let text = std::thread::spawn(move || all.to_string()).join().unwrap();
    assert!(text.contains("\"gone\" sleeps, for ") && text.contains(" s left, spawned at "), "{text}");
}

#[test]
fn a_circle_is_told() {
    let _guard = guard();
    let other: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let taken = Rc::clone(&other);
    let left = waiting_for(&taken, "left");
    let right = Builder::new().name("right".into()).spawn(move || drop(left.join())).unwrap();
    let unlocks = right.thread().clone();
    *other.borrow_mut() = Some(right);
    settle();
    let all = threads();
    let names: Vec<_> = all.cycle().iter().map(|thread| thread.name.as_deref().unwrap()).collect();
    assert!(names == ["left", "right", "left"] || names == ["right", "left", "right"], "{names:?}");
    assert!(all.to_string().contains("\n  cycle: #"), "{all}");
    drop(unlocks);
    hub::shutdown();
    assert!(threads().cycle().is_empty());
}

/// Spawns a thread that joins what will be in `other`.
fn waiting_for(other: &Rc<RefCell<Option<JoinHandle<()>>>>, name: &str) -> JoinHandle<()> {
    let other = Rc::clone(other);
    let join = move || {
        let thread = other.borrow_mut().take().unwrap();
        drop(thread.join());
    };
    Builder::new().name(name.to_owned()).spawn(join).unwrap()
}

#[test]
fn threads_that_do_the_same_are_one_line() {
    let _guard = guard();
    const MANY: usize = 10_000;
    let line = line!() + 1;
    let crowd: Vec<_> = (0..MANY).map(|_| spawn(park)).collect();
    let single = waiting("single", || sleep(LONG));
    crowd[7].kill();
    let text = threads().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], format!("{} green threads and greenlets, and main", MANY + 1));
    assert_eq!(lines[1], "  main is running");
    let words = format!("  {} are parked, waiting for an unpark, for ", MANY - 1);
    assert!(lines[2].starts_with(&words), "{text}");
    assert!(lines[2].contains(&format!(" s, spawned at {}:{line}:", file!())), "{text}");
    assert!(lines[3..].iter().any(|line| line.contains("\"single\" sleeps, for ")), "{text}");
    // The one that is to be killed can run.
    assert!(lines[3..].iter().any(|line| line.contains(" can run, ") && line.contains(", to be killed")), "{text}");
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(format!("{:#}", threads()).lines().count(), MANY + 3);
    assert_eq!(hub::report().lines().count(), MANY + 3);
    single.kill();
    crowd.iter().for_each(|thread| thread.thread().unpark());
    crowd.into_iter().for_each(|thread| drop(thread.join()));
}

#[test]
fn a_group_names_what_all_of_it_wait_for_and_else_the_kind() {
    let _guard = guard();
    let lock = Rc::new(Mutex::new(()));
    let ours = Rc::clone(&lock);
    let holder = waiting("holder", move || {
        let _held = ours.lock().unwrap();
        park();
    });
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let lock = Rc::clone(&lock);
            spawn(move || drop(lock.lock().unwrap()))
        })
        .collect();
    let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
    let (near, far): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let readers: Vec<_> = near.into_iter().map(|mut one| spawn(move || one.read(&mut [0]).unwrap())).collect();
    settle();
    let text = threads().to_string();
    let id = named("holder").id;
    assert!(text.contains(&format!("  3 wait for a Mutex that #{id} \"holder\" holds, for 0.")), "{text}");
    assert!(text.contains("  4 wait until a Unix connection can be read, for 0."), "{text}");
    drop(far);
    readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), 0));
    holder.thread().unpark();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
}

#[test]
fn names_and_messages_survive_the_end_of_main() {
    let _guard = guard();
    let all: Threads = std::thread::spawn(|| {
        drop(spawn(park));
        yield_now();
        threads()
    })
    .join()
    .unwrap();
    assert_eq!((all.len(), live_threads()), (2, 0));
    let all: Arc<Threads> = Arc::new(all);
    assert_eq!(all.iter().filter(|info| info.reason == Some(WaitReason::Park)).count(), 1);
}

/// A hub on an OS thread with this name, which is `main` of it.
fn hub_on(name: &str, main: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(main).unwrap()
}

/// Asks all hubs until that of the OS thread with this name has answered, with a main that waits.
fn answer_of(name: &str) -> (ProcessThreads, HubThreads) {
    let waits = |threads: &Threads| threads[0].state == ThreadState::Waiting;
    loop {
        let all = all_threads(Duration::from_millis(100));
        let hub = all
            .hubs
            .iter()
            .find(|hub| hub.os_thread_name.as_deref() == Some(name) && hub.threads.as_ref().is_some_and(waits));
        if let Some(hub) = hub.cloned() {
            return (all, hub);
        }
    }
}

/// Returns what is known of the thread with this name.
fn of<'a>(threads: &'a Threads, name: &str) -> Option<&'a ThreadInfo> {
    threads.iter().find(|info| info.name.as_deref() == Some(name))
}

#[test]
fn each_hub_answers_and_one_that_computes_is_listed_without_its_threads() {
    let _guard = guard();
    let computes = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&computes);
    let (tell, told) = std::sync::mpsc::channel();
    let is_busy = Arc::new(AtomicBool::new(false));
    let started = Arc::clone(&is_busy);
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let busy = hub_on("snapshot-busy", move || {
        drop(spawn(park));
        yield_now();
        started.store(true, Ordering::Release);
        while goes_on.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // A timer, so that this is no deadlock.
        while !ends.load(Ordering::Acquire) {
            sleep(Duration::from_millis(1));
        }
        hub::shutdown();
    });
    let idle = hub_on("snapshot-idle", move || {
        drop(waiting("in the idle hub", || sleep(LONG)));
        tell.send(greenling::thread::current()).unwrap();
        park();
    });
    let unparks = told.recv().unwrap();
    while !is_busy.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let (all, hub) = answer_of("snapshot-idle");
    let threads = hub.threads.as_ref().unwrap();
    assert!(matches!(of(threads, "in the idle hub").unwrap().reason, Some(WaitReason::Sleep)), "{hub}");
    assert_eq!(threads[0].reason, Some(WaitReason::Park));
    assert!(threads.iter().all(|info| info.hub == hub.hub && info.state == ThreadState::Waiting));
    let deaf = all.hubs.iter().find(|hub| hub.os_thread_name.as_deref() == Some("snapshot-busy")).unwrap();
    assert!(deaf.threads.is_none() && deaf.waited >= Duration::from_millis(100));
    let words = format!("hub {} (OS thread {} \"snapshot-busy\") has not answered for ", deaf.hub, deaf.os_thread);
    assert!(all.to_string().contains(&words), "{all}");
    // The OS thread is one of this process.
    assert!(std::path::Path::new(&format!("/proc/self/task/{}", deaf.os_thread)).exists());
    // It hears the question late, and the next one in time.
    computes.store(false, Ordering::Release);
    let (_, hub) = answer_of("snapshot-busy");
    assert_eq!(hub.threads.as_ref().unwrap().len(), 2, "{hub}");
    is_over.store(true, Ordering::Release);
    unparks.unpark();
    [busy, idle].into_iter().for_each(|hub| hub.join().unwrap());
}

#[test]
fn a_thread_that_has_only_greenlets_tells_of_them() {
    let _guard = guard();
    let all = std::thread::spawn(|| {
        let greenlet = Greenlet::new(|_: u32| {
            let text = all_threads(Duration::from_millis(20)).to_string();
            text.lines().filter(|line| line.contains("greenlet #")).count() as u32
        });
        greenlet.switch(0)
    });
    assert!(all.join().unwrap() >= 1);
}

#[test]
fn a_wait_for_the_lock_of_a_file_says_so() {
    let _guard = guard();
    let path = std::env::temp_dir().join(format!("greenling-snapshot-{}", std::process::id()));
    let file = greenling::fs::File::create(&path).unwrap();
    file.lock().unwrap();
    let other = greenling::fs::File::open(&path).unwrap();
    let waits = waiting("file", move || other.lock().is_ok());
    // Between two pauses it tries, which is a job.
    while reason("file") != WaitReason::LockOf("a file") {
        yield_now();
    }
    drop(file);
    assert!(waits.join().unwrap());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_thread_without_a_hub_may_ask_and_makes_none() {
    let _guard = guard();
    let thread = waiting("asked by another", || sleep(LONG));
    let asker = std::thread::spawn(|| {
        loop {
            let all = all_threads(Duration::from_millis(100));
            if all.hubs.iter().filter_map(|hub| hub.threads.as_ref()).any(|all| of(all, "asked by another").is_some()) {
                return all;
            }
        }
    });
    while !asker.is_finished() {
        sleep(Duration::from_millis(1));
    }
    let all = asker.join().unwrap();
    let numbers: Vec<_> = all.hubs.iter().map(|hub| hub.hub).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(numbers.contains(&threads()[0].hub));
    thread.kill();
    let _ = thread.join();
}

/// A hub that never answers, so that each question takes as long as it may.
fn deaf() -> (Arc<AtomicBool>, std::thread::JoinHandle<()>) {
    let (computes, made) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (goes_on, tells) = (Arc::clone(&computes), Arc::clone(&made));
    let hub = std::thread::spawn(move || {
        yield_now();
        drop(spawn(|| ()).join());
        tells.store(true, Ordering::Release);
        while goes_on.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    while !made.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    (computes, hub)
}

#[test]
fn a_green_thread_that_asks_lets_others_run_and_can_be_killed() {
    let _guard = guard();
    let (computes, hub) = deaf();
    let asker = waiting("asker", || all_threads(LONG));
    assert!(matches!(reason("asker"), WaitReason::Remote(_)), "{}", named("asker"));
    assert!(asker.kill());
    assert!(asker.join().unwrap_err().is_killed());
    assert!(timeout(Duration::from_millis(10), || all_threads(LONG)).is_err());
    // Inside `no_switch` the OS thread waits, and nothing else runs.
    let ran = Rc::new(Cell::new(false));
    let runs = Rc::clone(&ran);
    let other = spawn(move || runs.set(true));
    let began = Instant::now();
    let all = no_switch(|| all_threads(Duration::from_millis(20)));
    assert!(began.elapsed() >= Duration::from_millis(20) && !ran.get());
    assert!(all.hubs.iter().any(|hub| hub.threads.is_none()));
    // A hub that ends is none that is waited for.
    computes.store(false, Ordering::Release);
    hub.join().unwrap();
    other.join().unwrap();
}

/// Hubs begin and end while they are asked: each question ends, and what is told is of one hub.
#[test]
fn hubs_that_come_and_go_can_be_asked_by_several_at_once() {
    let _guard = guard();
    const LIVES: u32 = if cfg!(feature = "sanitizer") { 20 } else { 200 };
    let living = || {
        for life in 0..LIVES {
            std::thread::spawn(move || {
                let threads: Vec<_> = (0..life % 7).map(|_| spawn(park)).collect();
                yield_now();
                threads.iter().for_each(|thread| thread.thread().unpark());
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                if life % 3 == 0 {
                    // Left suspended at the end.
                    drop(spawn(park));
                    yield_now();
                }
            })
            .join()
            .unwrap();
        }
    };
    let lives = [(), ()].map(|()| std::thread::spawn(living));
    // One asks from an OS thread without a hub, this one from a green thread, and others run meanwhile.
    let asks = || {
        let all = all_threads(Duration::from_millis(20));
        let told = all.hubs.iter().filter_map(|hub| Some((hub.hub, hub.threads.as_ref()?)));
        told.for_each(|(hub, threads)| assert!(threads.iter().all(|info| info.hub == hub), "{all}"));
        assert!(all.hubs.is_sorted_by(|one, other| one.hub < other.hub), "{all}");
    };
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let other = std::thread::spawn(move || {
        while !ends.load(Ordering::Acquire) {
            asks();
        }
    });
    let green = spawn(move || {
        while !lives.iter().all(std::thread::JoinHandle::is_finished) {
            asks();
        }
        lives.into_iter().for_each(|life| life.join().unwrap());
    });
    green.join().unwrap();
    over.store(true, Ordering::Release);
    other.join().unwrap();
}

#[test]
fn a_circle_over_two_hubs_is_told_and_names_the_threads() {
    static LEFT: hub::sync::Mutex<()> = hub::sync::Mutex::new(());
    static RIGHT: hub::sync::Mutex<()> = hub::sync::Mutex::new(());
    static BOTH: std::sync::Barrier = std::sync::Barrier::new(2);
    let _guard = guard();
    let philosopher =
        |name: &'static str, first: &'static hub::sync::Mutex<()>, second: &'static hub::sync::Mutex<()>| {
            hub_on(&format!("table of {name}"), move || {
                let held = first.lock().unwrap();
                BOTH.wait();
                let thread = Builder::new().name(format!("guest of {name}")).spawn(|| drop(second.lock().unwrap()));
                let _ = thread.unwrap().join();
                drop(held);
            })
        };
    let hubs = [philosopher("kant", &LEFT, &RIGHT), philosopher("hume", &RIGHT, &LEFT)];
    let circle = loop {
        let all = all_threads(Duration::from_millis(100));
        if !all.cycle.is_empty() {
            break all;
        }
    };
    // Four threads, the first twice.
    assert_eq!(circle.cycle.len(), 5, "{circle}");
    assert!(circle.to_string().contains("\n  cycle: "), "{circle}");
    let guest = circle.cycle.iter().find(|thread| thread.name.as_deref() == Some("guest of kant")).unwrap();
    assert!(guest.to_string().contains("\"guest of kant\" of hub "), "{guest}");
    let infos = || circle.hubs.iter().filter_map(|hub| hub.threads.as_ref());
    let info = infos().find_map(|all| of(all, "guest of kant")).unwrap();
    let holder = info.awaits.as_ref().unwrap();
    assert!(holder.elsewhere && holder.kind == Some(ThreadKind::Main), "{info}");
    drop(hubs); // they wait for ever
}

/// Returns how long this OS thread has had the CPU; how long the machine is up, where the kernel does not say.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match text.split(' ').next().and_then(|nanos| nanos.parse().ok()) {
        Some(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => {
            let up = std::fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(up.split(' ').next().unwrap().parse().unwrap())
        }
    }
}

/// An unoptimised build, or one with a sanitizer, may take its time.
#[test]
fn a_hundred_thousand_threads_are_told_in_well_under_a_second() {
    let _guard = guard();
    let many = if cfg!(debug_assertions) || cfg!(feature = "sanitizer") { 10_000 } else { 100_000 };
    let crowd: Vec<_> = (0..many).map(|_| spawn(park)).collect();
    yield_now();
    // Time on the CPU, since other programs take the CPU as well.
    let began = on_cpu();
    assert_eq!(threads().len(), many + 1);
    let took = on_cpu() - began;
    let began = on_cpu();
    let lines = threads().to_string().lines().count();
    println!("{many} threads: {took:?}; with the text {:?}", on_cpu() - began);
    assert_eq!(lines, 3);
    assert!(took < Duration::from_secs(1), "{took:?}");
    crowd.iter().for_each(|thread| thread.thread().unpark());
    crowd.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn the_threads_of_a_server_name_their_client_and_the_place_that_started_it() {
    let _guard = guard();
    let server = TcpServer::bind("127.0.0.1:0").unwrap();
    let line = line!() + 1;
    let server = server.start(|mut stream, _| stream.read(&mut [0]).map(drop)).unwrap();
    let addr = server.local_addr();
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let all = loop {
        let all = threads();
        if all.iter().filter(|info| matches!(info.reason, Some(WaitReason::Read(_)))).count() >= 4 {
            break all;
        }
        yield_now();
    };
    for client in &clients {
        let name = format!("tcp {addr} <- {}", client.local_addr().unwrap());
        let info = of(&all, &name).unwrap_or_else(|| panic!("no {name}: {all:#}"));
        assert_eq!(info.kind, ThreadKind::GreenThread);
    }
    // The supervisor and the acceptor are there for the program as well.
    assert!(
        all.iter()
            .skip(1)
            .all(|info| (info.spawned_at.unwrap().file(), info.spawned_at.unwrap().line()) == (file!(), line)),
        "{all:#}"
    );
    assert_eq!(all.len(), 6, "{all:#}");
    assert!(all.to_string().contains("\n  3 wait until a connection can be read, for "), "{all}");
    drop(clients);
    server.drain().unwrap();
    assert_eq!(threads().len(), 1);
}

#[test]
fn the_threads_of_a_udp_server_name_the_sender_and_own_ones_the_place() {
    let _guard = guard();
    let answer = |_| -> std::io::Result<()> {
        sleep(LONG);
        Ok(())
    };
    let server = UdpServer::bind("127.0.0.1:0").unwrap();
    let line = line!() + 1;
    let server = server.start(answer).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", server.local_addr()).unwrap();
    let name = format!("udp {} <- {}", server.local_addr(), client.local_addr().unwrap());
    let info = loop {
        if let Some(info) = of(&threads(), &name) {
            break info.clone();
        }
        yield_now();
    };
    assert_eq!((info.spawned_at.unwrap().file(), info.spawned_at.unwrap().line()), (file!(), line));
    drop(server);
    if greenling::thread::own_thread_locals_supported().is_ok() {
        let line = line!() + 1;
        let server = TcpServer::bind("127.0.0.1:0").unwrap().start_own(|_, _| sleep(LONG)).unwrap();
        let _client = TcpStream::connect(server.local_addr()).unwrap();
        let info = loop {
            if let Some(info) = threads().iter().find(|info| info.own_thread_locals) {
                break info.clone();
            }
            yield_now();
        };
        assert!(info.name.unwrap().starts_with("tcp "));
        assert_eq!((info.spawned_at.unwrap().file(), info.spawned_at.unwrap().line()), (file!(), line));
        drop(server);
    }
    settle();
}

#[test]
fn a_panic_and_an_overflow_of_a_handler_name_the_place_that_started_the_server() {
    if cfg!(feature = "sanitizer") {
        return; // it reports the overflow in its own words
    }
    let child = common::child("a_panic_and_an_overflow_of_a_handler_name_the_place_that_started_the_server", || {
        // Each server says where it was started, and where it listens.
        let server = TcpServer::bind("127.0.0.1:0").unwrap();
        let line = line!() + 1;
        let server = server.start(|_, _| assert_eq!(deep(0), 1, "on purpose")).unwrap();
        eprintln!("panics {line} tcp {} <- ", server.local_addr());
        let client = TcpStream::connect(server.local_addr()).unwrap();
        assert_eq!((&client).read(&mut [0]).unwrap_or(0), 0);
        // The overflow ends the process.
        let server = TcpServer::bind("127.0.0.1:0").unwrap();
        let line = line!() + 1;
        let server = server.start(|_, _| assert_ne!(deep(1), 0)).unwrap();
        eprintln!("overflows {line} tcp {} <- ", server.local_addr());
        let client = TcpStream::connect(server.local_addr()).unwrap();
        let _ = (&client).read(&mut [0]);
    });
    let err = common::stderr(&child);
    for (what, says) in [("panics ", ":"), ("overflows ", ", has overflowed its stack")] {
        let told = err.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{err}"));
        let (line, name) = told.split_once(' ').unwrap();
        let place = format!("\", spawned at {}:{line}:", file!());
        let named = err.lines().find(|line| line.starts_with("green thread #") && line.contains(&place));
        assert!(named.is_some_and(|named| named.contains(&format!(" \"{name}127.0.0.1:"))), "{err}");
        assert!(named.is_some_and(|named| named.contains(says)), "{err}");
    }
}

/// Calls itself until the stack is full, unless `n` is 0.
fn deep(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    let room = std::hint::black_box([n; 100]);
    deep(room[7] + 1) + std::hint::black_box(room)[8]
}

/// Returns the lines at which the threads of this file were spawned that `chosen` chooses.
fn lines_of(chosen: impl Fn(&ThreadInfo) -> bool) -> Vec<u32> {
    let all = threads();
    let chosen = all.iter().filter(|info| info.kind != ThreadKind::Main && chosen(info));
    let places = chosen.map(|info| info.spawned_at.unwrap());
    places.inspect(|place| assert_eq!(place.file(), file!(), "{all:#}")).map(|place| place.line()).collect()
}

#[test]
fn what_the_runtime_spawns_carries_the_place_that_asked_for_it() {
    let _guard = guard();
    let everything = |_: &ThreadInfo| true;
    // Groups and pools.
    let (group, pool) = (Group::new(), Pool::new(4));
    let first = line!() + 1;
    group.spawn(park);
    pool.spawn(park);
    pool.try_spawn(park).unwrap();
    pool.spawn_timeout(LONG, park).unwrap();
    settle();
    assert_eq!(lines_of(everything), [first, first + 1, first + 2, first + 3]);
    hub::shutdown();
    // Results of items, asked for in one place and taken in another.
    let pool = Pool::new(2);
    let line = line!() + 1;
    let mut results = pool.imap(0..2, |_| lines_of(|info| info.state == ThreadState::Running)[0]);
    assert_eq!([results.next().unwrap().unwrap(), results.next().unwrap().unwrap()], [line; 2]);
    let line = line!() + 1;
    let results = pool.imap_unordered(0..2, |_| lines_of(|info| info.state == ThreadState::Running)[0]);
    assert!(results.map(Result::unwrap).eq([line; 2]));
    let line = line!() + 1;
    assert_eq!(pool.map(0..2, |_| lines_of(|info| info.state == ThreadState::Running)[0]), [line; 2]);
    // A callback at the end of a thread.
    let thread = spawn(|| ());
    let seen = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&seen);
    let line = line!() + 1;
    thread.on_finish(move |_| theirs.set(lines_of(|info| info.state == ThreadState::Running)[0]));
    thread.join().unwrap();
    settle();
    assert_eq!(seen.get(), line);
    // Another hub's thread.
    let handle = hub::handle();
    let running = || lines_of(|info| info.state == ThreadState::Running)[0];
    let line = line!() + 1;
    let asked = std::thread::spawn(move || handle.spawn(running).join());
    while !asked.is_finished() {
        sleep(Duration::from_millis(1));
    }
    assert_eq!(asked.join().unwrap().unwrap(), line);
}

#[test]
fn the_readers_and_reapers_of_a_child_carry_the_place_that_asked_for_them() {
    let _guard = guard();
    let everything = |_: &ThreadInfo| true;
    let mut sleeper = Command::new("sleep");
    sleeper.arg("3600").kill_on_drop(true);
    let line = line!() + 1;
    let child = sleeper.spawn().unwrap();
    drop(child);
    // The reaper has nothing to wait for if the child is gone already.
    assert!(lines_of(everything).iter().all(|place| *place == line));
    settle();
    hub::shutdown();
    let mut speaker = Command::new("sh");
    speaker.args(["-c", "sleep 3600"]);
    let speaker = Builder::new().name("speaker".into()).spawn(move || {
        let line = line!() + 1;
        (speaker.output().is_ok(), line)
    });
    let line = line!() - 2;
    settle();
    assert_eq!(lines_of(|info| info.name.as_deref() == Some("standard error of a child")), [line]);
    speaker.unwrap().kill();
    hub::shutdown();
}

#[test]
fn both_directions_of_a_copy_carry_the_place_that_asked_for_it() {
    let _guard = guard();
    let ((one, _far), (other, _away)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let line = line!() + 1;
    let copies = waiting("copies", move || copy_bidirectional(&one, &other).is_ok());
    assert_eq!(lines_of(|_| true), [line; 2]);
    copies.kill();
    assert!(copies.join().is_err());
}
