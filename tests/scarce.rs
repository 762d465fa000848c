//! No memory for another stack, no descriptors, no OS threads: what returns a `Result` returns it, and a server goes on.
//!
//! Each case runs in a process of its own, which takes away from itself what is to be scarce.
#![allow(unsafe_code)] // limits and filters of the process

mod common;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Output;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenling::group::Pool;
use greenling::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket, copy_bidirectional};
use greenling::process::Command;
use greenling::server::{TcpServer, UdpServer};
use greenling::signal::{SIGUSR1, Signals};
use greenling::thread::{Builder, JoinHandle, park, scope, try_scope};
use greenling::{Hubs, TimeoutError, blocking, fs, hub, offload, sleep, spawn, timeout, yield_now};

/// Bytes of a stack where memory is to be scarce: few of them use up what there is, and leave enough for everything else.
const LARGE: usize = 32 << 20;

/// Runs a case in a process of its own and demands that it ends well. Without the guard of other tests: its OS thread might
/// be on its way when memory becomes scarce; a child that hangs is killed.
fn case(name: &str, body: impl FnOnce()) {
    let output = common::child(name, || {
        body();
        println!("all well");
    });
    assert!(output.status.success() && common::stdout(&output).contains("all well"), "{}", common::stderr(&output));
}

/// Limits a resource of this process.
fn limit(what: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: `limit` is live for the call, which reads it.
    assert_eq!(unsafe { libc::setrlimit(what, &limit) }, 0);
}

/// Limits the address space to a few large stacks more than there is in use.
fn limit_memory() {
    hub::set_default_stack_size(LARGE).unwrap();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    limit(libc::RLIMIT_AS, pages * 4096 + 12 * LARGE as u64);
}

/// Uses up all memory for stacks.
fn use_up_memory() -> Vec<JoinHandle<()>> {
    let threads: Vec<_> = std::iter::from_fn(|| Builder::new().spawn(park).ok()).take(64).collect();
    assert!((1..64).contains(&threads.len()), "{} stacks", threads.len());
    yield_now();
    threads
}

/// What a system call will say from now on to this OS thread and those that it starts.
fn forbid(calls: &[libc::c_long], errno: libc::c_int) {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)]; // the number of the call
    for call in calls {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes integers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel copies `filter` and the program it points to, and both live until the call returns.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) }, 0);
}

/// A connection, and its other side.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// The number of the kernel's error.
fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn without_memory_for_a_stack_all_that_has_a_result_returns_it() {
    if cfg!(feature = "sanitizer") {
        eprintln!("skipped: with AddressSanitizer an OS thread needs more memory than is left");
        return;
    }
    case("without_memory_for_a_stack_all_that_has_a_result_returns_it", || {
        let ((client, near), (far, backend)) = (connected(), connected());
        let server = TcpServer::bind("127.0.0.1:0").unwrap();
        let udp = UdpServer::bind("127.0.0.1:0").unwrap();
        let (group, before) = (Pool::new(3), Pool::new(1));
        let busy = before.spawn(park);
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        limit_memory();
        let threads = use_up_memory();
        assert_eq!(errno(Builder::new().spawn(|| ())), Some(libc::ENOMEM));
        assert_eq!(errno(copy_bidirectional(&near, &far)), Some(libc::ENOMEM));
        // The connections are as they were.
        (&client).write_all(b"x").unwrap();
        (&near).read_exact(&mut [0]).unwrap();
        let script = "echo out; echo err >&2";
        assert_eq!(errno(Command::new("sh").args(["-c", script]).output()), Some(libc::ENOMEM));
        assert_eq!(errno(server.start(|_, _| ())), Some(libc::ENOMEM));
        assert_eq!(errno(udp.start(|_| ())), Some(libc::ENOMEM));
        assert_eq!(errno(TcpServer::new(port).run(|_, _| ())), Some(libc::ENOMEM));
        scope(|s| assert_eq!(errno(Builder::new().spawn_scoped(s, || ()).map(drop)), Some(libc::ENOMEM)));
        let tried = try_scope(|s| s.spawn_with(Builder::new(), || Ok(())).map(drop));
        assert_eq!(errno(tried), Some(libc::ENOMEM));
        let token = Rc::new(());
        let theirs = Rc::clone(&token);
        let full = group.try_spawn(move || drop(theirs)).unwrap_err();
        assert!(group.spawn_timeout(Duration::from_millis(1), || ()).is_err());
        assert_eq!(Rc::strong_count(&token), 2, "the closure comes back");
        drop(full);
        for result in group.imap([1, 2], |n| n).chain(group.imap_unordered([3, 4], |n| n)) {
            assert!(result.unwrap_err().to_string().contains("memory"));
        }
        assert!(hub::handle().spawn(|| ()).join().unwrap_err().to_string().contains("memory"));
        let panic = catch_unwind(AssertUnwindSafe(|| drop(spawn(|| ())))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("failed to spawn a green thread: ") && text.contains("memory"), "{text}");
        // What needs no stack goes on.
        assert_eq!(timeout(Duration::from_secs(60), || 7), Ok(7));
        assert!(!fs::read("/proc/self/stat").unwrap().is_empty());
        assert!("localhost:1".to_socket_addrs().unwrap().count() > 0);
        // And then all of it.
        for thread in threads {
            thread.kill();
            assert!(thread.join().unwrap_err().is_killed());
        }
        assert!(group.imap([1, 2], |n| n).map(Result::unwrap).eq([1, 2]));
        assert_eq!(group.try_spawn(|| 6).unwrap().join().unwrap(), 6);
        assert_eq!(Command::new("sh").args(["-c", script]).output().unwrap().stdout, b"out\n");
        client.close();
        backend.close();
        assert_eq!(copy_bidirectional(&near, &far).unwrap(), (0, 0));
        busy.kill();
    });
}

