//! sendfile, splice and tee: bytes that the kernel moves between two descriptors. `std::io::copy` uses splice between
//! pipes and sockets, and sendfile from some files.
//!
//! Each call has two ends, and may wait for either: for bytes at one, for room at the other. The call cannot be told
//! not to wait (SPLICE_F_NONBLOCK is for pipes alone), so both ends are polled first, and the call is made when both
//! are ready:
//!
//! ```text
//!   an end is not ready -- the kernel would not wait (O_NONBLOCK, ..) --> the plain call, for the kernel's answer
//!      |                \- the kernel would wait --> the hub waits, for as long as SO_RCVTIMEO or SO_SNDTIMEO allow
//!   both are ready --> the call, without waiting for pipes
//!      |  EAGAIN: another caller was quicker --> once more
//!      |  to a stream socket: a piece that certainly fits; then once more, until all is sent or no more comes
//!   return
//! ```
//!
//! A stream socket is ready when at least a third of its buffer is free (three quarters for a Unix socket), and the
//! kernel lets a call wait only when the whole buffer is used. So a piece is a quarter of the buffer.
//!
//! A call that the kernel refuses must be refused before any wait. So a call on a pair of ends that cannot be spliced,
//! or that are not open for the direction, goes to the kernel as it is.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};

use super::gate::{Green, blocking, finish, green, part, pass, refuse, saved_errno};
use super::simulated::is_simulated;
use super::stream::check;
use crate::runtime::reactor::Direction;
use crate::sys::numbers::{NumberedFile, file_of};
use crate::sys::raw::{
    self, Answer, EAGAIN, EINVAL, O_ACCMODE, O_APPEND, O_NONBLOCK, O_RDONLY, O_WRONLY, SOCK_STREAM, SPLICE_F_NONBLOCK,
    WaitKind, off_t,
};

/// The size of the least piece, for sockets with a tiny buffer.
const LEAST: usize = 1024;

/// All flags of splice that exist.
const KNOWN: c_uint = 0xf;

/// The kind of a descriptor, as far as a transfer is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndKind {
    /// A pipe, identified by device and inode.
    Pipe((u64, u64)),
    /// A socket of type SOCK_STREAM.
    Stream,
    /// A socket that keeps the bounds of messages.
    Packets,
    /// A file on a disk, or a directory: always ready.
    Disk,
    /// A terminal or another device.
    Device,
}

/// One end of a transfer.
#[derive(Clone, Copy)]
struct End {
    /// The descriptor of this end.
    fd: c_int,
    /// The file that the call began with.
    file: NumberedFile,
    /// The direction in which bytes go through the descriptor.
    direction: Direction,
    /// The kind of the descriptor.
    side: EndKind,
    /// Whether the kernel would wait for this end.
    waits: bool,
    /// The end of the waiting time, from the first wait on.
    deadline: Option<u64>,
}

impl End {
    /// Makes the end `fd`; none if `fd` is not open for this direction, or is of a kind that cannot be spliced.
    fn of(fd: c_int, direction: Direction) -> Option<End> {
        let file = file_of(fd);
        let flags = raw::file_flags(fd).ok()?;
        let wrong = if direction == Direction::Read { O_WRONLY } else { O_RDONLY };
        if flags & O_ACCMODE == wrong || direction == Direction::Write && flags & O_APPEND != 0 {
            return None;
        }
        let side = match (raw::socket_type(fd), raw::pipe_of(fd)) {
            (Ok(_), _) if raw::is_listener(fd) => return None,
            (Ok(SOCK_STREAM), _) => EndKind::Stream,
            (Ok(_), _) => EndKind::Packets,
            (Err(_), Some((device, inode))) => EndKind::Pipe((device, inode)),
            (Err(_), None) => match raw::wait_kind(fd) {
                WaitKind::Disk => EndKind::Disk,
                WaitKind::Device => EndKind::Device,
                // Eventfds and the like cannot be spliced.
                WaitKind::Pipe => return None,
            },
        };
        Some(End { fd, file, direction, side, waits: flags & O_NONBLOCK == 0, deadline: None })
    }

    /// Reports whether this end is a pipe.
    fn is_pipe(&self) -> bool {
        matches!(self.side, EndKind::Pipe(_))
    }

    /// Reports whether bytes, or room for them, are there now. An end of file counts as ready, and so does a number
    /// that is not open: the kernel reports both.
    fn is_ready(&self) -> bool {
        self.side == EndKind::Disk || raw::ready_now(self.fd, self.direction.poll_bits()) != Ok(0)
    }

    /// Lets others run until this end may be ready.
    ///
    /// # Errors
    /// EAGAIN when the socket's time is over; ECANCELED and the like.
    fn wait(&mut self, green: Green) -> Result<(), i32> {
        let End { fd, file, direction, .. } = *self;
        let deadline = *self.deadline.get_or_insert_with(|| direction.deadline(fd));
        check(deadline)?;
        blocking(|| green.wait(file, direction.interest(), direction.reason(fd), deadline))?
    }
}

