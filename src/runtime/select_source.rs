//! The sources that an arm of [`select!`](crate::select!) can wait for: one trait for each kind of arm.
//!
//! ```text
//!   recv(receiver)  -->  SelectRecv::select_recv(&receiver)  -->  an arm, a `SelectArm` of `runtime::choose`
//! ```
//!
//! The macro and [`Select`](crate::Select) make their arms with the same methods. Each type implements the traits of
//! its kinds next to its other methods. The traits are sealed: outside of the crate no type can be a [`SelectArm`].
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SendError;

use super::choose::SelectArm;

/// Implements a trait for pointers to its sources, which `Select` takes by reference.
macro_rules! pointers {
    ($source:ident::$method:ident: $($pointer:ty),+) => {$(
        impl<S: $source> $source for $pointer {
            type Arm<'a>
                = S::Arm<'a>
            where
                Self: 'a;

            #[inline]
            fn $method(&self) -> S::Arm<'_> {
                (**self).$method()
            }
        }
    )+};
}

/// Declares the traits of the arms that take one argument, the source.
macro_rules! sources {
    ($(#[$doc:meta] $source:ident::$method:ident;)+) => {$(
        #[$doc]
        pub trait $source {
            /// The arm that waits for this source, with what the arm yields as its `Output`.
            type Arm<'a>: SelectArm + 'a
            where
                Self: 'a;

            /// Makes an arm that waits for this source.
            fn $method(&self) -> Self::Arm<'_>;
        }

        pointers! { $source::$method: &S, Box<S>, Rc<S>, Arc<S> }
    )+};
}

sources! {
    /// A source of values: the arm `recv(receiver)`.
    SelectRecv::select_recv;
    /// A thread that ends: the arms `end(handle)` and `join(handle)`.
    SelectEnd::select_end;
    /// A signal, a permit or a result that comes: the arm `wait(source)`.
    SelectWait::select_wait;
    /// A descriptor that becomes readable: the arm `readable(source)`.
    SelectReadable::select_readable;
    /// A descriptor that becomes writable: the arm `writable(source)`.
    SelectWritable::select_writable;
    /// A listener: the arm `accept(listener)`.
    SelectAccept::select_accept;
}

/// A sender: the arm `send(sender, value)`.
pub trait SelectSend {
    /// The type of the values that are sent.
    type Value;

    /// The arm that sends a value of its own.
    type Arm<'a>: SelectArm<Output = Result<(), SendError<Self::Value>>> + 'a
    where
        Self: 'a;

    /// Makes the arm that sends `value`.
    fn select_send(&self, value: Self::Value) -> Self::Arm<'_>;
}

/// A sender that may have to wait: the arm `send_from(sender, slot)`.
pub trait SelectSendFrom: SelectSend {
    /// The arm that sends a value out of a slot.
    type FromArm<'a>: SelectArm<Output = Result<(), SendError<Self::Value>>> + 'a
    where
        Self: 'a;

    /// Makes the arm that sends what is in `slot`, and leaves the value there if another arm wins.
    fn select_send_from<'a>(&'a self, slot: &'a mut Option<Self::Value>) -> Self::FromArm<'a>;
}

/// Implements the traits of senders for pointers to senders.
macro_rules! pointers_to_senders {
    ($($pointer:ty),+) => {$(
        impl<S: SelectSend> SelectSend for $pointer {
            type Value = S::Value;

            type Arm<'a>
                = S::Arm<'a>
            where
                Self: 'a;

            #[inline]
            fn select_send(&self, value: S::Value) -> S::Arm<'_> {
                (**self).select_send(value)
            }
        }

        impl<S: SelectSendFrom> SelectSendFrom for $pointer {
            type FromArm<'a>
                = S::FromArm<'a>
            where
                Self: 'a;

            #[inline]
            fn select_send_from<'a>(&'a self, slot: &'a mut Option<S::Value>) -> S::FromArm<'a> {
                (**self).select_send_from(slot)
            }
        }
    )+};
}

pointers_to_senders! { &S, Box<S>, Rc<S>, Arc<S> }
