//! Unmodified blocking code turns green: [`patch_all`], the counterpart of gevent's `monkey.patch_all()`.
//!
//! With the feature `monkey`, the program is linked with definitions of `recv`, `poll`, `nanosleep` and so on that stand in
//! front of the C library's. Until [`patch_all`] is called they pass everything on. From then on a call that would block,
//! made in a green thread (or in the main of an OS thread that has a hub), lets other green threads run instead: `std::net`,
//! `std::thread::sleep`, and any crate or C library that is linked into the program and blocks in these functions.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! // SAFETY: nothing in this program holds thread-locals or locks over a blocking call.
//! unsafe { greenling::monkey::patch_all() }?;
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let server = greenling::spawn(move || {
//!     let (mut stream, _) = listener.accept().unwrap(); // std's, and others run meanwhile
//!     stream.write_all(b"hello").unwrap();
//! });
//! let mut text = String::new();
//! TcpStream::connect(addr)?.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! server.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is patched
//!
//! | function | what | part |
//! |---|---|---|
//! | [`patch_net`] | `read` `write` `readv` `writev` `recv` `recvfrom` `recvmsg` `recvmmsg` `send` `sendto` `sendmsg` `sendmmsg` `accept` `accept4` `connect` `sendfile` `splice` `tee`, on sockets, pipes, terminals, eventfds and the like | [`Part::Net`] |
//! | [`patch_sleep`] | `nanosleep` `clock_nanosleep` `usleep` `sleep` | [`Part::Sleep`] |
//! | [`patch_dns`] | `getaddrinfo`, on OS threads | [`Part::Dns`] |
//! | [`patch_poll`] | `poll` `ppoll` `select` `pselect` `epoll_wait` `epoll_pwait` `epoll_pwait2` without a signal mask | [`Part::Poll`] |
//! | [`patch_process`] | `wait` `wait3` `wait4` `waitpid` `waitid`: for one child by its pidfd, for any and for a stop by an OS thread | [`Part::Process`] |
//! | [`patch_files`] | `flock`, tried again and again | [`Part::Files`] |
//!
//! and the aliases that C code calls which was compiled with checks or for large files (`__read_chk`, `__poll_chk`,
//! `sendfile64`, ..). So `std::io::copy` between files, sockets and pipes lets others run. `close`, `dup2` and `dup3` wake
//! those who wait for the number; `sigaction` and `signal` mark what runs in signal handlers; `syscall` looks for waits of
//! `std`'s locks (see below).
//!
//! `dup`, `fcntl`, `ioctl`, `setsockopt`, `socket` and `socketpair` do not wait (but for the locks of `fcntl`) and go to the
//! kernel as they are; what was known of the number is asked anew. What needs no patch: `getsockopt`, `shutdown`, `pipe`,
//! `copy_file_range` (files only).
//!
//! # What stays as it was
//!
//! The program sees what it would see without: a file that blocks is one that blocks, whoever set it so and whenever, one
//! with `O_NONBLOCK` says EAGAIN, `SO_RCVTIMEO` and `SO_SNDTIMEO` hold, a blocking write writes everything, results and errno
//! are the kernel's. Flags and options of files are not touched, so files that other OS threads, children or parents share
//! work there as before. (One exception: `connect` on a blocking socket sets `O_NONBLOCK` for the moment of the call.)
//!
//! The kernel is asked for all this, but not by each call: a socket whose waits are short is taken to be as it was when it was
//! last asked about. What this process changes through the C library's functions counts from the next call on. What others
//! change (another process that shares the file, a system call made by hand) may be noticed 50 ms late, by a call that waits:
//! the EAGAIN of a file that they have set non-blocking, the end of a time limit that they have made shorter, the bytes of a file
//! to which they have given a number that was another's. A wait that lasts longer asks.
//!
//! # What never switches
//!
//! These calls go to the kernel as they are, and block the OS thread if the kernel does:
//!
//! * calls on OS threads that have no hub. None is made for them;
//! * calls inside [`no_switch`](crate::no_switch), in a signal handler, and the runtime's own;
//! * regular files and directories, and the descriptors 0, 1 and 2: `std` holds a lock around them
//!   ([`greenling::io::stdin`](crate::io::stdin) is green);
//! * calls that are not in the table: the locks of `fcntl` and `lockf` (to try again and again would lose the kernel's
//!   EDEADLK), `open` of a FIFO, `vmsplice`, `preadv2`, `sigwait`, System V's and POSIX's queues and semaphores, C's own
//!   mutexes and condition variables, the end of an OS thread (`std::thread::JoinHandle::join`);
//! * the waits of `std`'s `Mutex`, `RwLock`, `Condvar`, `Once`, `Barrier`, `mpsc` and `thread::park`: see the next section.
//!
//! While the caller unwinds from a panic, a call that would wait fails with ECANCELED; a sleep blocks the OS thread for its
//! time.
//!
//! # Locks of std's
//!
//! They wait for a word in memory, with the OS thread, and so does whoever waits for one in a green thread. For a moment,
//! until another OS thread gives the lock back, that may be right. If the holder is a green thread of the same OS thread
//! that is suspended in a patched call, nobody ever gives it back. Such a wait is not ended; but when it has taken a second,
//! who waits is reported on standard error, with the green threads that have a pointer to the lock in their frames, what
//! those wait for, and where they were spawned:
//!
//! ```text
//! greenling: #4 "writer", spawned at src/main.rs:31:18, has blocked its OS thread for 1.0 s: it waits for a Mutex, ..
//!  likely held, unless by another OS thread, by
//!   #3 "reader" waits until descriptor 7 can be read, for 1.2 s, spawned at src/main.rs:24:18
//!  ..
//! ```
//!
//! The cure: [`sync::Mutex`](crate::sync::Mutex) and the like, which let others run; or [`no_switch`](crate::no_switch)
//! around what runs while the lock is held, which then blocks the OS thread instead of switching. What waits for other OS
//! threads (`mpsc`) belongs into [`blocking`](crate::blocking) or [`hub::channel`](crate::hub::channel). An OS thread reports
//! once in ten seconds at most, and never what C's own locks do.
//!
//! # Kill, timeout, deadlock
//!
//! C code and `std` cannot be unwound out of a system call. So here a kill, an expired [`timeout`](crate::timeout) and a
//! deadlock are errors of the call that waits: ECANCELED, ETIMEDOUT, EDEADLK. (A sleep just ends.) They stay due: the next
//! call that would wait fails as well, and the next blocking call of this crate unwinds. A program that treats an error as
//! an error ends soon; a loop that ignores it lets the others run at each turn, but does not end.
//!
//! # Safety
//!
//! Who calls one of the functions here vouches for all code of the process that runs in green threads, or in the main of an
//! OS thread with a hub, from then on. That code was written in the belief that a blocking call does not let other code of
//! *the same OS thread* run. It must not matter to it. It does to code that, over one of these calls,
//!
//! * **holds a reference into a thread-local** that it made with `unsafe`, or takes thread-locals to be in an order like a
//!   stack's (scoped thread-locals, interpreters' locks): another green thread gets in between, and uses or frees what the
//!   first still has. With a `RefCell` it is a panic, with `unsafe` code undefined behaviour;
//! * **holds a lock that belongs to the OS thread**: a reentrant one lets the next green thread in, although the first is
//!   not done; any other (`std::sync::Mutex`) blocks the OS thread for ever when the next one locks it;
//! * **is C code that keeps something per OS thread**: errno is kept, nothing else is.
//!
//! [`no_switch`](crate::no_switch) around such code cures it. Rust code without `unsafe` of its own cannot be made
//! unsound by this; it can be made to panic or to wait for ever.
//!
//! # Limits
//!
//! | what | why | instead |
//! |---|---|---|
//! | a listener in blocking mode that other processes, or OS threads without a hub, accept from too | accept cannot be tried; if somebody else is quicker, the OS thread waits for the next connection | a listener each (`SO_REUSEPORT`), or `O_NONBLOCK` |
//! | to receive no bytes from TCP with `SO_RCVTIMEO` set | the kernel's 0 at the end of the time is EAGAIN here | – |
//! | `sendfile` and `splice` to a stream socket whose buffer is nearly full | they wait for room when a third of it is free (Unix: three quarters); the kernel would fill the rest first | – |
//! | `flock`: who waits longest is not always first | a lock has no descriptor to wait for | [`sync::Mutex`](crate::sync::Mutex) within a process |
//! | `wait` for any child, killed or timed out | the OS thread that waited for it, one of 16, waits until some child ends | `waitpid` for one |
//! | futex waits without time limit end with EINTR, not with another try, when a handler with `SA_RESTART` runs in their first second | the first second is a wait of its own | – |
//! | crates that are asynchronous inside (`postgres`, which runs tokio) | their executor notes in a thread-local that it runs, and refuses a second call with a panic | a client's whole life, its drop included, in [`blocking`](crate::blocking) |
//! | the C library's calls within itself (`fgets`, `getpwnam`, `system`) | it does not call itself by these names | [`blocking`](crate::blocking) |
//! | libraries loaded by `dlopen` | they may be bound to the C library's functions | link them |
//! | `LD_PRELOAD` of this crate | it is a part of the program, not a library of its own | – |
//! | `pthread_cancel` | these calls are no cancellation points any more | – |
//! | libraries other than glibc | not tried | – |

#[cfg(not(target_env = "gnu"))]
compile_error!("greenling's feature `monkey` stands in for functions of glibc, and was made for no other C library");

mod child;
mod closing;
mod flock;
mod futex;
mod gate;
mod holder;
mod many;
mod names;
mod patch;
mod poll;
mod setting;
mod stream;
mod time;
mod transfer;

pub use patch::{
    Part, PatchError, Report, is_patched, patch_all, patch_dns, patch_files, patch_net, patch_poll, patch_process,
    patch_sleep,
};