/// CPU time of this OS thread.
fn run_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock is one that exists, and `time` is live for the call, which fills it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lets green threads run until `done`.
#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// A client that has asked.
fn client(addr: SocketAddr) -> std::net::TcpStream {
    let mut client = std::net::TcpStream::connect(addr).unwrap();
    client.write_all(b"ask!").unwrap();
    client
}

/// Answers until the client leaves.
fn answer(mut stream: TcpStream, _: SocketAddr) -> io::Result<()> {
    let mut request = [0; 4];
    while stream.read(&mut request)? > 0 {
        stream.write_all(b"yes!")?;
    }
    Ok(())
}

#[test]
fn without_memory_for_a_stack_a_server_puts_clients_off_and_loses_none() {
    case("without_memory_for_a_stack_a_server_puts_clients_off_and_loses_none", || {
        limit_memory();
        let told = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&told);
        let server = TcpServer::bind("127.0.0.1:0").unwrap();
        let server = server.on_accept_error(move |error| theirs.borrow_mut().push(error.kind()));
        let server = server.start(answer).unwrap();
        let mut clients: Vec<_> = (0..20).map(|_| client(server.local_addr())).collect();
        until("it is put off", || server.counters().backoffs > 0);
        let served = server.counters().accepted as usize;
        let before = run_time();
        sleep(Duration::from_millis(700));
        let busy = run_time() - before;
        assert!(busy < Duration::from_millis(300), "it used {busy:?} of 0.7 s");
        let counters = server.counters();
        assert!((1..20).contains(&served), "{counters:?}");
        assert_eq!((counters.accepted, counters.active(), counters.refused), (served as u64, served as u64, 0));
        assert!((2..12).contains(&counters.backoffs), "10, 20, 40, .. ms: {counters:?}");
        assert_eq!(told.borrow().len() as u64, counters.backoffs);
        assert!(told.borrow().iter().all(|kind| *kind == ErrorKind::OutOfMemory));
        // Those that are served go on, and one that leaves makes room for the next, all the way.
        for _ in 0..20 {
            let mut first = clients.remove(0);
            read_answer(&mut first);
            first.write_all(b"ask!").unwrap();
            read_answer(&mut first);
        }
        until("all have left", || server.counters().completed == 20);
        let report = server.drain().unwrap();
        assert_eq!((report.counters.accepted, report.counters.refused), (20, 0));
    });
}

/// Reads an answer of four bytes, while the hub runs.
fn read_answer(client: &mut std::net::TcpStream) {
    let mut green = TcpStream::from(client.try_clone().unwrap());
    let mut text = [0; 4];
    green.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"yes!");
}

