//! Copies between sockets and from files: every byte once, in order, whatever is slow, fails or is killed in between.

mod net_support;

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::rc::Rc;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use greenling::io::{copy, pipe};
use greenling::net::{Shutdown, TcpStream, copy_bidirectional};
use greenling::offload::default_pool;
use greenling::os::unix::net::UnixStream;
use greenling::process::{Command, Stdio};
use greenling::thread::Builder;
use greenling::{TimeoutError, hub, select, sleep, spawn, timeout};
use net_support::{bounded, pair, pattern, reset, settle, with_std_peer};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// Enough for many pieces of a pipe.
const LARGE: usize = if cfg!(debug_assertions) { 24 << 20 } else { 256 << 20 };

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

/// The pipes that this process has open, by their numbers.
fn pipes() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// A new file with this content, standing at its beginning.
fn file(content: &[u8]) -> File {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("greenling-copy-{}-{number}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// Sends the pattern through `copy` from `from`'s other end to `to`'s, and checks what arrives.
fn carries<A, B, C, D>(mut source: A, mut from: B, mut to: C, mut sink: D, len: usize, slow: bool)
where
    A: Write + 'static,
    B: Read + 'static,
    C: Write + 'static,
    D: Read,
{
    let sender = spawn(move || {
        let block = pattern(0, 251 * 512);
        let mut left = len;
        while left > 0 {
            let n = left.min(block.len());
            source.write_all(&block[..n]).unwrap();
            left -= n;
        }
    });
    // So much is there at once that the first read is a large one.
    settle();
    let copier = spawn(move || copy(&mut from, &mut to).unwrap());
    let expected = pattern(0, 251 + 70_000);
    let (mut buf, mut at, mut reads) = (vec![0; 70_000], 0, 0);
    loop {
        let n = sink.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        assert!(buf[..n] == expected[at % 251..][..n], "at byte {at}");
        at += n;
        reads += 1;
        if slow && reads % 20 == 0 {
            sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(at, len);
    sender.join().unwrap();
    assert_eq!(copier.join().unwrap(), len as u64);
}

#[test]
fn large_transfers_go_through_a_pipe_and_arrive_whole() {
    alone(|| {
        let before = pipes();
        let ((source, from), (to, sink)) = (pair(), pair());
        carries(source, from, to, sink, LARGE, false);
        assert!(pipes() >= before + 2, "the pool keeps the pipe, so one was used");
    });
}

#[test]
fn a_slow_sink_loses_nothing() {
    beside(|| {
        let ((source, from), (to, sink)) = (pair(), pair());
        carries(source, from, to, sink, LARGE, true);
    });
}

#[test]
fn all_pairs_of_stream_sockets_carry_alike() {
    beside(|| {
        let unix = || UnixStream::pair().unwrap();
        let len = LARGE / 8 + 1;
        let ((source, from), (to, sink)) = (pair(), unix());
        carries(source, from, to, sink, len, false);
        let ((source, from), (to, sink)) = (unix(), pair());
        carries(source, from, to, sink, len, false);
        let ((source, from), (to, sink)) = (unix(), unix());
        carries(source, from, to, sink, len, true);
    });
}

/// Pipes on either side, or both.
#[test]
fn pipes_carry_as_sockets_do() {
    alone(|| {
        let len = LARGE / 8 + 1;
        let before = pipes();
        let ((from, source), (to, sink)) = (pipe().unwrap(), pair());
        carries(source, from, to, sink, len, false);
        assert!(pipes() >= before + 2, "the pool keeps the pipe, so one was used");
        let ((source, from), (sink, to)) = (pair(), pipe().unwrap());
        carries(source, from, to, sink, len, true);
        let ((from, source), (sink, to)) = (pipe().unwrap(), pipe().unwrap());
        carries(source, from, to, sink, len, true);
    });
}

#[test]
fn the_input_of_a_child_is_spliced_and_can_be_an_arm() {
    alone(|| {
        let content = pattern(0, 4 << 20);
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        assert!(select! { writable(input) -> ready => ready.is_ok(), after(LONG) => false });
        let (mut source, from) = pair();
        let before = pipes();
        let sender = spawn(move || source.write_all(&content).unwrap());
        settle();
        assert_eq!(copy(&mut &from, &mut input).unwrap(), 4 << 20);
        sender.join().unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        assert!(pipes() > before, "one end is closed, and the pool keeps the pipe that was used");
    });
}

#[test]
fn the_output_of_a_child_is_spliced_and_can_be_an_arm() {
    alone(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "read go; head -c 4194304 /dev/zero"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        assert!(!select! { readable(output) -> _ => true, after(SHORT) => false }, "it waits for a word");
        let (to, mut sink) = pair();
        let before = pipes();
        drop(input);
        let sender = spawn(move || copy(&mut output, &mut &to).unwrap());
        let mut got = Vec::new();
        sink.read_to_end(&mut got).unwrap();
        assert!(got.len() == 4 << 20 && got.iter().all(|byte| *byte == 0));
        assert_eq!(sender.join().unwrap(), 4 << 20);
        assert!(child.wait().unwrap().success());
        assert_eq!(pipes(), before, "two ends are closed, and the pool keeps the pipe that was used");
    });
}

#[test]
fn the_end_and_the_errors_of_a_pipe_are_those_of_std() {
    beside(|| {
        let ((mut from, source), (sink, mut to)) = (pipe().unwrap(), pipe().unwrap());
        drop(source);
        assert_eq!(copy(&mut from, &mut to).unwrap(), 0);
        drop(sink);
        let (mut from, mut source) = pipe().unwrap();
        source.write_all(b"never read").unwrap();
        assert_eq!(copy(&mut from, &mut to).unwrap_err().kind(), ErrorKind::BrokenPipe);
        let stuck = timeout(SHORT, || copy(&mut from, &mut to));
        assert_eq!(stuck.map(drop), Err(TimeoutError::Elapsed), "a writer is there");
        drop(source);
    });
}

#[test]
fn readers_with_a_buffer_of_their_own_lose_nothing() {
    beside(|| {
        let ((source, from), (to, sink)) = (pair(), pair());
        carries(source, BufReader::new(from), to, sink, LARGE / 16, false);
    });
}

#[test]
fn small_messages_are_passed_on_at_once() {
    beside(|| {
        let ((mut source, from), (to, mut sink)) = (pair(), pair());
        let copier = spawn(move || copy(&mut &from, &mut &to).unwrap());
        for round in 0..200_usize {
            let message = pattern(round, 1 + 37 * (round % 7));
            source.write_all(&message).unwrap();
            let mut back = vec![0; message.len()];
            timeout(LONG, || sink.read_exact(&mut back)).unwrap().unwrap();
            assert_eq!(back, message);
        }
        // A large one in between, and small ones again.
        let large = pattern(5, 3 << 20);
        let expected = large.clone();
        let sender = spawn(move || {
            source.write_all(&large).unwrap();
            source
        });
        let mut back = vec![0; expected.len()];
        sink.read_exact(&mut back).unwrap();
        assert!(back == expected);
        let mut source = sender.join().unwrap();
        source.write_all(b"small").unwrap();
        timeout(LONG, || sink.read_exact(&mut back[..5])).unwrap().unwrap();
        assert_eq!(&back[..5], b"small");
        drop(source);
        copier.join().unwrap();
    });
}

#[test]
fn a_copy_ends_with_its_reader_and_leaves_both_open() {
    beside(|| {
        let ((source, from), (to, mut sink)) = (pair(), pair());
        drop(source);
        assert_eq!(copy(&mut &from, &mut &to).unwrap(), 0);
        (&to).write_all(b"still").unwrap();
        let mut buf = [0; 5];
        sink.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"still");
    });
}

#[test]
fn everything_else_is_copied_as_by_std() {
    let mut out = Vec::new();
    assert_eq!(copy(&mut Cursor::new(pattern(0, 100_000)), &mut out).unwrap(), 100_000);
    assert_eq!(out, pattern(0, 100_000));
    let mut reader: Box<dyn Read> = Box::new(b"dynamic".as_slice());
    let mut text = Vec::new();
    let writer: &mut dyn Write = &mut text;
    assert_eq!(copy(&mut *reader, writer).unwrap(), 7);
    assert_eq!(text, b"dynamic");
    assert_eq!(copy(&mut std::io::empty(), &mut std::io::sink()).unwrap(), 0);
}

// ---- files ----------------------------------------------------------------------------------------------------------

#[test]
fn a_file_is_sent_from_where_it_stands_to_its_end() {
    beside(|| {
        let content = pattern(0, 5 << 20);
        for start in [0, 1, 4097, content.len() - 1, content.len(), content.len() + 10] {
            let mut file = file(&content);
            file.seek(SeekFrom::Start(start as u64)).unwrap();
            let (to, mut sink) = pair();
            let sender = spawn(move || {
                let sent = copy(&mut &file, &mut &to).unwrap();
                (sent, file.stream_position().unwrap())
            });
            let mut got = Vec::new();
            sink.read_to_end(&mut got).unwrap();
            let rest = &content[start.min(content.len())..];
            assert!(got == rest, "from {start}");
            assert_eq!(sender.join().unwrap(), (rest.len() as u64, start.max(content.len()) as u64));
        }
    });
}

#[test]
fn a_file_goes_into_a_pipe() {
    beside(|| {
        let content = pattern(0, 1 << 20);
        let (mut from, (mut sink, to)) = (file(&content), pipe().unwrap());
        let sender = spawn(move || copy(&mut from, &mut &to).unwrap());
        let mut got = Vec::new();
        sink.read_to_end(&mut got).unwrap();
        assert!(got == content);
        assert_eq!(sender.join().unwrap(), content.len() as u64);
    });
}

/// A job for each 8 KiB, as std's `copy` would have it, would be a thousand for this file.
#[test]
fn green_files_are_copied_in_large_pieces() {
    alone(|| {
        let content = pattern(0, 8 << 20);
        let green = |content: &[u8]| greenling::fs::File::from(file(content));
        let jobs = || default_pool().stats().completed;
        let before = jobs();
        let (mut from, (to, mut sink)) = (green(&content), pair());
        let sender = spawn(move || copy(&mut from, &mut &to).unwrap());
        let mut got = Vec::new();
        sink.read_to_end(&mut got).unwrap();
        assert!(got == content && sender.join().unwrap() == content.len() as u64);
        assert!(jobs() - before <= 40, "{} jobs", jobs() - before);
        // From file to file, from where the one stands to where the other does.
        let before = jobs();
        let (mut from, mut to) = (green(&content), green(b"0123"));
        from.seek(SeekFrom::Start(100)).unwrap();
        to.seek(SeekFrom::Start(2)).unwrap();
        assert_eq!(copy(&mut from, &mut &to).unwrap(), content.len() as u64 - 100);
        assert!(jobs() - before <= 8, "{} jobs", jobs() - before);
        to.rewind().unwrap();
        let mut got = Vec::new();
        to.read_to_end(&mut got).unwrap();
        assert!(got[..2] == *b"01" && got[2..] == content[100..]);
        // And from a socket into a file.
        let ((mut source, from), mut to) = (pair(), green(b""));
        let theirs = content.clone();
        let sender = spawn(move || source.write_all(&theirs).unwrap());
        assert_eq!(copy(&mut &from, &mut to).unwrap(), content.len() as u64);
        sender.join().unwrap();
        to.rewind().unwrap();
        let mut got = Vec::new();
        to.read_to_end(&mut got).unwrap();
        assert!(got == content);
        assert!(copy(&mut greenling::fs::File::open("/").unwrap(), &mut to).is_err(), "a directory");
    });
}

/// The kernel says EINVAL of such a file.
#[test]
fn a_file_that_has_no_pages_is_read_and_written() {
    beside(|| {
        for path in ["/proc/self/environ", "/proc/self/cmdline", "/proc/self/status"] {
            let (to, mut sink) = pair();
            let sender = spawn(move || copy(&mut File::open(path).unwrap(), &mut &to).unwrap());
            let mut got = Vec::new();
            sink.read_to_end(&mut got).unwrap();
            assert_eq!(sender.join().unwrap(), got.len() as u64);
            if path != "/proc/self/status" {
                assert!(got == std::fs::read(path).unwrap(), "{path}");
            }
        }
    });
}

#[test]
fn files_that_cannot_be_read_fail_as_with_std() {
    let _others = QUIET.read().unwrap_or_else(PoisonError::into_inner);
    let (to, _sink) = pair();
    let (ours, theirs) =
        (copy(&mut File::open("/").unwrap(), &mut &to), std::io::copy(&mut File::open("/").unwrap(), &mut &to));
    assert_eq!(ours.unwrap_err().raw_os_error(), theirs.unwrap_err().raw_os_error());
    let path = std::env::temp_dir().join(format!("greenling-writeonly-{}", std::process::id()));
    let mut write_only = File::create(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let (ours, theirs) = (copy(&mut write_only, &mut &to), std::io::copy(&mut &write_only, &mut &to));
    assert_eq!(ours.unwrap_err().raw_os_error(), theirs.unwrap_err().raw_os_error());
}

/// A `File` of a pipe is read as std does it, and not handed to `sendfile`.
#[test]
fn a_file_that_is_no_file_is_copied_as_by_std() {
    beside(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"through a pipe").unwrap();
        drop(writer);
        let (to, mut sink) = pair();
        let mut file = File::from(std::os::fd::OwnedFd::from(reader));
        assert_eq!(copy(&mut file, &mut &to).unwrap(), 14);
        drop(to);
        let mut text = String::new();
        sink.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through a pipe");
    });
}

// ---- errors and kills -----------------------------------------------------------------------------------------------

/// A copy that is under way through a pipe and cannot go on: no reader is at its other side.
fn stuck() -> (greenling::thread::JoinHandle<std::io::Result<u64>>, greenling::thread::JoinHandle<()>, TcpStream) {
    let ((mut source, from), (to, sink)) = (pair(), pair());
    let sender = spawn(move || drop(source.write_all(&vec![7; 64 << 20])));
    settle();
    let copier = Builder::new().name("copier".into()).spawn(move || copy(&mut &from, &mut &to)).unwrap();
    // The copy writes until there is no room; on a busy machine it may wait for more to read before that.
    let mut seen = 0;
    while seen < 10 {
        let writes = hub::report().lines().any(|line| line.contains("copier") && line.contains("can be written"));
        seen = if writes { seen + 1 } else { 0 };
        settle();
    }
    assert!(!copier.is_finished() && !sender.is_finished());
    (copier, sender, sink)
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_in_the_pool() {
    alone(|| {
        let before = pipes();
        let (copier, sender, _sink) = stuck();
        assert_eq!(pipes(), before + 2, "it is under way through a pipe");
        copier.kill();
        assert!(copier.join().unwrap_err().is_killed());
        sender.join().unwrap();
        assert_eq!(pipes(), before, "a pipe with bytes inside is closed");
        // The next one gets its own bytes only.
        let ((source, from), (to, sink)) = (pair(), pair());
        carries(source, from, to, sink, 4 << 20, false);
        assert_eq!(hub::live_threads(), 0);
    });
}

#[test]
fn an_outer_timeout_and_one_of_the_stream_end_a_copy() {
    beside(|| {
        let (from, _peer) = with_std_peer();
        let (to, _sink) = pair();
        let outer = timeout(SHORT, || copy(&mut &from, &mut &to).map(drop));
        assert_eq!(outer.unwrap_err(), TimeoutError::Elapsed);
        from.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(copy(&mut &from, &mut &to).unwrap_err().kind(), ErrorKind::WouldBlock);
        // While the bytes wait in the pipe.
        let ((source, from), (to, _sink)) = (pair(), pair());
        let sender = spawn(move || drop((&source).write_all(&vec![7; 64 << 20])));
        to.set_write_timeout(Some(5 * SHORT)).unwrap();
        assert_eq!(copy(&mut &from, &mut &to).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(from);
        sender.join().unwrap();
    });
}

#[test]
fn errors_of_both_ends_come_out() {
    beside(|| {
        // The reader's peer resets, idle and under way.
        for bytes in [0, 1 << 20] {
            let (from, mut peer) = with_std_peer();
            let (to, mut sink) = pair();
            let drain = spawn(move || drop(std::io::copy(&mut sink, &mut std::io::sink())));
            let copier = spawn(move || copy(&mut &from, &mut &to).unwrap_err().kind());
            settle();
            let writer = std::thread::spawn(move || {
                peer.write_all(&vec![1; bytes]).unwrap();
                peer
            });
            while !writer.is_finished() {
                sleep(Duration::from_millis(1));
            }
            reset(writer.join().unwrap());
            assert_eq!(copier.join().unwrap(), ErrorKind::ConnectionReset);
            drain.join().unwrap();
        }
        // The writer's peer is gone.
        let (copier, sender, sink) = stuck();
        drop(sink);
        let error = copier.join().unwrap().unwrap_err().kind();
        assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        sender.join().unwrap();
    });
}

#[test]
fn while_unwinding_a_copy_that_would_wait_is_an_error() {
    beside(|| {
        struct Tries(TcpStream, TcpStream, Rc<Cell<Option<ErrorKind>>>);
        impl Drop for Tries {
            fn drop(&mut self) {
                self.2.set(Some(copy(&mut &self.0, &mut &self.1).unwrap_err().kind()));
                assert!(copy_bidirectional(&self.0, &self.1).is_err());
            }
        }
        let (from, _peer) = with_std_peer();
        let (to, _sink) = pair();
        let kind = Rc::new(Cell::new(None));
        let tries = Tries(from, to, Rc::clone(&kind));
        let victim = spawn(move || {
            let _tries = tries;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().unwrap_err().is_panic());
        assert_eq!(kind.get(), Some(ErrorKind::Other));
    });
}

// ---- both directions ------------------------------------------------------------------------------------------------

/// A proxy between a client and a backend, in a green thread.
fn proxied() -> (TcpStream, greenling::thread::JoinHandle<std::io::Result<(u64, u64)>>, UnixStream) {
    let (client, a) = pair();
    let (b, backend) = UnixStream::pair().unwrap();
    (client, spawn(move || copy_bidirectional(&a, &b)), backend)
}

#[test]
fn each_direction_ends_by_itself() {
    beside(|| {
        let (mut client, proxy, mut backend) = proxied();
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut request = String::new();
        backend.read_to_string(&mut request).unwrap();
        assert_eq!(request, "request");
        settle();
        assert!(!proxy.is_finished(), "the answer is still to come");
        backend.write_all(b"the answer").unwrap();
        drop(backend);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "the answer");
        assert_eq!(proxy.join().unwrap().unwrap(), (7, 10));
    });
}

#[test]
fn both_directions_are_carried_at_once() {
    beside(|| {
        const LEN: usize = 6 << 20;
        let (client, proxy, backend) = proxied();
        let (client, backend) = (Rc::new(client), Rc::new(backend));
        let writers = [
            {
                let client = Rc::clone(&client);
                spawn(move || {
                    (&*client).write_all(&pattern(1, LEN)).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                })
            },
            {
                let backend = Rc::clone(&backend);
                spawn(move || {
                    (&*backend).write_all(&pattern(2, LEN)).unwrap();
                    backend.shutdown(Shutdown::Write).unwrap();
                })
            },
        ];
        let reader = spawn(move || {
            let mut got = Vec::new();
            (&*backend).read_to_end(&mut got).unwrap();
            assert!(got == pattern(1, LEN));
        });
        let mut got = Vec::new();
        (&*client).read_to_end(&mut got).unwrap();
        assert!(got == pattern(2, LEN));
        for thread in writers.into_iter().chain([reader]) {
            thread.join().unwrap();
        }
        assert_eq!(proxy.join().unwrap().unwrap(), (LEN as u64, LEN as u64));
    });
}

#[test]
fn an_error_in_one_direction_ends_both() {
    beside(|| {
        let (a, peer) = with_std_peer();
        let (b, mut backend) = UnixStream::pair().unwrap();
        let proxy = spawn(move || copy_bidirectional(&a, &b).unwrap_err().kind());
        settle();
        reset(peer);
        assert_eq!(timeout(LONG, || proxy.join().unwrap()).unwrap(), ErrorKind::ConnectionReset);
        assert_eq!(backend.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_killed_proxy_leaves_no_thread_behind() {
    beside(|| {
        let (mut client, proxy, _backend) = proxied();
        settle();
        assert_eq!(hub::live_threads(), 2);
        proxy.kill();
        assert!(proxy.join().unwrap_err().is_killed());
        assert_eq!(hub::live_threads(), 0);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "its streams are dropped");
    });
}
