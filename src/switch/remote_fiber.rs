//! References to fibers that may travel through other OS threads.
#![allow(unsafe_code)]

use super::fiber::{Fiber, FiberRef};
use super::root::{Root, number};

/// A reference to a fiber that other OS threads may carry: plain numbers, which only the fiber's own root turns into a
/// [`Fiber`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RemoteFiber {
    /// The number of the root that made the reference.
    home: u64,
    /// The id and the address of the fiber, from `FiberRef::to_parts`.
    parts: (u64, usize),
}

impl RemoteFiber {
    /// Creates a reference to a fiber of this OS thread after the end of the root. The reference never resolves, but
    /// has the fiber's identity.
    pub(crate) fn of_finished(id: u64) -> RemoteFiber {
        RemoteFiber { home: number(), parts: (id, 0) }
    }

    /// Returns the number of the root and the id of the fiber, which are unique in the process together.
    pub(crate) fn identity(self) -> (u64, u64) {
        (self.home, self.parts.0)
    }
}

impl Root {
    /// Returns a reference to `fiber` that other OS threads may carry.
    pub(crate) fn to_remote(&self, fiber: Fiber) -> RemoteFiber {
        RemoteFiber { home: self.number, parts: fiber.to_ref().to_parts() }
    }

    /// Reports whether this root made `remote`.
    #[inline(always)]
    pub(crate) fn is_local(&self, remote: RemoteFiber) -> bool {
        remote.home == self.number
    }

    /// Returns the live fiber that `remote` means; `None` if the fiber has ended, or if another root made `remote`.
    #[inline]
    pub(crate) fn resolve_remote(&self, remote: RemoteFiber) -> Option<Fiber> {
        // The address means something to one root only.
        if !self.is_local(remote) {
            return None;
        }
        // SAFETY: the number says that this root made the reference, on this OS thread, since numbers are never
        // reused.
        let fiber = unsafe { FiberRef::from_parts(remote.parts) }?;
        self.resolve(fiber)
    }
}
