//! What few fibers have: values of green-local keys, and who wants to hear of the end.
//!
//! ```text
//!   control block                      on the heap, made for the first local or link
//!   | extras ------------------------> Extras | locals: key, value   key, value ...   in the order in which they were made
//!   | life: Plain | WithExtras | Ended        | links:  who is told  who is told ...  in the order in which they asked
//! ```
//!
//! A fiber without them costs its spawner a store and its end a compare: `life` says so in a line that both touch anyhow.
//!
//! ```text
//!            first local or link            locals destroyed, links told
//!   Plain ----------------------> WithExtras ----------------------------> Ended
//!     `--------------------------------------------------------------------^
//! ```
//!
//! * Invariant E1: `life` is WithExtras exactly while the block's `extras` is set, except for the moment of a
//!   `Fiber::with_extras`, in which no foreign code runs. Upheld by the functions of `fiber` that name the field.
//! * Invariant E2: the value of a key is made at most once in a fiber's life: an entry stays when its value is destroyed.
//!   So destroying ends, although destructors may make values of other keys. Upheld by `put` and `pop_local`.
#![forbid(unsafe_code)]

use std::any::Any;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;

/// How a green thread ended; see [`JoinHandle::on_finish`](crate::thread::JoinHandle::on_finish).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It returned.
    Returned,
    /// It panicked.
    Panicked,
    /// It was killed.
    Killed,
}

/// See the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It has no extras.
    Plain,
    /// It has.
    WithExtras,
    /// It has ended, and gets none any more.
    Ended(Ending),
}

/// A green-local key, whatever its type.
pub(crate) trait Key: Sync {
    /// Whether a new thread gets a value made from its spawner's.
    fn is_inherited(&self) -> bool;

    /// That value. Foreign code: it may panic and switch.
    fn inherit(&self, value: &dyn Any) -> Option<Rc<dyn Any>>;
}

/// Somebody of the crate who wants to hear of the end of threads.
pub(crate) trait Watch {
    /// One has ended, the one that was watched with this token. Called on its stack, after its locals are gone; must not
    /// switch, panic, or run foreign code.
    fn ended(self: Rc<Self>, token: u64);
}

/// Who is told of the end.
pub(crate) enum Link {
    /// The crate, at once.
    Watch(Rc<dyn Watch>, u64),
    /// The program, in a thread of its own, and where it asked.
    Call(Box<dyn FnOnce(Ending)>, &'static Location<'static>),
}

/// The value of one key.
struct Local {
    /// The key; its address is its identity.
    key: &'static dyn Key,
    /// The value; none once it was destroyed.
    value: Option<Rc<dyn Any>>,
}

/// What a fiber has of a key.
pub(crate) enum Found {
    /// Nothing yet.
    Nothing,
    /// A value.
    Value(Rc<dyn Any>),
    /// A value that was destroyed.
    Destroyed,
}

/// See the file.
#[derive(Default)]
pub(crate) struct Extras {
    /// Values, in the order in which they were made.
    locals: Vec<Local>,
    /// Who is told of the end, in the order in which they asked.
    links: Vec<Link>,
}

impl Extras {
    /// What is there of `key`.
    #[inline]
    pub(crate) fn find(&self, key: &'static dyn Key) -> Found {
        match self.locals.iter().find(|local| ptr::addr_eq(local.key, key)) {
            None => Found::Nothing,
            Some(Local { value: Some(value), .. }) => Found::Value(Rc::clone(value)),
            Some(_) => Found::Destroyed,
        }
    }

    /// Adds the value of a key that has none yet (invariant E2).
    pub(crate) fn put(&mut self, key: &'static dyn Key, value: Rc<dyn Any>) {
        self.locals.push(Local { key, value: Some(value) });
    }

    /// Takes out the value that was made last, for its destructor to run when no borrow is held.
    pub(crate) fn pop_local(&mut self) -> Option<Rc<dyn Any>> {
        self.locals.iter_mut().rev().find_map(|local| local.value.take())
    }

    /// The values that a thread spawned now gets a value from.
    pub(crate) fn inherited(&self) -> Vec<(&'static dyn Key, Rc<dyn Any>)> {
        let live = self.locals.iter().filter(|local| local.key.is_inherited());
        live.filter_map(|local| Some((local.key, Rc::clone(local.value.as_ref()?)))).collect()
    }

    /// Adds somebody who is told of the end.
    pub(crate) fn link(&mut self, link: Link) {
        self.links.push(link);
    }

    /// `watch` does not want to hear of it any more.
    pub(crate) fn unlink(&mut self, watch: &Rc<dyn Watch>, token: u64) {
        self.links.retain(|link| match link {
            Link::Watch(theirs, its) => !(Rc::ptr_eq(theirs, watch) && *its == token),
            Link::Call(..) => true,
        });
    }

    /// Everybody who is told of the end.
    pub(crate) fn into_links(self) -> Vec<Link> {
        self.links
    }
}