#[test]
fn without_memory_for_a_stack_a_server_may_turn_clients_away() {
    case("without_memory_for_a_stack_a_server_may_turn_clients_away", || {
        limit_memory();
        let server = TcpServer::bind("127.0.0.1:0").unwrap().refuse_when_exhausted(true).start(answer).unwrap();
        let clients: Vec<_> = (0..20).map(|_| client(server.local_addr())).collect();
        until("each is served or turned away", || server.counters().accepted == 20);
        let counters = server.counters();
        assert!((1..20).contains(&counters.refused), "{counters:?}");
        assert_eq!((counters.active() + counters.refused, counters.backoffs), (20, counters.refused));
        drop(clients);
        assert_eq!(server.drain().unwrap().counters.refused, counters.refused);
    });
}

#[test]
fn without_memory_for_a_stack_a_drain_ends_and_counts_every_client() {
    case("without_memory_for_a_stack_a_drain_ends_and_counts_every_client", || {
        limit_memory();
        let server = TcpServer::bind("127.0.0.1:0").unwrap().grace(Duration::from_millis(300)).close_idle(false);
        let server = server.start(answer).unwrap();
        let clients: Vec<_> = (0..20).map(|_| client(server.local_addr())).collect();
        until("it is put off", || server.counters().backoffs > 0);
        let report = server.drain().unwrap();
        assert!(report.turned_away > 0, "{report:?}");
        let ends = report.finished + report.closed_idle + report.killed + report.stuck + report.turned_away;
        assert_eq!((report.active_at_start + report.from_backlog, ends), (20, 20), "{report:?}");
        drop(clients);
    });
}

#[test]
fn a_udp_server_without_memory_for_a_stack_goes_on_when_there_is_some() {
    case("a_udp_server_without_memory_for_a_stack_goes_on_when_there_is_some", || {
        let answers = Rc::new(Cell::new(0));
        let seen = Rc::clone(&answers);
        limit_memory();
        let server = UdpServer::bind("127.0.0.1:0").unwrap().start(move |_| seen.set(seen.get() + 1)).unwrap();
        yield_now();
        let threads = use_up_memory();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..5 {
            socket.send_to(b"x", server.local_addr()).unwrap();
        }
        until("it is put off", || server.counters().backoffs > 1);
        assert_eq!((answers.get(), server.counters().refused), (0, 0));
        for thread in threads {
            // Its stack comes back when it cannot be joined any more.
            assert!(thread.kill());
        }
        until("all are answered", || answers.get() == 5);
        assert_eq!(server.drain().unwrap().counters.completed, 5);
    });
}

#[test]
fn a_server_says_that_there_is_no_stack_of_such_a_size_and_keeps_no_client_waiting() {
    let _guard = common::guard();
    let told = Rc::new(RefCell::new(Vec::new()));
    let theirs = Rc::clone(&told);
    let server = TcpServer::bind("127.0.0.1:0").unwrap().stack_size(usize::MAX);
    let server = server.on_accept_error(move |error| theirs.borrow_mut().push(error.kind())).start(answer).unwrap();
    let clients = [client(server.local_addr()), client(server.local_addr())];
    until("they are turned away", || server.counters().refused == 2);
    assert_eq!(*told.borrow(), [ErrorKind::InvalidInput; 2]);
    drop((clients, server.drain().unwrap()));
}

/// Uses up all descriptors but `left`.
fn use_up_descriptors(left: usize) -> Vec<File> {
    limit(libc::RLIMIT_NOFILE, 64);
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.truncate(files.len() - left);
    files
}

