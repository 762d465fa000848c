//! Why a join has no result: [`JoinError`].
#![forbid(unsafe_code)]

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Mutex, PoisonError};

use crate::pure::drops::drop_quietly;
use crate::switch::cancel::{self, GreenletExit, Killed};
use crate::switch::extras::Ending;

/// What a thread leaves at the end: the value, or why there is none.
pub(crate) type Outcome<T> = Result<T, JoinError>;

/// Why a [`join`](super::JoinHandle::join) has no result.
///
/// The error is `Send` and `Sync`, so `?` makes a `Box<dyn Error + Send + Sync>` of it.
///
/// ```
/// fn answer() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
///     Ok(greenling::spawn(|| 42).join()?)
/// }
/// assert_eq!(answer().unwrap(), 42);
/// ```
pub struct JoinError {
    kind: JoinErrorKind,
}

/// The reasons for a [`JoinError`].
enum JoinErrorKind {
    /// The thread was killed.
    Killed,
    /// The thread panicked, with this payload.
    Panicked(Box<PanicRecord>),
    /// The thread's hub ended; the flag: the thread had started.
    HubEnded(bool),
    /// The caller cannot wait for the thread; the text says why.
    Refused(String),
}

/// What is kept of a thread's panic.
struct PanicRecord {
    /// The text of the payload, if that is a string. Copied, since the payload cannot be borrowed out of the lock.
    message: Option<Cow<'static, str>>,
    /// The unwinding was one of the runtime's own kinds, not a panic of the program.
    control: bool,
    /// The payload. Payloads are `Send` but not `Sync`, hence the lock. The only access owns the lock, so there is
    /// never contention.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl PanicRecord {
    /// Makes the record of a panic with `payload`.
    #[cold]
    fn new(payload: Box<dyn Any + Send>) -> Box<PanicRecord> {
        // The text of `panic!`, with and without arguments.
        let message = match payload.downcast_ref::<&'static str>() {
            Some(text) => Some(Cow::Borrowed(*text)),
            None => payload.downcast_ref::<String>().map(|text| Cow::Owned(text.clone())),
        };
        Box::new(PanicRecord { message, control: cancel::is_control(&*payload), payload: Mutex::new(payload) })
    }

    /// Takes the payload out.
    fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JoinError {
    /// Makes the error of a thread that was killed.
    pub(super) fn killed() -> JoinError {
        JoinError { kind: JoinErrorKind::Killed }
    }

    /// Makes the error of a thread that unwound with `payload`.
    pub(super) fn unwound(payload: Box<dyn Any + Send>) -> JoinError {
        // The runtime's own payloads are kills; everything else is a panic of the program.
        if payload.is::<Killed>() || payload.is::<GreenletExit>() {
            return JoinError::killed();
        }
        JoinError::panicked(payload)
    }

    /// Returns the text of the thread's panic, if the thread panicked with one.
    pub(super) fn message(&self) -> Option<&str> {
        match &self.kind {
            JoinErrorKind::Panicked(panic) => panic.message.as_deref(),
            _ => None,
        }
    }

    /// Drops the payload of a panic; the rest stays.
    pub(super) fn drop_payload(&mut self) {
        if let JoinErrorKind::Panicked(panic) = &mut self.kind {
            let payload = panic.payload.get_mut().unwrap_or_else(PoisonError::into_inner);
            drop_quietly(mem::replace(payload, Box::new(())));
        }
    }

    /// Makes the error of a caller that cannot wait.
    pub(crate) fn refused(why: impl fmt::Display) -> JoinError {
        JoinError { kind: JoinErrorKind::Refused(why.to_string()) }
    }

    /// Makes the error of a thread that ended with the hub; `began`: the thread had started.
    pub(crate) fn hub_ended(began: bool) -> JoinError {
        JoinError { kind: JoinErrorKind::HubEnded(began) }
    }

    /// Makes the error of a thread that panicked with `payload`.
    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> JoinError {
        JoinError { kind: JoinErrorKind::Panicked(PanicRecord::new(payload)) }
    }

    /// Reports whether the thread was killed: by [`JoinHandle::kill`](super::JoinHandle::kill), the scope, or the end
    /// of the hub.
    ///
    /// May switch: no.
    pub fn is_killed(&self) -> bool {
        matches!(self.kind, JoinErrorKind::Killed | JoinErrorKind::HubEnded(_))
    }

    /// Reports whether the thread, one of another hub, was killed or never started because that hub ended or was shut
    /// down.
    ///
    /// May switch: no.
    pub fn is_hub_ended(&self) -> bool {
        matches!(self.kind, JoinErrorKind::HubEnded(_))
    }

    /// Reports whether the thread panicked.
    ///
    /// May switch: no.
    pub fn is_panic(&self) -> bool {
        matches!(self.kind, JoinErrorKind::Panicked(_))
    }

    /// Returns the payload of the thread's panic, or the error itself if the thread did not panic.
    ///
    /// # Errors
    /// If the thread did not panic.
    ///
    /// May switch: no.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.kind {
            JoinErrorKind::Panicked(panic) => Ok(panic.into_payload()),
            kind => Err(JoinError { kind }),
        }
    }

    /// Returns the payload of the thread's panic, to be passed to `std::panic::resume_unwind`.
    ///
    /// # Panics
    /// If the thread did not panic.
    ///
    /// May switch: no.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic on a thread that did not panic: {error}"),
        }
    }

    /// Returns the panic message, if that is a string, as that of `panic!` is.
    ///
    /// May switch: no.
    pub fn panic_message(&self) -> Option<&str> {
        let JoinErrorKind::Panicked(panic) = &self.kind else { return None };
        panic.message.as_deref()
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            JoinErrorKind::Killed => f.write_str("the green thread was killed"),
            JoinErrorKind::HubEnded(false) => f.write_str("the green thread never started: its hub has ended"),
            JoinErrorKind::HubEnded(true) => f.write_str("the green thread was killed: its hub has ended"),
            JoinErrorKind::Panicked(_) => {
                write!(f, "the green thread panicked: {}", self.panic_message().unwrap_or("(no message)"))
            }
            JoinErrorKind::Refused(why) => write!(f, "cannot wait for the green thread: {why}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> io::Error {
        io::Error::other(error)
    }
}

/// Makes what std's `join` returns: the payload of the thread's panic; or this error itself, if the thread did not
/// panic.
///
/// ```
/// use greenling::thread;
///
/// fn answer() -> thread::Result<u32> {
///     Ok(thread::spawn(|| 42).join()?)
/// }
/// assert_eq!(answer().unwrap(), 42);
/// ```
impl From<JoinError> for Box<dyn Any + Send> {
    fn from(error: JoinError) -> Self {
        error.try_into_panic().unwrap_or_else(|error| Box::new(error))
    }
}

/// Returns how a thread with this outcome ended.
#[inline(always)]
pub(super) fn ending_of<T>(outcome: &Outcome<T>) -> Ending {
    match outcome {
        Ok(_) => Ending::Returned,
        Err(JoinError { kind: JoinErrorKind::Panicked(_) }) => Ending::Panicked,
        Err(_) => Ending::Killed,
    }
}

/// Reports whether the thread ended with a panic of the program, as opposed to the runtime's own kinds of unwinding.
pub(super) fn is_program_panic(error: &JoinError) -> bool {
    match &error.kind {
        JoinErrorKind::Panicked(panic) => !panic.control,
        _ => false,
    }
}
