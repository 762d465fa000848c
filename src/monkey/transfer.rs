//! sendfile, splice and tee: bytes that go from one descriptor to another in the kernel. `std::io::copy` asks splice between
//! pipes and sockets, and sendfile from some files.
//!
//! Each has two sides, and may wait for either: for bytes at one, for room at the other. Neither can be told not to wait
//! (SPLICE_F_NONBLOCK is for pipes alone), so both sides are asked first, and the call is made when both are ready:
//!
//! ```text
//!   a side is not ready -- the kernel would not wait for it (O_NONBLOCK, ..) --> the plain call, for the kernel's answer
//!      |                \- it would --> the hub waits for it, for as long as SO_RCVTIMEO or SO_SNDTIMEO allow
//!   both are ready --> the call, without waiting for pipes
//!      |  EAGAIN: somebody else was quicker --> once more
//!      |  to a stream socket: a piece that has room for sure; then once more, until all is there or no more comes
//!   return
//! ```
//!
//! That a stream socket is ready says that a third of its buffer is free at least (a Unix one's: three quarters), and the
//! kernel lets a call wait only when all of it is used. So a piece is a quarter of the buffer.
//!
//! What the kernel refuses it must be asked before anything is waited for. What is not a pair of sides that can be
//! spliced, open for that direction, goes to the kernel as it is.
//!
//! Invariant M1 holds here as in `stream.rs`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};

use super::gate::{Green, blocking, entry, finish, green, part, pass};
use super::stream::{Way, check};
use crate::sys::raw::{
    self, Answer, EAGAIN, Kind, O_ACCMODE, O_APPEND, O_NONBLOCK, O_RDONLY, O_WRONLY, SOCK_STREAM, SPLICE_F_NONBLOCK,
    off_t,
};

/// The least piece, for sockets with next to no buffer.
const LEAST: usize = 1024;

/// The flags of splice that there are.
const KNOWN: c_uint = 0xf;

/// What a descriptor is, as far as a transfer is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// A pipe, by which one.
    Pipe((u64, u64)),
    /// A stream socket.
    Stream,
    /// Another socket: what goes in at once comes out at once.
    Packets,
    /// A file on a disk, or a directory: always ready.
    Disk,
    /// A terminal or another device.
    Device,
}

/// One end of a transfer.
#[derive(Clone, Copy)]
struct End {
    /// Its number.
    fd: c_int,
    /// Which way bytes go through it.
    way: Way,
    /// What it is.
    side: Side,
    /// The kernel would wait for it.
    waits: bool,
    /// Until when, from the first wait on.
    deadline: Option<u64>,
}

impl End {
    /// The end `fd`; none if it is not open for this way, or is of a kind that is not spliced.
    fn of(fd: c_int, way: Way) -> Option<End> {
        let flags = raw::file_flags(fd).ok()?;
        let wrong = if way == Way::In { O_WRONLY } else { O_RDONLY };
        if flags & O_ACCMODE == wrong || way == Way::Out && flags & O_APPEND != 0 {
            return None;
        }
        let side = match (raw::socket_type(fd), raw::pipe_of(fd)) {
            (Ok(_), _) if raw::is_listener(fd) => return None,
            (Ok(SOCK_STREAM), _) => Side::Stream,
            (Ok(_), _) => Side::Packets,
            (Err(_), Some((device, inode))) => Side::Pipe((device, inode)),
            (Err(_), None) => match raw::kind(fd) {
                Kind::Disk => Side::Disk,
                Kind::Device => Side::Device,
                // The kernel's own descriptors cannot be spliced.
                Kind::Pipe => return None,
            },
        };
        Some(End { fd, way, side, waits: flags & O_NONBLOCK == 0, deadline: None })
    }

    /// Whether it is a pipe.
    fn is_pipe(&self) -> bool {
        matches!(self.side, Side::Pipe(_))
    }

    /// Whether bytes, or room for them, are there now; also what is at its end is ready, and so is a number that is not
    /// open, for the kernel to say so.
    fn is_ready(&self) -> bool {
        self.side == Side::Disk || raw::ready_now(self.fd, self.way.poll_bits()) != Ok(0)
    }

    /// Lets others run until it may be ready.
    ///
    /// # Errors
    /// EAGAIN when the socket's time is over; ECANCELED and the like.
    fn wait(&mut self, green: Green) -> Result<(), i32> {
        let (fd, way) = (self.fd, self.way);
        let deadline = *self.deadline.get_or_insert_with(|| way.deadline(fd));
        check(deadline)?;
        blocking(|| green.wait(fd, way.interest(), way.reason(fd), deadline))?
    }
}