#[test]
fn without_descriptors_for_a_hub_all_that_has_a_result_returns_it() {
    case("without_descriptors_for_a_hub_all_that_has_a_result_returns_it", || {
        const EMFILE: Option<i32> = Some(libc::EMFILE);
        // Sockets that were made before there is a hub here, and need none for that.
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let (far, _) = tcp.accept().unwrap();
        let (near, far) = (TcpStream::from(near), TcpStream::from(far));
        let tcp = TcpListener::from(tcp);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // None, and one of the two that a hub takes.
        for left in [0, 1] {
            let files = use_up_descriptors(left);
            assert_eq!(errno(Builder::new().spawn(|| ())), EMFILE);
            assert_eq!(errno(hub::try_handle()), EMFILE);
            assert_eq!(errno(hub::set_default_stack_size(LARGE)), EMFILE);
            assert_eq!(errno((&near).read(&mut [0])), EMFILE);
            assert_eq!(errno(copy_bidirectional(&near, &far)), EMFILE);
            assert_eq!(errno(near.read_with(|_| ())), EMFILE);
            assert_eq!(errno(tcp.accept()), EMFILE);
            assert_eq!(errno(udp.recv(&mut [0])), EMFILE);
            assert_eq!(errno("localhost:1".to_socket_addrs().map(drop)), EMFILE);
            assert_eq!(errno(greenling::io::wait_readable(&near)), EMFILE);
            assert_eq!(errno(Hubs::new(1).start(|_| ()).map(drop)), EMFILE);
            assert_eq!(timeout(Duration::from_secs(1), || ()), Err(TimeoutError::NoHub));
            assert!(offload::default_pool().try_run(|| ()).is_err());
            assert!(Command::new("true").output().is_err());
            let listener = tcp.try_clone();
            assert_eq!(listener.is_err(), left == 0);
            drop(listener);
            if left == 0 {
                assert_eq!(errno(Signals::new([SIGUSR1])), EMFILE);
                assert_eq!(errno(fs::read("/proc/self/stat")), EMFILE);
            } else {
                assert!(!fs::read("/proc/self/stat").unwrap().is_empty(), "it needs one, and no hub");
            }
            let panics: [fn(); 5] = [
                || sleep(Duration::from_millis(1)),
                || drop(greenling::thread::current()),
                || scope(|_| ()),
                || drop(hub::handle()),
                park,
            ];
            for call in panics {
                let panic = catch_unwind(call).unwrap_err();
                let text = panic.downcast_ref::<String>().unwrap();
                assert!(text.starts_with("greenling: the hub of this OS thread could not be made: "), "{text}");
            }
            // As on an OS thread without green threads.
            yield_now();
            drop(files);
        }
        let server = TcpServer::new(tcp);
        let files = use_up_descriptors(0);
        assert_eq!(errno(server.start(|_, _| ()).map(drop)), EMFILE);
        assert_eq!(errno(UdpServer::new(udp).run(|_| ())), EMFILE);
        drop(files);
        // And then there is one.
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
    });
}

#[test]
fn without_os_threads_all_that_has_a_result_returns_it() {
    case("without_os_threads_all_that_has_a_result_returns_it", || {
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
        forbid(&[libc::SYS_clone3, libc::SYS_clone], libc::EAGAIN);
        assert_eq!(errno(Hubs::new(2).start(|_| ()).map(drop)), Some(libc::EAGAIN));
        assert_eq!(errno("localhost:1".to_socket_addrs().map(drop)), Some(libc::EAGAIN));
        assert_eq!(errno(TcpStream::connect("host.invalid:1")), Some(libc::EAGAIN));
        let refused = offload::default_pool().try_run(|| ()).unwrap_err();
        assert_eq!(io::Error::from(refused).raw_os_error(), Some(libc::EAGAIN));
        assert!(!fs::read("/proc/self/stat").unwrap().is_empty(), "on the hub's own OS thread");
        let panic = catch_unwind(|| blocking(|| ())).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("cannot run a job on another OS thread") && text.contains("no OS thread"), "{text}");
    });
}

/// Ends a process by a wait of its hub in which epoll_wait fails with `errno`.
fn ended_by(name: &str, errno: libc::c_int) -> Output {
    let output = common::child(name, || {
        assert_eq!(spawn(|| 5).join().unwrap(), 5);
        // There is no epoll_wait proper on the other processor.
        #[cfg(target_arch = "x86_64")]
        forbid(&[libc::SYS_epoll_wait], errno);
        forbid(&[libc::SYS_epoll_pwait2, libc::SYS_epoll_pwait], errno);
        sleep(Duration::from_millis(1));
    });
    assert!(!output.status.success());
    output
}

#[test]
fn a_wait_that_fails_for_want_of_memory_is_tried_again_and_then_says_so() {
    let output = ended_by("a_wait_that_fails_for_want_of_memory_is_tried_again_and_then_says_so", libc::ENOMEM);
    let text = common::stderr(&output);
    assert!(text.contains("epoll_wait failed, the hub cannot go on: Cannot allocate memory"), "{text}");
}

#[test]
fn a_hub_without_its_descriptor_says_so() {
    let output = ended_by("a_hub_without_its_descriptor_says_so", libc::EBADF);
    let text = common::stderr(&output);
    assert!(text.contains("the hub's descriptor was closed, or names another file now: Bad file"), "{text}");
}
