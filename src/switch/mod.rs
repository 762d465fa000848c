//! Explicit switching: stacks, fibers, the run loop, greenlets. Only this folder names `corosensei`.
//!
//! What each file supplies, lowest first:
//!
//! | file | supplies | may use |
//! |---|---|---|
//! | `stack` | the shape of one stack slot: guard, stack, payload, control block, colour | `sys` |
//! | `state` | the states of a fiber, and the transitions between them | |
//! | `pending` | the flags that send a suspension down the slow path | |
//! | `reason` | what a fiber waits for, for reports | |
//! | `budget` | how many turns may pass until the loop polls the outside world | `pure` |
//! | `stack_pool` | slots: from the kernel once, then from a LIFO free list; trimming | `stack` |
//! | `tls_pool` | the thread-locals that some fibers have apart from their OS thread's, and the pool of these | `sys` |
//! | `debug_list` | the list of roots and stacks that debuggers read | |
//! | `extras` | what few fibers have: values of green-local keys, end hooks | |
//! | `control_block` | all that the runtime knows of one fiber; one circle with the next three | `stack`, `state`, `extras` |
//! | `fiber` | one stackful coroutine: resume, suspend, where its frames end | `control_block` |
//! | `debugger` | what debuggers must know: offsets of fields, words for numbers | `control_block`, `debug_list` |
//! | `wait_list` | fibers in a row, linked through their control blocks | `fiber` |
//! | `wait_node` | the places of a fiber that waits for several things | `fiber` |
//! | `payload` | a fiber's closure and result: launch, body, end | `fiber`, `control_block` |
//! | `prefetch` | the control blocks and frames of the next fibers, brought into the cache | `fiber`, `pure` |
//! | `overflow` | the message when a fiber hits its guard | `fiber` |
//! | `sweep` | stack pages of deep calls that are over go back while their thread waits | `fiber`, `stack_pool` |
//! | `recorder` | what a trace has noted: records in a ring | `fiber`, `pure` |
//! | `hooks` | functions of the program that are told of switches | `pure` |
//! | `sampler` | which wake-ups have their delay taken | `fiber`, `pure` |
//! | `root` | the OS thread's side: which fiber runs, run queues, wake, kill | `payload`, `overflow`, `sweep`, `budget` |
//! | `run_loop` | the loop that resumes fibers | `root`, `prefetch` |
//! | `simulated` | what a simulated hub does in place of the fast paths: each turn is a choice | `root`, `recorder` |
//! | `simulation` | the trait of what chooses, in an OS thread that simulates | `fiber` |
//! | `traced` | what is done in place of the fast paths while a trace is on, or a hook is set | `root`, `recorder`, `hooks` |
//! | `delays` | how long fibers that can run wait for the CPU | `root`, `sampler` |
//! | `own_locals` | which fiber has which TLS block, and when its destructors run | `root` |
//! | `suspended` | where suspended fibers wait, for looks at their frames | `root` |
//! | `remote_fiber` | references to fibers that may travel through other OS threads | `root` |
//! | `teardown` | the end of an OS thread: unwinding, freeing, leaking; the child of a fork | `root`, `run_loop` |
//! | `cancel` | kills, expired timeouts and deadlocks, raised in the fiber that they concern; what forbids to suspend | `root` |
//! | `packet` | the owner of a finished fiber's result; `launch` with an owner and without | `payload`, `root` |
//! | `mailbox` | moving one typed value into the frame of a suspended fiber | `fiber` |
//! | `greenlet` | the public explicit API; a folder: handles, delivery and death, the drop of the last handle, errors, traces | all of the above |
//!
//! No file here knows that a hub exists: the loop polls a [`root::Scheduler`] when no fiber is runnable, and the hub is
//! the implementation.

pub(crate) mod budget;
pub(crate) mod cancel;
pub(crate) mod control_block;
mod debug_list;
mod debugger;
pub(crate) mod delays;
pub(crate) mod extras;
pub(crate) mod fiber;
pub(crate) mod greenlet;
pub(crate) mod hooks;
pub(crate) mod mailbox;
pub(crate) mod overflow;
pub(crate) mod own_locals;
pub(crate) mod packet;
mod payload;
pub(crate) mod pending;
mod prefetch;
pub(crate) mod reason;
pub(crate) mod recorder;
pub(crate) mod remote_fiber;
pub(crate) mod root;
mod run_loop;
mod sampler;
mod simulated;
pub(crate) mod simulation;
pub(crate) mod stack;
pub(crate) mod stack_pool;
pub(crate) mod state;
pub(crate) mod suspended;
mod sweep;
pub(crate) mod teardown;
pub(crate) mod tls_pool;
mod traced;
pub(crate) mod wait_list;
pub(crate) mod wait_node;