/// Moves up to `len` bytes between two ends by `call`, which is told how many at most and returns how many it moved.
fn transfer(green: Green, mut from: End, mut to: End, len: usize, mut call: impl FnMut(usize) -> Answer) -> Answer {
    let goes_on = to.side == Side::Stream;
    let most = if goes_on { (raw::send_buffer(to.fd) / 4).max(LEAST) } else { len };
    let mut moved = 0;
    let ended = loop {
        // Pipes first, as the kernel does it: with one that must not wait, the socket is not waited for either.
        let ends = if from.is_pipe() { [&mut from, &mut to] } else { [&mut to, &mut from] };
        if let Some(end) = ends.into_iter().find(|end| !end.is_ready()) {
            if end.way == Way::In && moved > 0 {
                break Ok(()); // what was there has gone, and more is not waited for
            }
            if end.waits {
                match end.wait(green) {
                    Ok(()) => continue,
                    Err(error) => break Err(error),
                }
            }
        }
        match call(most.min(len - moved)) {
            Ok(now) => {
                moved += now;
                if now == 0 || !goes_on || moved == len {
                    break Ok(());
                }
                // The kernel counts the socket's time anew for each piece of its own.
                (from.deadline, to.deadline) = (None, None);
                green.pay();
            }
            // Somebody else was quicker.
            Err(EAGAIN) if from.waits && to.waits => {
                let end = if from.is_pipe() { &mut from } else { &mut to };
                if let Err(error) = end.wait(green) {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    green.pay();
    match ended {
        Err(error) if moved == 0 => Err(error),
        _ => Ok(moved),
    }
}

/// sendfile(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize {
    // SAFETY: M1.
    let plain = |count: usize| unsafe { raw::sendfile(to, from, offset, count) };
    let Some(green) = green(part::NET).filter(|_| count > 0) else { return pass(plain(count)) };
    let before = entry();
    let ends = End::of(from, Way::In).zip(End::of(to, Way::Out)).filter(|(from, to)| {
        // To a pipe it is splice by another name. To anything else only what has a place in a file can be sent.
        from.side == Side::Disk || to.is_pipe() && offset.is_null()
    });
    let Some((from, to)) = ends else { return pass(plain(count)) };
    if !to.is_pipe() && !to.is_ready() {
        // What it refuses it refuses at once, also when there is no room. (Of a pipe it first waits for room.)
        if let Err(error) = plain(0) {
            return finish(before, Err(error));
        }
    }
    finish(before, transfer(green, from, to, count, plain))
}

/// sendfile(2), as programs call it that want large files on every processor.
///
/// # Safety
/// As [`sendfile`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize {
    // SAFETY: M1.
    unsafe { sendfile(to, from, offset, count) }
}

/// The two ends of a splice or tee that may wait in the hub.
fn ends(from: c_int, to: c_int, flags: c_uint) -> Option<(End, End)> {
    let (mut from, mut to) = (End::of(from, Way::In)?, End::of(to, Way::Out)?);
    match (from.side, to.side) {
        // A pipe is not spliced to itself.
        (Side::Pipe(one), Side::Pipe(other)) if one == other => return None,
        (Side::Pipe(_), _) | (_, Side::Pipe(_)) => {}
        _ => return None,
    }
    // A flag of one pipe is one of both.
    let patient = flags & SPLICE_F_NONBLOCK == 0 && [from, to].iter().all(|end| end.waits || !end.is_pipe());
    for end in [&mut from, &mut to] {
        if end.is_pipe() {
            end.waits = patient;
        }
    }
    // A Unix socket takes the flag for its own, too.
    if from.side == Side::Stream && !patient && raw::is_unix(from.fd) {
        from.waits = false;
    }
    (flags & !KNOWN == 0).then_some((from, to))
}

/// splice(2).
///
/// # Safety
/// As [`sendfile`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn splice(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: M1.
    let call = |len: usize, flags: c_uint| unsafe { raw::splice(from, from_at, to, to_at, len, flags) };
    let before = entry();
    let ends = green(part::NET).filter(|_| len > 0).and_then(|green| Some((green, ends(from, to, flags)?)));
    // Only a file on a disk has places.
    let places = |from: End, to: End| {
        (from_at.is_null() || from.side == Side::Disk) && (to_at.is_null() || to.side == Side::Disk)
    };
    let Some((green, (from, to))) = ends.filter(|&(_, (from, to))| places(from, to)) else {
        return pass(call(len, flags));
    };
    finish(before, transfer(green, from, to, len, |len| call(len, flags | SPLICE_F_NONBLOCK)))
}

/// tee(2).
///
/// # Safety
/// None in C's sense: it takes numbers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> isize {
    let before = entry();
    let ends = green(part::NET).filter(|_| len > 0).and_then(|green| Some((green, ends(from, to, flags)?)));
    let Some((green, (from, to))) = ends.filter(|(_, (from, to))| from.is_pipe() && to.is_pipe()) else {
        return pass(raw::tee(from, to, len, flags));
    };
    finish(before, transfer(green, from, to, len, |len| raw::tee(from.fd, to.fd, len, flags | SPLICE_F_NONBLOCK)))
}
