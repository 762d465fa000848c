//! pthread_create and what goes with it, hence `std::thread::spawn`: threads that are green threads of the calling hub.
//!
//! ```text
//!   std::thread::spawn --> pthread_create
//!                            | not patched, no hub, a mark of the runtime, `no_switch`  --> an OS thread
//!                            | a stack of the caller's own, a scheduling policy         --> an OS thread
//!                            | the program's choice: `OsThread`                         --> an OS thread
//!                            v
//!                          a green thread with thread-locals of its own: `Start` calls the start routine there
//!                            |      std's routine: ThreadId, name, `catch_unwind`, the result for `join`
//!                            v
//!                          destructors of its thread-locals --> `Pthread` says Ended --> pthread_join returns
//! ```
//!
//! `pthread_self` needs nothing: it reads the thread pointer, which is the green thread's own. So `std` has all that is
//! a thread's right by itself: `thread::current`, `park`, `thread_local!`. The names of threads and the bounds of
//! stacks, which the C library would ask the kernel or its own notes for, are in `thread_names.rs`.
//!
//! A number that is not on the list is an OS thread's, and goes to the C library. So are all numbers in the child of a
//! fork: the list is the parent's.
//!
//! * Invariant monkey-4: a start routine is called once, with the argument that it was created with, under the block
//!   of the thread, while the root is there. Upheld by `Start`: the routine is taken out before the call; and a thread
//!   that is killed before its first turn runs nevertheless, since `std` and C know no thread that never began.
//!
//! Invariant monkey-1 of `stream.rs` holds here, too.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::gate::{Green, green, part, patched};
use super::join::join_os_thread;
use super::thread_list::{CANCELED, Home, Pthread, find, forget_number};
use crate::interrupt::no_switch;
use crate::pure::lock::lock;
use crate::switch::root::existing_root;
use crate::sys::c_library::{self, pthread_attr_t, pthread_t};
use crate::sys::clock::{NEVER, after};
use crate::sys::raw::{
    self, CLOCK_MONOTONIC, CLOCK_REALTIME, EAGAIN, EBUSY, EINVAL, EOPNOTSUPP, ETIMEDOUT, clockid_t, timespec,
};
use crate::thread::Builder;

/// What a new thread is to be: the answer of the closure that [`patch_threads`](super::patch_threads) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// A green thread of the calling hub, with thread-locals of its own.
    Green,
    /// An OS thread: for threads that compute, or that wait in calls which are not patched.
    OsThread,
}

/// A thread that is about to be created, as far as its creator has said: the argument of the closure that
/// [`patch_threads`](super::patch_threads) takes.
///
/// The name is not known yet: `std` and C programs set the name from within the new thread.
/// [`thread::current`](crate::thread::current) is the green thread that creates this one.
#[derive(Clone, Copy, Debug)]
pub struct NewThread {
    /// The bytes of stack that were asked for.
    stack_size: usize,
    /// Whether the thread begins detached.
    detached: bool,
    /// The address of the start routine.
    start: usize,
}

impl NewThread {
    /// Returns how many bytes of stack the creator asked for; if it said nothing, the default of `std` (2 MiB) or C
    /// (8 MiB, as a rule).
    ///
    /// May switch: no.
    pub fn stack_size(&self) -> usize {
        self.stack_size
    }

    /// Reports whether the thread is created detached. A thread of `std` never is: `std` detaches it later, if the
    /// handle is dropped.
    ///
    /// May switch: no.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// Returns the address of the start routine, by which a library of C may be told from others. All threads of `std`
    /// have the same one.
    ///
    /// May switch: no.
    pub fn start_routine(&self) -> usize {
        self.start
    }
}

/// The closure that chooses.
type Choose = dyn Fn(&NewThread) -> Choice + Send + Sync;

/// The closure of the latest `patch_threads`.
static CHOOSE: Mutex<Option<Arc<Choose>>> = Mutex::new(None);

/// Sets the closure that chooses.
pub(super) fn set_choice(choose: Arc<Choose>) {
    // The one before is dropped after the lock: that may be foreign code.
    let before = lock(&CHOOSE).replace(choose);
    drop(before);
}

/// Asks the program what the thread is to be. A closure that panics, or would have to wait, has chosen an OS thread.
fn choose(new: &NewThread) -> Choice {
    let Some(choose) = lock(&CHOOSE).clone() else { return Choice::OsThread };
    // In `no_switch`, threads that the closure starts are OS threads, and it is not asked again.
    catch_unwind(AssertUnwindSafe(|| no_switch(|| choose(new)))).unwrap_or(Choice::OsThread)
}

/// A start routine. It may unwind: by [`pthread_exit`], or by a kill that a call of this crate raises.
type Routine = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// The attributes of a new thread.
#[derive(Clone, Copy)]
struct Attributes {
    /// The bytes of stack.
    stack_size: usize,
    /// Whether the thread begins detached.
    detached: bool,
    /// Whether the thread has a stack of the caller's, or a policy: things that no green thread can have.
    special: bool,
}

