//! Readiness of any descriptor: the answer is right whatever others do with the file, and a wait leaves nothing behind.

mod net_support;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use greenling::io::{Registered, wait_readable, wait_writable};
use greenling::{TimeoutError, hub, no_switch, sleep, spawn, timeout};
use net_support::{bounded, settle, with_std_peer};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// Held by each test; by those that count what the process has open, alone.
static QUIET: RwLock<()> = RwLock::new(());

/// Runs a test beside others, in an OS thread of its own: what its hub has open is closed when it has ended.
fn beside(test: fn()) {
    let _others = QUIET.read().unwrap_or_else(PoisonError::into_inner);
    bounded(|| std::thread::spawn(test).join().unwrap());
}

/// Runs a test alone.
fn alone(test: fn()) {
    let _alone = QUIET.write().unwrap_or_else(PoisonError::into_inner);
    bounded(|| std::thread::spawn(test).join().unwrap());
}

/// A pipe of std's, blocking, with the reading end registered.
fn pipe() -> (Registered<PipeReader>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Registered::new(reader).unwrap(), writer)
}

/// Descriptors of this process.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn readable_waits_for_data_and_is_true_when_it_returns() {
    beside(|| {
        let (reader, mut writer) = pipe();
        let reader = Rc::new(reader);
        let rounds = Rc::new(Cell::new(0));
        let thread = {
            let (reader, rounds) = (Rc::clone(&reader), Rc::clone(&rounds));
            spawn(move || {
                for round in 0..5 {
                    reader.readable().unwrap();
                    // It blocks the OS thread if it is not true.
                    let mut byte = [0];
                    reader.get_ref().read_exact(&mut byte).unwrap();
                    assert_eq!(byte[0], round);
                    rounds.set(rounds.get() + 1);
                }
            })
        };
        for round in 0..5 {
            settle();
            assert_eq!(rounds.get(), round, "it waits");
            writer.write_all(&[round]).unwrap();
        }
        timeout(LONG, || thread.join().unwrap()).unwrap();
    });
}

#[test]
fn writable_waits_for_room() {
    beside(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = Registered::new(writer).unwrap();
        let mut filled = 0;
        while writer.writable_timeout(Duration::ZERO).unwrap() {
            filled += writer.get_ref().write(&[0; 4096]).unwrap();
        }
        assert!(filled >= 4096);
        let thread = spawn(move || {
            writer.writable().unwrap();
            writer.get_ref().write(b"x").unwrap()
        });
        settle();
        assert!(!thread.is_finished());
        reader.read_exact(&mut vec![0; filled]).unwrap();
        assert_eq!(timeout(LONG, || thread.join().unwrap()).unwrap(), 1);
    });
}

