//! Channels between the green threads of one OS thread.
//!
//! | made by | holds | a full one |
//! |---|---|---|
//! | [`rendezvous`] | nothing: a value goes from hand to hand | `send` waits for a receiver |
//! | [`bounded`]`(n)` | up to `n` values, the oldest is received first | `send` waits for room |
//! | [`unbounded`] | any number, the oldest first | |
//! | [`priority`] | any number, the greatest first | |
//! | [`lifo`] | any number, the newest first | |
//! | [`broadcast`]`(n)` | the last `n` values, and *every* receiver gets each | forgets the oldest; a receiver that is
//! late is told |
//!
//! ```
//! use greenling::{channel, spawn};
//!
//! let (send, receive) = channel::bounded(2);
//! let producer = spawn(move || {
//!     for n in 0..10 {
//!         send.send(n).unwrap(); // waits while two are in it
//!     }
//! });
//! assert_eq!(receive.iter().sum::<i32>(), 45); // until the sender is gone
//! producer.join().unwrap();
//! ```
//!
//! # What all of them promise
//!
//! * Any number of senders and receivers: clone the ends. They stay on their OS thread, which the compiler checks; the
//!   ends of [`hub::channel`](crate::hub::channel) may move to other OS threads.
//! * First come, first served, on both sides. A value is handed to the receiver that waits longest, and a receiver that
//!   comes before that one runs cannot take the value away. The sender that waits longest gets the first room.
//! * Nothing is lost. If the receiver that was handed a value is killed or times out before it has run, the next
//!   receiver gets the value, or the value stays at the front. A sender that is killed after its value was taken has
//!   sent the value; before that, the value is dropped with the sender's call.
//! * When all senders are dropped, receivers get what is left, then `Disconnected`. When all receivers are dropped,
//!   what is left is dropped, and senders, those that wait included, get their value back. [`close`](Sender::close)
//!   does both from any end, and the values that are left can still be received;
//!   [`close_and_discard`](Sender::close_and_discard) drops them. If destructors of several values panic, the first
//!   panic comes out when all are dropped; the others end with their value.
//! * A call that need not wait does not switch, and works also while the thread unwinds. A call that would have to wait
//!   while the thread unwinds returns at once: as if the time was up if the call has a time limit, else as if the
//!   channel was disconnected.
//! * [`select!`](crate::select) waits for several channels, and other things, at once.
//!
//! The errors are those of [`std::sync::mpsc`]; [`sync::mpsc`](crate::sync::mpsc) has std's names and functions, too.

mod broadcast;
mod core;
mod ends;
mod error;
mod store;

use std::panic::{RefUnwindSafe, UnwindSafe};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

pub use broadcast::{BroadcastError, BroadcastReceiver, BroadcastSender, broadcast};
pub use ends::{IntoIter, Iter, Receiver, Sender, TryIter, bounded, lifo, priority, rendezvous, unbounded};
pub use error::SendTimeoutError;

// A panic leaves a channel in order, and its values with the receivers. std says the same of its own channels.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}
impl<T> UnwindSafe for BroadcastSender<T> {}
impl<T> RefUnwindSafe for BroadcastSender<T> {}
impl<T> UnwindSafe for BroadcastReceiver<T> {}
impl<T> RefUnwindSafe for BroadcastReceiver<T> {}