/// Moves up to `len` bytes between two ends by `call`, which takes the most bytes to move and returns how many it
/// moved.
fn transfer(green: Green, mut from: End, mut to: End, len: usize, mut call: impl FnMut(usize) -> Answer) -> Answer {
    let goes_on = to.side == EndKind::Stream;
    let most = if goes_on { (raw::send_buffer(to.fd) / 4).max(LEAST) } else { len };
    let mut moved = 0;
    let ended = loop {
        // Pipes first, as in the kernel: if the pipe must not wait, the call does not wait for the socket either.
        let ends = if from.is_pipe() { [&mut from, &mut to] } else { [&mut to, &mut from] };
        if let Some(end) = ends.into_iter().find(|end| !end.is_ready()) {
            if end.direction == Direction::Read && moved > 0 {
                break Ok(()); // the available bytes are moved, and the call does not wait for more
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
                // In the kernel, the socket's time limit starts anew for each piece.
                (from.deadline, to.deadline) = (None, None);
                let _ = green.pay(Ok(now));
            }
            // Another caller was quicker.
            Err(EAGAIN) if from.waits && to.waits => {
                let end = if from.is_pipe() { &mut from } else { &mut to };
                if let Err(error) = end.wait(green) {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    green.pay(match ended {
        Err(error) if moved == 0 => Err(error),
        _ => Ok(moved),
    })
}

/// Stands in for sendfile(2).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize {
    if is_simulated(to) || is_simulated(from) {
        return refuse(EINVAL) as isize;
    }
    // SAFETY: monkey-1.
    let plain = |count: usize| unsafe { raw::sendfile(to, from, offset, count) };
    let Some(green) = green(part::NET).filter(|_| count > 0) else { return pass(plain(count)) };
    let before = saved_errno();
    let ends = End::of(from, Direction::Read).zip(End::of(to, Direction::Write)).filter(|(from, to)| {
        // To a pipe, sendfile is splice. To anything else, only a file on a disk can be sent.
        from.side == EndKind::Disk || to.is_pipe() && offset.is_null()
    });
    let Some((from, to)) = ends else { return pass(plain(count)) };
    if !to.is_pipe() && !to.is_ready() {
        // The kernel refuses bad arguments even when there is no room. (With a pipe, the kernel waits for room first.)
        if let Err(error) = plain(0) {
            return finish(before, Err(error));
        }
    }
    finish(before, transfer(green, from, to, count, plain))
}

/// Stands in for sendfile(2) in programs that were compiled for large files.
///
/// # Safety
/// As [`sendfile`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: usize) -> isize {
    // SAFETY: monkey-1.
    unsafe { sendfile(to, from, offset, count) }
}

/// Returns the two ends of a splice or tee that may wait in the hub.
fn ends(from: c_int, to: c_int, flags: c_uint) -> Option<(End, End)> {
    let (mut from, mut to) = (End::of(from, Direction::Read)?, End::of(to, Direction::Write)?);
    match (from.side, to.side) {
        // A pipe is not spliced to itself.
        (EndKind::Pipe(one), EndKind::Pipe(other)) if one == other => return None,
        (EndKind::Pipe(_), _) | (_, EndKind::Pipe(_)) => {}
        _ => return None,
    }
    // The non-blocking mode of one pipe holds for both.
    let may_wait = flags & SPLICE_F_NONBLOCK == 0 && [from, to].iter().all(|end| end.waits || !end.is_pipe());
    for end in [&mut from, &mut to] {
        if end.is_pipe() {
            end.waits = may_wait;
        }
    }
    // The flag also keeps a Unix socket from waiting.
    if from.side == EndKind::Stream && !may_wait && raw::is_unix(from.fd) {
        from.waits = false;
    }
    (flags & !KNOWN == 0).then_some((from, to))
}

/// Stands in for splice(2).
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
    if is_simulated(to) || is_simulated(from) {
        return refuse(EINVAL) as isize;
    }
    // SAFETY: monkey-1.
    let call = |len: usize, flags: c_uint| unsafe { raw::splice(from, from_at, to, to_at, len, flags) };
    let before = saved_errno();
    let ends = green(part::NET).filter(|_| len > 0).and_then(|green| Some((green, ends(from, to, flags)?)));
    // Only a file on a disk has offsets.
    let offsets_fit = |from: End, to: End| {
        (from_at.is_null() || from.side == EndKind::Disk) && (to_at.is_null() || to.side == EndKind::Disk)
    };
    let Some((green, (from, to))) = ends.filter(|&(_, (from, to))| offsets_fit(from, to)) else {
        return pass(call(len, flags));
    };
    finish(before, transfer(green, from, to, len, |len| call(len, flags | SPLICE_F_NONBLOCK)))
}

/// Stands in for tee(2).
///
/// # Safety
/// None in the sense of C: the function takes numbers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn tee(from: c_int, to: c_int, len: usize, flags: c_uint) -> isize {
    let before = saved_errno();
    let ends = green(part::NET).filter(|_| len > 0).and_then(|green| Some((green, ends(from, to, flags)?)));
    let Some((green, (from, to))) = ends.filter(|(_, (from, to))| from.is_pipe() && to.is_pipe()) else {
        return pass(raw::tee(from, to, len, flags));
    };
    finish(before, transfer(green, from, to, len, |len| raw::tee(from.fd, to.fd, len, flags | SPLICE_F_NONBLOCK)))
}
