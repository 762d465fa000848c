//! The moments at which this program looks, each a fiber that does not run.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use greenling::hub::{self, Switch};
use greenling::thread::{Builder, park};
use greenling::{Greenlet, yield_now};

use crate::words::{Look, Xray};

/// The value that is sent, unlike any other number here.
pub(crate) const SENT: u64 = 0xc0ffee;

/// What looks, shared with a hook.
pub(crate) type Shared = Arc<Mutex<Xray>>;

/// What a moment shows.
pub(crate) struct Scene {
    /// What one sees, in a line or more.
    pub(crate) title: &'static str,
    /// What the fiber was found to be.
    pub(crate) look: Look,
    /// What is beside its stack, in lines.
    pub(crate) beside: String,
}

/// Looks at the youngest fiber.
fn look(xray: &Shared, sent: Option<u64>) -> io::Result<Look> {
    xray.lock().unwrap_or_else(PoisonError::into_inner).look(sent)
}

/// A green thread that was spawned, and has not run.
pub(crate) fn fresh(xray: &Shared) -> io::Result<Scene> {
    let thread = Builder::new().spawn(|| black_box(SENT))?;
    let look = look(xray, None)?;
    assert_eq!(thread.join().ok(), Some(SENT));
    Ok(Scene { title: "a green thread that has never run", look, beside: String::new() })
}

/// Waits for an unpark, with a frame of its own.
#[inline(never)]
pub(crate) fn waits_for_an_unpark() {
    park();
    // Not the last call, so that there is a frame.
    black_box(());
}

/// A green thread that has parked.
pub(crate) fn parked(xray: &Shared) -> io::Result<Scene> {
    let thread = Builder::new().spawn(waits_for_an_unpark)?;
    yield_now();
    let look = look(xray, None)?;
    thread.thread().unpark();
    assert!(thread.join().is_ok());
    Ok(Scene { title: "a green thread that is parked", look, beside: String::new() })
}

/// Switches to main with what it has got, and one more.
#[inline(never)]
pub(crate) fn waits_in_a_switch(first: u64) -> u64 {
    let mut n = first;
    loop {
        n = Greenlet::<u64>::main().switch(n + 1);
    }
}

/// A greenlet that waits in a switch.
pub(crate) fn switched(xray: &Shared) -> io::Result<Scene> {
    let greenlet = Greenlet::new(waits_in_a_switch);
    assert_eq!(greenlet.switch(1), 2);
    let look = look(xray, None)?;
    Ok(Scene { title: "a greenlet that waits in a switch: its mailbox is empty", look, beside: String::new() })
}

/// The same, in the middle of a switch to it: the value has been sent, and the CPU not given away yet.
pub(crate) fn value(xray: &Shared) -> io::Result<Scene> {
    let greenlet = Greenlet::new(waits_in_a_switch);
    assert_eq!(greenlet.switch(1), 2);
    let seen = Arc::new(Mutex::new(None));
    let (of_hook, into) = (Arc::clone(xray), Arc::clone(&seen));
    // Called by the sender, between the two halves of its switch.
    let hook = hub::on_switch(move |switch| {
        // Main, which has the number 1, comes as well: when the greenlet answers.
        if matches!(switch, Switch::Comes { thread: 2.., .. }) {
            *into.lock().unwrap_or_else(PoisonError::into_inner) = Some(look(&of_hook, Some(SENT)));
        }
    })?;
    assert_eq!(greenlet.switch(SENT), SENT + 1);
    drop(hook);
    let look = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let look = look.ok_or_else(|| io::Error::other("the hook was not called"))??;
    Ok(Scene { title: "the same greenlet while 0xc0ffee is on its way to it", look, beside: String::new() })
}

/// A green thread that has ended, and of which the result was not taken.
pub(crate) fn ended(xray: &Shared) -> io::Result<Scene> {
    let thread = Builder::new().spawn(|| black_box(SENT))?;
    yield_now();
    let look = look(xray, None)?;
    assert_eq!(thread.join().ok(), Some(SENT));
    Ok(Scene { title: "a green thread that has ended: its result waits", look, beside: String::new() })
}

thread_local! {
    /// What each thread with thread-locals of its own has for itself.
    static MARK: Cell<u64> = const { Cell::new(1) };
}

/// Where the thread of `own` has its `MARK`.
static PLACE: AtomicU64 = AtomicU64::new(0);

/// Leaves a mark in the thread-locals, and parks.
#[inline(never)]
pub(crate) fn waits_with_own_locals() {
    MARK.set(17);
    PLACE.store(MARK.with(|mark| mark.as_ptr().addr()) as u64, Ordering::Relaxed);
    park();
    assert_eq!(black_box(MARK.get()), 17);
}

/// A green thread with thread-locals of its own.
///
/// # Errors
/// If the machine has none of those.
pub(crate) fn own(xray: &Shared) -> io::Result<Scene> {
    use std::fmt::Write as _;
    let thread = Builder::new().own_thread_locals().spawn(waits_with_own_locals)?;
    yield_now();
    let look = look(xray, None)?;
    let mut beside = String::from("thread-locals\n");
    {
        let xray = xray.lock().unwrap_or_else(PoisonError::into_inner);
        let word = |at| xray.memory.word(at).unwrap_or_default();
        let pointer = xray.table.value(&xray.memory, look.fiber.block, "block");
        let (place, mains) = (PLACE.load(Ordering::Relaxed), MARK.with(|mark| mark.as_ptr().addr()) as u64);
        let distance = place.wrapping_sub(pointer) as i64;
        let sign = if distance < 0 { '-' } else { '+' };
        let (own, distance) = (word(place), distance.unsigned_abs());
        let _ = writeln!(beside, "  its thread pointer is that of its TLS block, from the control block");
        let _ = writeln!(beside, "  its MARK is at its thread pointer {sign} {distance:#x}, and holds {own}");
        let _ = writeln!(beside, "  main's MARK is at another address: {}, and holds {}", place != mains, word(mains));
    }
    thread.thread().unpark();
    assert!(thread.join().is_ok());
    Ok(Scene { title: "a green thread with thread-locals of its own, parked", look, beside })
}
