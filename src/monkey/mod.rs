//! Patches that make unmodified blocking code green: [`patch_all`], the counterpart of gevent's `monkey.patch_all()`.
//!
//! With the feature `monkey`, the program is linked with definitions of `recv`, `poll`, `nanosleep` and so on that
//! stand in front of the C library's. Until [`patch_all`] is called, these pass every call on. From then on a call that
//! would block, made in a green thread (or in the main of an OS thread that has a hub), lets other green threads run
//! instead: `std::net`, `std::thread::sleep`, and any crate or C library that is linked into the program and blocks in
//! these functions.
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
//! | [`patch_sleep`] | `nanosleep` `clock_nanosleep` `usleep` `sleep` `sched_yield`; in a simulation also `clock_gettime` `gettimeofday` `time` | [`Part::Sleep`] |
//! | [`patch_dns`] | `getaddrinfo` `getnameinfo` `gethostbyname` `gethostbyname2` `gethostbyaddr` `gethostbyname_r` `gethostbyname2_r` `gethostbyaddr_r`, on OS threads | [`Part::Dns`] |
//! | [`patch_poll`] | `poll` `ppoll` `select` `pselect` `epoll_wait` `epoll_pwait` `epoll_pwait2` without a signal mask | [`Part::Poll`] |
//! | [`patch_process`] | `wait` `wait3` `wait4` `waitpid` `waitid`: for one child by its pidfd, for any and for a stop by an OS thread | [`Part::Process`] |
//! | [`patch_files`] | `flock`, tried again and again | [`Part::Files`] |
//! | [`patch_random`] | in a simulation `getrandom` `getentropy`, also by `syscall` | [`Part::Random`] |
//! | [`patch_locks`] | private futexes through `syscall`, hence the locks and channels of `std` and of crates like it; `sched_yield`; `pthread_join`; C's own locks: all functions of `pthread_mutex_*`, `pthread_cond_*`, `pthread_rwlock_*` and `sem_*` that wait or wake, `pthread_barrier_wait`, `pthread_once` | [`Part::Locks`], which [`patch_all`] leaves out |
//! | [`patch_threads`], never a part of [`patch_all`] | `pthread_create` `pthread_join` `pthread_tryjoin_np` `pthread_timedjoin_np` `pthread_clockjoin_np` `pthread_detach` `pthread_exit` `pthread_setname_np` `pthread_getname_np` `pthread_getattr_np`, the names of `prctl` | [`Part::Threads`] |
//!
//! and the aliases that C code calls which was compiled with checks or for large files (`__read_chk`, `__poll_chk`,
//! `sendfile64`, ..). So `std::io::copy` between files, sockets and pipes lets others run. `close`, `dup2` and `dup3`
//! wake the green threads that wait for the number, in any hub, with EBADF; `sigaction` and `signal` mark
//! what runs in signal handlers; `syscall` looks for waits of `std`'s locks (see below); `dlopen` and `dlmopen` give
//! threads with thread-locals of their own the first values of the new library's.
//!
//! `dup`, `fcntl`, `ioctl`, `setsockopt`, `socket` and `socketpair` do not wait (except for the locks of `fcntl`) and
//! go to the kernel as they are; the next wait for the number asks the kernel anew. `getsockopt`, `shutdown`, `pipe`
//! and `copy_file_range` (files only) need no patch.
//!
//! # What stays as it was
//!
//! The program sees the same results as without patches: a file that blocks still blocks, whatever code set the mode
//! and whenever; a file with `O_NONBLOCK` returns EAGAIN; `SO_RCVTIMEO` and `SO_SNDTIMEO` hold; a blocking write writes
//! everything; results and errno are the kernel's. Flags and options of files are not changed, so files that other OS
//! threads, children or parents share work there as before. (One exception: `connect` on a blocking socket sets
//! `O_NONBLOCK` for the moment of the call.)
//!
//! The kernel is asked for all this, but not by each call: on a socket on which waits are short, a call trusts the last
//! answer. A change that this process makes through the C library's functions counts from the next call on. Other
//! changes (by another process that shares the file, or by a system call made by hand) may be noticed 50 ms late by a
//! call that waits: the EAGAIN of a file that was set non-blocking, the end of a time limit that was made shorter, the
//! bytes of a file that was given the number of another. A longer wait asks the kernel.
//!
//! # What never switches
//!
//! These calls go to the kernel as they are, and block the OS thread if the kernel does:
//!
//! * calls on OS threads that have no hub; patched calls never make one;
//! * calls inside [`no_switch`](crate::no_switch), in a signal handler, and the runtime's own;
//! * calls on regular files and directories, and on the descriptors 0, 1 and 2: `std` holds a lock around those
//!   ([`greenling::io::stdin`](crate::io::stdin) is green);
//! * calls that are not in the table: the locks of `fcntl` and `lockf` (to try again and again would lose the kernel's
//!   EDEADLK), `open` of a FIFO, `vmsplice`, `preadv2`, `sigwait`, System V's queues and semaphores and POSIX's
//!   queues, the end of an OS thread (`std::thread::JoinHandle::join`) without [`patch_locks`] (that
//!   of a thread which [`patch_threads`] has made green is waited for in the hub), the locks of C11;
//! * the waits of `std`'s `Mutex`, `RwLock`, `Condvar`, `Once`, `Barrier`, `mpsc` and `thread::park`, and those of C's
//!   own locks, unless [`patch_locks`] was called and the caller may wait in the hub: see the next sections.
//!
//! While the caller unwinds from a panic, a call that would wait fails with ECANCELED; a sleep blocks the OS thread for
//! its time.
//!
//! # Locks of std
//!
//! The locks of `std` wait for a word in memory, and block the OS thread, also when a green thread waits. That may be
//! right for a moment, until another OS thread releases the lock. But if the holder is a green thread of the same OS
//! thread, and suspended in a patched call, the lock is never released. Such a wait is not ended; but after a second
//! the waiter is reported on standard error, with the green threads that have a pointer to the lock in their frames,
//! the reason why each of those waits, and where each was spawned:
//!
//! ```text
//! greenling: #4 "writer", spawned at src/main.rs:31:18, has blocked its OS thread for 1.0 s: it waits for a Mutex, ..
//!  likely held, unless by another OS thread, by
//!   #3 "reader" waits until descriptor 7 can be read, for 1.2 s, spawned at src/main.rs:24:18
//!  ..
//! ```
//!
//! The cure is [`sync::Mutex`](crate::sync::Mutex) and the like, which let others run; or
//! [`no_switch`](crate::no_switch) around the code that runs while the lock is held, which then blocks the OS thread
//! instead of switching. Waits for other OS threads (`mpsc`) belong into [`blocking`](crate::blocking) or
//! [`hub::channel`](crate::hub::channel). Waits that are shorter, for locks, channels and the end of OS threads, are
//! added up: when they have blocked an OS thread for a second of two, that is reported as well, since its green threads
//! are a queue then. An OS thread reports once in ten seconds at most, and never reports that it is blocked in one of
//! C's own locks.
//!
//! # Locks that let others run
//!
//! After [`patch_locks`], a green thread with thread-locals of its own, or the main of a hub, that waits for such a
//! lock, channel or park lets other green threads run, as it does in a socket's read. (Light green threads go on as
//! above: locks and channels of `std` rely on thread-locals that no other thread has.) The words stay the program's,
//! and OS threads take part as before: a wake-up goes to the waiters in hubs first, in order of arrival, then to those
//! that wait in the kernel.
//!
//! * Such a wait ends when it is woken, or at its own time limit. A kill, and the end of a [`timeout`](crate::timeout),
//!   come after: the next blocking call raises them. The code around the wait is a lock's, which must not be unwound.
//! * [`hub::shutdown`](crate::hub::shutdown) gives up a thread that still waits, as it does with a thread that swallows
//!   kills. If a thread was woken when its hub ended, the wake-up goes to the next waiter.
//! * If all threads of a hub wait for such locks for a second, in what seems to be a circle, or without another OS
//!   thread in the process, that is reported on standard error, with the waiters and the likely holders. It is no
//!   panic: another OS thread may release a lock yet.
//! * A bad address is EFAULT, as in the kernel, as long as the program has a handler of SIGSEGV, which `std` and this
//!   crate install. A futex that is shared with other processes, or has priority inheritance, is the kernel's.
//! * C's own locks keep their state in the lock, and OS threads wait in the kernel as before; a release wakes one
//!   waiter of each kind. The owner of a recursive mutex, of one that checks errors, and of a lock for writing is the
//!   green thread: lock and unlock tell it from the others of its OS thread, with the answers that OS threads get.
//!   Robust and priority-inheriting mutexes, and locks shared with other processes, are the C library's, and block the
//!   OS thread. So does a kind of lock of which this C library has another layout than is understood (tried at
//!   `patch_locks`; the same binary was run with glibc 2.36, 2.41 and 2.43).
//! * The locks of an allocator block the OS thread: see [`Allocator`], which a program with jemalloc, mimalloc or the
//!   like needs.
//! * Call [`patch_locks`] before such locks are in use: a barrier at which an OS thread waits already does not open,
//!   and a green thread does not own what it locked before. A mutex that an OS thread releases in a wait for a
//!   condition variable of the C library's own (one that other processes share) does not wake green threads.
//! * A signal handler may post a semaphore, as C allows; an OS thread of this crate, which the first green wait for a
//!   semaphore starts, wakes a green waiter then.
//! * A signal handler must not wake a futex that a green thread may wait for: the handler may interrupt this crate's
//!   table of waiters, and would wait for itself.
//! * Code that spins without `sched_yield` keeps the OS thread, as it does everywhere.
//!
//! # Threads
//!
//! After [`patch_threads`], or [`patch_everything`], which patches all that there is, a thread that is created on an OS
//! thread with a hub is a green thread of that hub, with
//! [thread-locals of its own](crate::thread::Builder::own_thread_locals), unless the program's closure chooses an OS
//! thread. To `std`, to crates and to C it is a thread: `std::thread::current` and its id, `thread_local!` and its
//! destructors, `join` and its result, a detached thread that ends with main, `pthread_self`, `pthread_setname_np`.
//! Creation fails with EAGAIN if there is no memory for the stack. The stack is at least as large as was asked for
//! (2 MiB by `std`: address space, of which touched pages cost memory; `RUST_MIN_STACK` or `Builder::stack_size` ask
//! for less).
//!
//! Always OS threads are: threads that are created on an OS thread without a hub, inside
//! [`no_switch`](crate::no_switch), by this crate, or by the C library within itself (C11's threads, timers);
//! those with a stack or a scheduling policy of the creator's.
//!
//! What is the OS thread's stays common to the green threads on it: the signal mask, scheduling, affinity, the kernel's
//! thread id. A signal that is sent to a green thread by `pthread_kill` goes to its OS thread. `pthread_cancel` fails
//! with EOPNOTSUPP; `pthread_exit` unwinds as a panic does (not under `panic = "abort"`), without C's cleanup handlers.
//! `pthread_join` in a destructor while a light green thread unwinds fails with EDEADLK, as does a join that could
//! never end. A hub that ends gives its suspended threads up; a join of one by another OS thread fails with ESRCH.
//! Kills are for green threads: one that comes before the first turn of such a thread does not keep it from running,
//! since `std` knows no thread that never began. Reports and panics print the name, cut to the 15 bytes that the kernel
//! has, and a place in this crate in place of the caller of `std::thread::spawn`.
//!
//! # Simulations
//!
//! In a [simulation](crate::sim) these calls have its clock, and its seed:
//!
//! * `Instant::now`, `SystemTime::now` and what C has for them follow the virtual clock; the time of day begins with
//!   the year 2000 in UTC, in each run. Sleeps and the time limits of `poll` and locks are virtual, too. A sleep that
//!   must not let others run lets the time pass, and so does a wait with a time limit that would block the OS thread.
//!   The clocks of the CPU's time, and C11's function for the time, are the C library's.
//! * On the hosts of the simulation, sockets of the internet's families and of Unix are its network's: `socket`
//!   `socketpair` `bind` `listen` `connect` `accept` `read` `write` `recv` `send` and their forms, `shutdown` `close`
//!   `dup` `fcntl` `ioctl` `getsockname` `getpeername` `getsockopt` `setsockopt` `poll` `select`, and `getaddrinfo` for
//!   the names of its hosts. Time limits (`SO_RCVTIMEO`) are virtual; errors are those that Linux has.
//! * What is not there fails: descriptors that go along with a message (EOPNOTSUPP), other families and raw sockets
//!   (EAFNOSUPPORT, EPROTONOSUPPORT), other options (ENOPROTOOPT), `sendfile` and `splice` (EINVAL), `recvmmsg` and
//!   `sendmmsg` (ENOSYS). `epoll` takes no simulated socket (EPERM), so crates with a runtime inside do not run yet.
//!   A call that would wait inside of [`no_switch`](crate::no_switch) fails with EDEADLK. Sizes of buffers, keep-alive
//!   and linger are taken, and change nothing; EPIPE comes without a SIGPIPE.
//! * Files of the kernel, pipes among them, are as they are: a wait for one that only another OS thread could end is a
//!   deadlock. `gethostbyname` and `getnameinfo` know no simulated host.
//! * `getrandom`, and with it the order of a `HashMap`, comes from the seed: a run is the same in a fresh process. What
//!   was seeded before the run, in a static, or from `/dev/urandom`, is not.
//!
//! Outside of simulations, a call that is patched for them alone costs one load of a flag.
//!
//! # Kill, timeout, deadlock
//!
//! C code and `std` cannot be unwound out of a system call. So here a kill, an expired [`timeout`](crate::timeout) and
//! a deadlock are errors of the call that waits: ECANCELED, ETIMEDOUT, EDEADLK. (A sleep just ends.) The kill or
//! timeout stays due: the next call that would wait fails as well, and the next blocking call of this crate unwinds. A
//! program that treats an error as an error ends soon; a loop that ignores the error lets others run at each turn, but
//! does not end.
//!
//! # Safety
//!
//! The caller of one of the functions here guarantees, from then on, a property of all code of the process that runs in
//! green threads, or in the main of an OS thread with a hub: the code stays correct when a blocking call lets other
//! code of *the same OS thread* run. Code is not correct in this sense if, over one of these calls, it
//!
//! * **holds a reference into a thread-local** that was made with `unsafe`, or takes thread-locals to be in an order
//!   like a stack's (scoped thread-locals, interpreters' locks): another green thread runs in between, and uses or
//!   frees what the first still has. With a `RefCell` the result is a panic, with `unsafe` code undefined behaviour;
//! * **holds a lock that belongs to the OS thread**: a reentrant one lets the next green thread in, although the first
//!   is not done (after [`patch_locks`], only among light green threads); any other (`std::sync::Mutex`) blocks the OS
//!   thread for ever when the next green thread locks it;
//! * **is C code that keeps state per OS thread**: errno is kept, nothing else is.
//!
//! The cure is [`no_switch`](crate::no_switch) around such code. Rust code without `unsafe` of its own cannot be made
//! unsound by patches; it can be made to panic or to wait for ever.
//!
//! # Limits
//!
//! | what | why | instead |
//! |---|---|---|
//! | a listener in blocking mode that other processes, or OS threads without a hub, accept from too | accept cannot be tried; if another caller is quicker, the OS thread waits for the next connection | a listener each (`SO_REUSEPORT`), or `O_NONBLOCK` |
//! | to receive no bytes from TCP with `SO_RCVTIMEO` set | the kernel's 0 at the end of the time is EAGAIN here | – |
//! | `sendfile` and `splice` to a stream socket with a nearly full buffer | they wait for room when a third of it is free (Unix: three quarters); the kernel would fill the rest first | – |
//! | `flock`: the longest waiter is not always first | a lock has no descriptor to wait for | [`sync::Mutex`](crate::sync::Mutex) within a process |
//! | `wait` for any child, killed or timed out | the OS thread that waited on its behalf, one of 16, waits until some child ends | `waitpid` for one |
//! | futex waits without time limit end with EINTR, not with another try, when a handler with `SA_RESTART` runs in their first second | the first second is a wait of its own | – |
//! | crates that are asynchronous inside (`postgres`, which runs tokio) | the executor notes in a thread-local that it runs, and refuses a second call with a panic | a client's whole life, its drop included, in [`blocking`](crate::blocking) |
//! | the C library's calls within itself (`fgets`, `getpwnam`, `system`) | the C library does not call itself by these names | [`blocking`](crate::blocking) |
//! | libraries loaded by `dlopen` | they may be bound to the C library's functions | link them |
//! | `LD_PRELOAD` of this crate | the crate is a part of the program, not a library of its own | – |
//! | `pthread_cancel` | these calls are no cancellation points any more | – |
//! | libraries other than glibc | not tried | – |

#[cfg(not(target_env = "gnu"))]
compile_error!("greenling's feature `monkey` stands in for functions of glibc, and was made for no other C library");

mod allocator;
mod barrier;
mod c_lock;
mod child;
mod clock;
mod closing;
mod condvar;
mod dns;
mod flock;
mod futex;
mod gate;
mod held_up;
mod holder;
mod host;
mod join;
mod library;
mod mmsg;
mod mutex;
mod once;
mod patch;
mod poll;
mod random;
mod relay;
mod rwlock;
mod semaphore;
mod setting;
mod simulated;
mod sockets;
mod stream;
mod thread_list;
mod thread_names;
mod threads;
mod time;
mod transfer;
mod wait;

pub use allocator::Allocator;
pub use patch::{
    Part, PatchError, Report, is_patched, patch_all, patch_dns, patch_everything, patch_files, patch_locks, patch_net,
    patch_poll, patch_process, patch_random, patch_sleep, patch_threads,
};
pub use threads::{Choice, NewThread};