#[test]
fn ends_and_errors_are_ready() {
    beside(|| {
        let (reader, writer) = pipe();
        let waiter = spawn(move || {
            reader.readable().unwrap();
            reader.get_ref().read(&mut [0; 8]).unwrap()
        });
        settle();
        drop(writer);
        assert_eq!(waiter.join().unwrap(), 0);

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let writer = Registered::new(writer).unwrap();
        writer.writable().unwrap();
        assert_eq!(writer.get_ref().write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn files_that_epoll_refuses_are_always_ready() {
    beside(|| {
        let folder = File::open("/").unwrap();
        let program = File::open("/proc/self/exe").unwrap();
        for file in [folder, program] {
            wait_readable(&file).unwrap();
            wait_writable(&file).unwrap();
            let file = Registered::new(file).unwrap();
            assert!(file.readable_timeout(Duration::ZERO).unwrap());
            file.writable().unwrap();
        }
        // Also where nothing may wait.
        no_switch(|| wait_readable(File::open("/dev/null").unwrap())).unwrap();
    });
}

#[test]
fn the_descriptor_keeps_its_mode() {
    let _others = QUIET.read().unwrap_or_else(PoisonError::into_inner);
    let (reader, _writer) = pipe();
    assert!(!reader.readable_timeout(Duration::from_micros(1)).unwrap());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", reader.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_eq!(u32::from_str_radix(flags, 8).unwrap() & libc::O_NONBLOCK as u32, 0);
}

#[test]
fn reads_and_writes_of_a_blocking_pipe_let_others_run() {
    beside(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let (mut reader, mut writer) = (Registered::new(reader).unwrap(), Registered::new(writer).unwrap());
        // More than the pipe has room for, in one call of write_all: both ends on one OS thread.
        let sender = spawn(move || writer.write_all(&vec![3; 1 << 20]).unwrap());
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, vec![3; 1 << 20]);
        sender.join().unwrap();

        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (Registered::new(near).unwrap(), Registered::new(far).unwrap());
        let echo = spawn(move || std::io::copy(&mut &far, &mut &far).unwrap());
        (&near).write_all(b"echo").unwrap();
        let mut buf = [0; 4];
        (&near).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"echo");
        near.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(echo.join().unwrap(), 4);
    });
}

/// epoll knows an open file by its number: two registrations under one number would steal from each other.
#[test]
fn several_watchers_of_one_descriptor_do_not_disturb_each_other() {
    beside(|| {
        let (mut stream, mut peer) = with_std_peer();
        stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "this registers the stream itself");
        stream.set_read_timeout(None).unwrap();
        let stream = Rc::new(stream);
        let watcher = Registered::new(Rc::clone(&stream)).unwrap();
        let waiters = [
            {
                let stream = Rc::clone(&stream);
                spawn(move || wait_readable(&*stream).unwrap())
            },
            spawn(move || watcher.readable().unwrap()),
            {
                let stream = Rc::clone(&stream);
                spawn(move || assert_eq!(stream.peek(&mut [0]).unwrap(), 1))
            },
        ];
        settle();
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        peer.write_all(b"x").unwrap();
        for waiter in waiters {
            timeout(LONG, || waiter.join().unwrap()).unwrap();
        }
        // And the stream's own registration is still there.
        assert_eq!((&*stream).read(&mut [0; 8]).unwrap(), 1);
        let reader = spawn(move || (&*stream).read(&mut [0; 8]).unwrap());
        settle();
        peer.write_all(b"again").unwrap();
        assert_eq!(timeout(LONG, || reader.join().unwrap()).unwrap(), 5);
    });
}

/// Names another descriptor after the first time it is asked.
struct Fickle(Cell<bool>, PipeReader, File);

impl AsFd for Fickle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.0.replace(true) { self.2.as_fd() } else { self.1.as_fd() }
    }
}

#[test]
fn an_owner_that_changes_its_descriptor_disturbs_no_waiter() {
    alone(|| {
        settle(); // the hub's own descriptors are there
        let (reader, mut writer) = std::io::pipe().unwrap();
        let before = open_files();
        let fickle = Registered::new(Fickle(Cell::new(false), reader, File::open("/dev/null").unwrap())).unwrap();
        assert!(!fickle.readable_timeout(Duration::from_micros(1)).unwrap());
        writer.write_all(b"x").unwrap();
        fickle.readable().unwrap();
        drop(fickle);
        assert_eq!(open_files(), before - 1, "the reading end is gone, and so are the duplicate and /dev/null");
    });
}

#[test]
fn what_was_taken_back_or_dropped_is_watched_no_more() {
    alone(|| {
        let (reader, mut writer) = pipe();
        let number = reader.as_raw_fd();
        assert!(!reader.readable_timeout(Duration::from_micros(1)).unwrap());
        let before = open_files();
        let mut reader = reader.into_inner();
        assert_eq!((reader.as_raw_fd(), open_files()), (number, before - 1), "the duplicate is closed");
        writer.write_all(b"x").unwrap();
        settle();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
        let before = open_files();
        for _ in 0..50 {
            let waited = timeout(Duration::from_micros(200), || wait_readable(&reader));
            assert!(waited.is_err());
        }
        assert_eq!(open_files(), before);
    });
}

