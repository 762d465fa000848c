//! Explicit switching: stacks, fibers, the root loop, greenlets. Only this folder names `corosensei`.
//!
//! What each file supplies, lowest first:
//!
//! | file | supplies | may use |
//! |---|---|---|
//! | `stack` | the shape of one stack slot: guard, stack, payload, control block, colour | `sys` |
//! | `stack_pool` | slots: from the kernel once, then from a LIFO free list; trimming | `stack` |
//! | `extras` | what few fibers have: values of green-local keys, links | |
//! | `wait_list` | fibers in a row, linked through their control blocks; one unit with `fiber` | `fiber` |
//! | `wait_node` | the places of a fiber that waits for several things; one unit with `fiber` | `fiber` |
//! | `fiber` | one stackful coroutine: control block, launch, resume, suspend, result packet | `stack`, `extras` |
//! | `overflow` | what to say when a fiber hits its guard | `fiber` |
//! | `sweep` | stack pages of deep calls that are over go back while their thread waits | `fiber`, `stack_pool` |
//! | `root` | the OS thread's side: who runs, who is next, the one loop that resumes fibers | `fiber`, `overflow`, `stack_pool`, `pure` |
//! | `mailbox` | moving one typed value into the frame of a suspended fiber | `fiber` |
//! | `greenlet` | the public explicit API; parents, death, throw, kill, drop, trace | all of the above |
//!
//! None of them knows that a hub exists: the root loop asks a [`root::Scheduler`] when it has nobody to run,
//! and the hub is the one that answers.

pub(crate) mod cancel;
pub(crate) mod extras;
pub(crate) mod fiber;
pub(crate) mod greenlet;
pub(crate) mod mailbox;
pub(crate) mod overflow;
pub(crate) mod packet;
pub(crate) mod root;
pub(crate) mod stack;
pub(crate) mod stack_pool;
mod sweep;
pub(crate) mod wait_list;
pub(crate) mod wait_node;
