//! Where suspended fibers wait: the registers with which each goes on, for those that look at its frames.
//!
//! ```text
//!   a suspended fiber                                  main or the deputy, which have resumed another fiber
//!   coroutine: stack pointer --> | three registers     link of that fiber --> | three registers
//!                                | frames ..                                  | frames ..
//!                                | parent link --> stale: where it was        | (main: to the start of the OS thread)
//! ```
//!
//! The parent link says where the frames of a fiber go on: in those of the loop that resumed it. While the fiber is
//! suspended the link is stale, and an unwinder that follows it reads what lies there now. So a look at a fiber's
//! frames puts the address of three zeros there for its time: a return address of 0 ends any walk.
//!
//! * Invariant suspended-1: the link of a fiber is put back before any fiber is resumed or suspends. Upheld by
//!   `Ended`, which puts it back when dropped, and by `look`: what it calls does not switch, and patched calls in it go
//!   to the C library.
#![allow(unsafe_code)]

use std::mem::size_of;

use super::control_block::Coro;
use super::fiber::Fiber;
use super::root::Root;
use crate::sys::runtime_syscall::runtime_syscall;
use crate::sys::stack_pointer::stack_pointer;
use crate::sys::unwind::{Suspended, as_if_called_from};

/// What corosensei saves at a suspension, as the index of `pc`, `kept`, `frame`; and the bytes above which the stack
/// goes on.
const AT_SUSPENSION: ([usize; 3], usize) =
    if cfg!(target_arch = "aarch64") { ([2, 0, 1], 32) } else { ([0, 1, 2], 24) };

/// The same for the code that has resumed a fiber, at the end of the fiber's link.
const AT_RESUME: ([usize; 3], usize) = if cfg!(target_arch = "aarch64") { ([1, 2, 0], 32) } else { ([1, 2, 0], 24) };

/// What a link leads to for the time of a look.
static END: [usize; 4] = [0; 4];

/// The fibers of a root, for looks at their frames by the fiber that runs.
pub(crate) struct Looker<'a> {
    /// The root, of which the caller is the running fiber.
    root: &'a Root,
    /// The fibers that wait for another one that they have resumed: main, the deputy; and where their registers are.
    active: Vec<(Fiber, usize)>,
}

impl<'a> Looker<'a> {
    /// Finds out which fibers are active. None where no fiber runs, but the loop.
    pub(crate) fn new(root: &'a Root) -> Option<Looker<'a>> {
        let mut active = Vec::new();
        let mut inner = root.current();
        if inner != root.main() && !has(inner, stack_pointer()) {
            return None;
        }
        // At most two steps: to the deputy and to main.
        while inner != root.main() && active.len() < 2 {
            let link = inner.link().cast::<usize>();
            // SAFETY: invariant fiber-3: the fiber runs, or has resumed what runs, so its link is there and is valid.
            let registers = unsafe { link.read() };
            let mut outer = root.main();
            if root.deputy.get() && active.is_empty() {
                root.for_each_fiber(|fiber| {
                    if has(fiber, registers) {
                        outer = fiber;
                    }
                });
            }
            active.push((outer, registers));
            inner = outer;
        }
        Some(Looker { root, active })
    }

    /// Calls `f` so that the unwinder finds the frames of `fiber` below it, and returns whether it was called: a fiber
    /// that has not begun has no frames. `f` does not switch, and does not panic.
    pub(crate) fn look(&self, fiber: Fiber, f: &mut dyn FnMut()) -> bool {
        // std captures under a lock of its own, which a patched call might wait for by a switch.
        let _mark = runtime_syscall();
        if fiber == self.root.current() {
            let _ended = (fiber != self.root.main()).then(|| Ended::new(fiber));
            f();
            return true;
        }
        let Some(suspended) = self.registers(fiber) else { return false };
        let _ended = (fiber != self.root.main()).then(|| Ended::new(fiber));
        // SAFETY: the fiber is suspended, or active and not the running one, and `f` resumes nothing. Its link ends the
        // walk, or, main's frames end where its OS thread began.
        unsafe { as_if_called_from(&suspended, f) };
        true
    }

    /// Returns the registers with which a fiber goes on that does not run.
    fn registers(&self, fiber: Fiber) -> Option<Suspended> {
        let active = self.active.iter().find(|(other, _)| *other == fiber);
        let (at, (order, above)) = match active {
            Some((_, at)) => (*at, AT_RESUME),
            // Main waits in a loop, and would be active.
            None if fiber == self.root.main() || fiber.is_unstarted() => return None,
            None => (saved_at(fiber)?, AT_SUSPENSION),
        };
        let words = std::ptr::with_exposed_provenance::<[usize; 3]>(at);
        // SAFETY: there corosensei has saved three registers, of code that waits.
        let words = unsafe { words.read() };
        let [pc, kept, frame] = order.map(|index| words[index]);
        Some(Suspended { pc, kept, frame, sp: at + above })
    }
}

/// Reports whether an address lies in the slot of a fiber. Async-signal-safe.
pub(crate) fn has(fiber: Fiber, address: usize) -> bool {
    (fiber.slot().low..fiber.slot().end()).contains(&address)
}

/// Returns the stack pointer of a suspended fiber: of the words of its coroutine that are addresses in its stack, the
/// lower one. The other is that with which it began.
fn saved_at(fiber: Fiber) -> Option<usize> {
    let words = fiber.coroutine.get().cast::<[usize; size_of::<Coro>() / size_of::<usize>()]>();
    // SAFETY: initialised from launch to release (fiber-1), and no loop uses it while this fiber's look lasts.
    let words = unsafe { words.read() };
    let stack = fiber.slot().stack_low() + 1..fiber.stack_base();
    let mut inside = words.into_iter().filter(|word| stack.contains(word));
    let (one, other) = (inside.next()?, inside.next()?);
    (one != other).then_some(one.min(other))
}

/// A fiber of which the link ends walks, until this is dropped.
struct Ended {
    /// Where the link is.
    link: *mut usize,
    /// What it led to.
    before: usize,
}

impl Ended {
    /// Lets walks end at the base of the fiber, which has begun.
    fn new(fiber: Fiber) -> Ended {
        let link = fiber.link().cast_mut().cast::<usize>();
        // SAFETY: invariant fiber-3: the fiber has begun, so the link is there; it is the loop's, which waits.
        let before = unsafe { link.replace(END.as_ptr().addr()) };
        Ended { link, before }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // SAFETY: as above (suspended-1).
        unsafe { self.link.write(self.before) };
    }
}