impl Attributes {
    /// Reads the caller's attributes; the defaults, if there are none.
    ///
    /// # Safety
    /// monkey-1: null, or attributes that were initialised.
    unsafe fn of(given: *const pthread_attr_t) -> Attributes {
        if given.is_null() {
            let default = c_library::default_attributes();
            // SAFETY: these were just made.
            return unsafe { Attributes::read(&raw const default) };
        }
        // SAFETY: monkey-1.
        unsafe { Attributes::read(given) }
    }

    /// Reads attributes.
    ///
    /// # Safety
    /// The attributes were initialised.
    unsafe fn read(given: *const pthread_attr_t) -> Attributes {
        let (mut stack_size, mut low, mut len) = (0, ptr::null_mut(), 0);
        let (mut state, mut inherits) = (0, 0);
        // SAFETY: the caller's promise; so for the others, each with a place for its answer.
        unsafe { c_library::pthread_attr_getstacksize(given, &raw mut stack_size) };
        // SAFETY: as above.
        unsafe { c_library::pthread_attr_getstack(given, &raw mut low, &raw mut len) };
        // SAFETY: as above.
        unsafe { c_library::pthread_attr_getdetachstate(given, &raw mut state) };
        // SAFETY: as above.
        unsafe { c_library::pthread_attr_getinheritsched(given, &raw mut inherits) };
        // Without a stack of the caller's, the upper end, from which `low` is computed, is null.
        let own_stack = low.addr().wrapping_add(len) != 0;
        let special = own_stack || inherits == c_library::PTHREAD_EXPLICIT_SCHED;
        Attributes { stack_size, detached: state == c_library::PTHREAD_CREATE_DETACHED, special }
    }
}

/// A start routine on its way to the thread.
struct Start {
    /// The entry of the thread on the list.
    thread: Arc<Pthread>,
    /// The routine, until it is called.
    routine: Option<Routine>,
    /// The address of the argument.
    argument: usize,
}

impl Start {
    /// Calls the start routine, as the thread's body.
    fn call(&mut self) {
        let Some(routine) = self.routine.take() else { return };
        let argument = ptr::with_exposed_provenance_mut(self.argument);
        // SAFETY: monkey-4, and monkey-1 for the argument.
        match catch_unwind(AssertUnwindSafe(|| unsafe { routine(argument) })) {
            Ok(value) => self.thread.set_value(value.expose_provenance()),
            Err(payload) => match payload.downcast::<Exit>() {
                Ok(exit) => self.thread.set_value(exit.0),
                Err(payload) => {
                    self.thread.set_value(CANCELED);
                    resume_unwind(payload);
                }
            },
        }
    }
}

impl Drop for Start {
    /// Runs a thread that was killed before its first turn (monkey-4): the drop is on the thread's own stack then. A
    /// launch that failed has no thread, and at the end of the OS thread nothing runs any more.
    fn drop(&mut self) {
        if self.thread.is_launched() && existing_root().is_some() {
            self.call();
        }
    }
}

/// The payload with which `pthread_exit` unwinds: the value.
struct Exit(usize);

/// Makes a green thread.
///
/// # Errors
/// EAGAIN if there is no memory or address space for a stack or a TLS block.
fn start_green(green: Green, given: Attributes, routine: Routine, argument: *mut c_void) -> Result<usize, c_int> {
    let caller = green.caller();
    let home = Home::here(caller);
    home.collect(caller.root);
    let thread = Pthread::new(home, given.detached);
    // The thread runs at the next turn: everything is noted by then.
    let argument = argument.expose_provenance();
    let mut start = Start { thread: Arc::clone(&thread), routine: Some(routine), argument };
    let spawned = Builder::new().stack_size(given.stack_size).own_thread_locals().spawn(move || start.call());
    let handle = spawned.map_err(|_| EAGAIN)?;
    let fiber = caller.root.resolve(handle.fiber_ref()).ok_or(EAGAIN)?;
    let number = thread.enlist(caller.root, fiber);
    handle.add_listener(thread.listener(), 0);
    Ok(number)
}

/// Returns the number of the calling thread.
pub(super) fn this_number() -> usize {
    c_library::this_pthread() as usize
}

/// Reports whether `pthread_create` may have made green threads, that is, whether the list is to be asked.
pub(super) fn is_patched() -> bool {
    patched() & part::THREADS != 0 && !existing_root().is_some_and(|root| root.is_forked())
}

/// Returns the green thread with this number, if it is one.
pub(super) fn green_thread(number: pthread_t) -> Option<Arc<Pthread>> {
    is_patched().then(|| find(number as usize)).flatten()
}