#[test]
fn waiters_are_woken_in_order_and_one_for_each_byte() {
    beside(|| {
        let (reader, mut writer) = pipe();
        let reader = Rc::new(reader);
        let log = Rc::new(RefCell::new(Vec::new()));
        let readers: Vec<_> = (0..10_u8)
            .map(|number| {
                let (reader, log) = (Rc::clone(&reader), Rc::clone(&log));
                spawn(move || {
                    let mut byte = [0];
                    assert_eq!((&*reader).read(&mut byte).unwrap(), 1);
                    log.borrow_mut().push((number, byte[0]));
                })
            })
            .collect();
        settle();
        for number in 0..5 {
            writer.write_all(&[number]).unwrap();
            settle();
            assert_eq!(log.borrow().len(), usize::from(number) + 1);
        }
        writer.write_all(&[5, 6, 7, 8, 9]).unwrap();
        for reader in readers {
            timeout(LONG, || reader.join().unwrap()).unwrap();
        }
        assert!(log.borrow().iter().copied().eq((0..10).map(|n| (n, n))), "{:?}", log.borrow());
    });
}

#[test]
fn an_operation_may_wait_for_other_things() {
    beside(|| {
        let (first, mut first_writer) = pipe();
        let (second, mut second_writer) = pipe();
        let thread = spawn(move || {
            first.read_with(|mut first| {
                let mut buf = [0; 2];
                sleep(Duration::from_millis(1));
                second.read_with(|mut second| second.read(&mut buf[1..]))?;
                first.read_exact(&mut buf[..1])?;
                Ok(buf)
            })
        });
        settle();
        first_writer.write_all(b"a").unwrap();
        settle();
        second_writer.write_all(b"b").unwrap();
        assert_eq!(timeout(LONG, || thread.join().unwrap()).unwrap().unwrap(), *b"ab");
    });
}

/// A Unix datagram socket can be written, says poll, and the receiver that is named has no room, says the call.
#[test]
fn an_operation_that_would_block_although_it_is_ready_does_not_spin() {
    beside(|| {
        let path = std::env::temp_dir().join(format!("greenling-ready-{}.sock", std::process::id()));
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sender.send_to(b"fill", &path).is_ok() {
            sent += 1;
        }
        let sender = Registered::new(sender).unwrap();
        let tries = Rc::new(Cell::new(0));
        let thread = {
            let (tries, path) = (Rc::clone(&tries), path.clone());
            spawn(move || {
                sender.write_with(|socket| {
                    tries.set(tries.get() + 1);
                    socket.send_to(b"last", &path)
                })
            })
        };
        sleep(Duration::from_millis(50));
        assert!(!thread.is_finished());
        assert!((2..50).contains(&tries.get()), "{} tries", tries.get());
        for _ in 0..sent {
            receiver.recv(&mut [0; 8]).unwrap();
        }
        assert_eq!(timeout(LONG, || thread.join().unwrap()).unwrap().unwrap(), 4);
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn timeouts_kills_and_no_switch_end_the_wait() {
    beside(|| {
        let (reader, _writer) = pipe();
        let began = Instant::now();
        assert!(!reader.readable_timeout(SHORT).unwrap());
        assert!(began.elapsed() >= SHORT);
        assert_eq!(timeout(SHORT, || reader.readable().map(drop)).unwrap_err(), TimeoutError::Elapsed);
        let reader = Rc::new(reader);
        let victim = {
            let reader = Rc::clone(&reader);
            spawn(move || reader.readable().unwrap())
        };
        settle();
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        assert_eq!(hub::live_threads(), 0);
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| no_switch(|| drop(reader.readable()))));
        assert!(refused.is_err());
    });
}

#[test]
fn while_unwinding_only_a_wait_is_an_error() {
    beside(|| {
        struct Tries(Registered<PipeReader>, PipeWriter, Rc<RefCell<Vec<Result<(), ErrorKind>>>>);
        impl Drop for Tries {
            fn drop(&mut self) {
                let note = |result: std::io::Result<()>| {
                    self.2.borrow_mut().push(result.map_err(|error| error.kind()));
                };
                note(self.0.readable());
                note(self.0.read_with(|_| Ok(())));
                self.1.write_all(b"x").unwrap();
                note(self.0.readable());
                note((&self.0).read(&mut [0]).map(drop));
            }
        }
        let (reader, writer) = pipe();
        let results = Rc::new(RefCell::new(Vec::new()));
        let tries = Tries(reader, writer, Rc::clone(&results));
        let victim = spawn(move || {
            let _tries = tries;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().unwrap_err().is_panic());
        let refused = Err(ErrorKind::Other);
        assert_eq!(*results.borrow(), [refused, refused, Ok(()), Ok(())]);
    });
}
