//! What few fibers have: values of green-local keys, and hooks to be called at the fiber's end.
//!
//! ```text
//!   control block                      on the heap, made for the first local or hook
//!   | extras ------------------------> Extras | locals: key, value   key, value ...   in the order of creation
//!   | life: Plain | WithExtras | Ended        | hooks:  hook   hook ...               in the order of registration
//! ```
//!
//! A fiber without extras costs a store at the spawn and a compare at the end: `life` lies in a cache line that both
//! touch anyhow.
//!
//! ```text
//!            first local or hook            locals destroyed, hooks called
//!   Plain ----------------------> WithExtras ----------------------------> Ended
//!     `--------------------------------------------------------------------^
//! ```
//!
//! * Invariant extras-1: `life` is `WithExtras` exactly while the block's `extras` is set, except during a call of
//!   `Fiber::with_extras`, in which no foreign code runs. Upheld by the functions of `fiber` that name the field.
//! * Invariant extras-2: the value of a key is made at most once in a fiber's life: an entry stays when the value is
//!   destroyed. So the destruction of locals ends, although destructors may make values of other keys. Upheld by
//!   `put` and `pop_local`.
#![forbid(unsafe_code)]

use std::any::Any;
use std::mem::take;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;

use super::tls_pool::BlockHold;
use crate::pure::drops::drop_each;

/// How a green thread ended; see [`JoinHandle::on_finish`](crate::thread::JoinHandle::on_finish).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The thread's closure returned.
    Returned,
    /// The thread's closure panicked.
    Panicked,
    /// The thread was killed.
    Killed,
}

/// Whether a fiber has extras: see the file's second picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The fiber has no extras.
    Plain,
    /// The fiber has extras.
    WithExtras,
    /// The fiber has ended, and gets no extras any more.
    Ended(Ending),
}

/// A green-local key, for values of any type.
pub(crate) trait Key: Sync {
    /// Reports whether a new thread gets a value made from the spawner's value.
    fn is_inherited(&self) -> bool;

    /// Makes that value. Foreign code: may panic and switch.
    fn inherit(&self, value: &dyn Any) -> Option<Rc<dyn Any>>;
}

/// A part of the crate that is told of the end of fibers.
pub(crate) trait EndListener {
    /// Called at the end of the fiber that was registered with `token`, on the fiber's stack, after the locals are
    /// gone. Must not switch, panic, or run foreign code.
    fn ended(self: Rc<Self>, token: u64);
}

/// What is called at the end of a fiber.
pub(crate) enum EndHook {
    /// A part of the crate, called at once, with the token of the registration.
    Listener(Rc<dyn EndListener>, u64),
    /// A callback of the program, called in a new thread, with the place that registered the callback and the hold on
    /// the thread-locals of the thread that did.
    Callback(Box<dyn FnOnce(Ending)>, &'static Location<'static>, BlockHold),
}

/// The value of one key.
struct Local {
    /// The key, identified by address.
    key: &'static dyn Key,
    /// The value; `None` once destroyed.
    value: Option<Rc<dyn Any>>,
}

/// What a fiber has of a key.
pub(crate) enum Found {
    /// No value was made yet.
    Nothing,
    /// The value of the key.
    Value(Rc<dyn Any>),
    /// The value was destroyed.
    Destroyed,
}

/// The locals and hooks of one fiber.
#[derive(Default)]
pub(crate) struct Extras {
    /// The locals, in the order of creation.
    locals: Vec<Local>,
    /// The hooks, in the order of registration.
    hooks: Vec<EndHook>,
}

impl Extras {
    /// Returns what the fiber has of `key`.
    #[inline]
    pub(crate) fn find(&self, key: &'static dyn Key) -> Found {
        match self.locals.iter().find(|local| ptr::addr_eq(local.key, key)) {
            None => Found::Nothing,
            Some(Local { value: Some(value), .. }) => Found::Value(Rc::clone(value)),
            Some(_) => Found::Destroyed,
        }
    }

    /// Adds the value of a key that has none yet (extras-2).
    pub(crate) fn put(&mut self, key: &'static dyn Key, value: Rc<dyn Any>) {
        self.locals.push(Local { key, value: Some(value) });
    }

    /// Takes out the newest value, so that the destructor runs when no borrow is held.
    pub(crate) fn pop_local(&mut self) -> Option<Rc<dyn Any>> {
        // The entry stays, without a value, so that the key's value is not made again (extras-2).
        self.locals.iter_mut().rev().find_map(|local| local.value.take())
    }

    /// Returns the values of inherited keys, for a thread that is spawned now.
    pub(crate) fn inherited(&self) -> Vec<(&'static dyn Key, Rc<dyn Any>)> {
        let live = self.locals.iter().filter(|local| local.key.is_inherited());
        live.filter_map(|local| Some((local.key, Rc::clone(local.value.as_ref()?)))).collect()
    }

    /// Registers a hook for the end.
    pub(crate) fn add_hook(&mut self, hook: EndHook) {
        self.hooks.push(hook);
    }

    /// Removes the hooks of `listener` with this token.
    pub(crate) fn remove_listener(&mut self, listener: &Rc<dyn EndListener>, token: u64) {
        self.hooks.retain(|hook| match hook {
            EndHook::Listener(other, number) => !(Rc::ptr_eq(other, listener) && *number == token),
            EndHook::Callback(..) => true,
        });
    }

    /// Takes the hooks out.
    pub(crate) fn take_hooks(&mut self) -> Vec<EndHook> {
        take(&mut self.hooks)
    }

    /// Returns the hooks to be called at the end.
    pub(crate) fn into_hooks(mut self) -> Vec<EndHook> {
        self.take_hooks()
    }
}

impl Drop for Extras {
    /// Drops the extras of a fiber that never began, or that ended without calling the hooks.
    fn drop(&mut self) {
        let locals = self.locals.drain(..).map(|local| (Some(local), None));
        // Each entry is foreign code; `drop_each` goes on after one that panics.
        drop_each(locals.chain(self.hooks.drain(..).map(|hook| (None, Some(hook)))));
    }
}