/// Stands in for pthread_create(3).
///
/// # Safety
/// As the C library's; see [`monkey`](super).
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    routine: Routine,
    argument: *mut c_void,
) -> c_int {
    let green = green(part::THREADS);
    if let Some(green) = green {
        // SAFETY: monkey-1.
        let given = unsafe { Attributes::of(attributes) };
        let Attributes { stack_size, detached, special } = given;
        let new = NewThread { stack_size, detached, start: routine as usize };
        if !special && choose(&new) == Choice::Green {
            return match start_green(green, given, routine, argument) {
                Ok(number) => {
                    // SAFETY: monkey-1: the caller's place for the number.
                    unsafe { thread.write(number as pthread_t) };
                    0
                }
                Err(error) => error,
            };
        }
    }
    // SAFETY: monkey-1.
    let error = unsafe { c_library::pthread_create(thread, attributes, routine, argument) };
    if error == 0 && is_patched() {
        // SAFETY: monkey-1: the C library has written the number.
        forget_number(unsafe { thread.read() } as usize);
    }
    error
}

/// Joins a green thread, and writes the value to `value` unless that is null.
///
/// # Safety
/// monkey-1, for `value`.
unsafe fn join(thread: &Arc<Pthread>, number: pthread_t, value: *mut *mut c_void, deadline: u64) -> c_int {
    match thread.join(number as usize == this_number(), deadline) {
        Ok(result) => {
            if !value.is_null() {
                // SAFETY: the caller's promise.
                unsafe { value.write(ptr::with_exposed_provenance_mut(result)) };
            }
            0
        }
        Err(error) => error,
    }
}

/// Stands in for pthread_join(3).
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_join(number: pthread_t, value: *mut *mut c_void) -> c_int {
    match green_thread(number) {
        // SAFETY: monkey-1.
        Some(thread) => unsafe { join(&thread, number, value, NEVER) },
        // SAFETY: monkey-1.
        None => unsafe { join_os_thread(number, value) },
    }
}

/// Stands in for pthread_tryjoin_np(3).
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_tryjoin_np(number: pthread_t, value: *mut *mut c_void) -> c_int {
    let Some(thread) = green_thread(number) else {
        // SAFETY: monkey-1.
        return unsafe { c_library::pthread_tryjoin_np(number, value) };
    };
    // SAFETY: monkey-1.
    match unsafe { join(&thread, number, value, 0) } {
        ETIMEDOUT => EBUSY,
        answer => answer,
    }
}

/// Stands in for pthread_timedjoin_np(3).
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_timedjoin_np(
    number: pthread_t,
    value: *mut *mut c_void,
    until: *const timespec,
) -> c_int {
    match green_thread(number) {
        // SAFETY: monkey-1.
        Some(thread) => unsafe { join_until(&thread, number, value, CLOCK_REALTIME, until) },
        // SAFETY: monkey-1.
        None => unsafe { c_library::pthread_timedjoin_np(number, value, until) },
    }
}

/// Stands in for pthread_clockjoin_np(3).
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_clockjoin_np(
    number: pthread_t,
    value: *mut *mut c_void,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    match green_thread(number) {
        // SAFETY: monkey-1.
        Some(thread) => unsafe { join_until(&thread, number, value, clock, until) },
        // SAFETY: monkey-1.
        None => unsafe { c_library::pthread_clockjoin_np(number, value, clock, until) },
    }
}

/// Joins a green thread until a moment of one of two clocks; without end, if `until` is null. The time of day is read
/// once.
///
/// # Safety
/// monkey-1.
unsafe fn join_until(
    thread: &Arc<Pthread>,
    number: pthread_t,
    value: *mut *mut c_void,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: null, or the caller's time (monkey-1).
    let deadline = match (unsafe { until.as_ref() }.map(raw::nanos), clock) {
        (None, _) => NEVER,
        (Some(Some(nanos)), CLOCK_MONOTONIC) => nanos,
        (Some(Some(nanos)), CLOCK_REALTIME) => after(Duration::from_nanos(nanos.saturating_sub(raw::realtime_ns()))),
        _ => return EINVAL,
    };
    // SAFETY: monkey-1.
    unsafe { join(thread, number, value, deadline) }
}

/// Stands in for pthread_detach(3).
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_detach(number: pthread_t) -> c_int {
    match green_thread(number) {
        Some(thread) => thread.detach().err().unwrap_or(0),
        // SAFETY: monkey-1.
        None => unsafe { c_library::pthread_detach(number) },
    }
}

/// Stands in for pthread_cancel(3): a green thread cannot be cancelled. (The C library would cancel the OS thread.)
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn pthread_cancel(number: pthread_t) -> c_int {
    match green_thread(number) {
        Some(_) => EOPNOTSUPP,
        // SAFETY: monkey-1.
        None => unsafe { c_library::pthread_cancel(number) },
    }
}

/// Stands in for pthread_exit(3): a green thread unwinds its stack, as from a panic that is not reported, and C's
/// frames as far as they can be unwound. (The C library would jump to the end of a start that never was.)
///
/// # Safety
/// As [`pthread_create`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    if green_thread(this_number() as pthread_t).is_some() {
        resume_unwind(Box::new(Exit(value.expose_provenance())));
    }
    // SAFETY: monkey-1.
    unsafe { c_library::pthread_exit(value) }
}
