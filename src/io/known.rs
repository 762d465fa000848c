//! Which of the crate's own types is behind a generic `Read` or `Write`? So that `copy` keeps std's signature and still
//! lets the kernel move the bytes between sockets.
//!
//! Stable Rust has no specialization, and `TypeId::of` wants types that live for ever, while `&TcpStream` lives as long as
//! its stream. The id itself knows no lifetimes: `&'a TcpStream` and `&'static TcpStream` have the same. So it is asked for
//! through a trait object whose lifetime is extended for the time of one call that looks at no data.
//!
//! * Invariant T1: types with the same id are the same but for their lifetimes. The compiler upholds it.
//! * Invariant T2: the types looked for here (`TcpStream`, `UnixStream`, `PipeReader`, `PipeWriter`, the ends of a child's pipes,
//!   and both `File`s) have no lifetime parameter, so there is no lifetime that a cast to them could make longer; and what
//!   comes out is borrowed no longer than what goes in.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::fs::File;
use std::marker::PhantomData;
use std::ptr;

use super::pipe::{PipeReader, PipeWriter};
use crate::fs;
use crate::net::TcpStream;
use crate::net::copy::{Origin, Socket};
use crate::os::unix::net::UnixStream;
use crate::process::{ChildStderr, ChildStdin, ChildStdout};

/// Says its id, if it lives for ever.
trait Named {
    /// The id of the type.
    fn id(&self) -> TypeId
    where
        Self: 'static;
}

impl<T: ?Sized> Named for PhantomData<T> {
    fn id(&self) -> TypeId
    where
        Self: 'static,
    {
        TypeId::of::<T>()
    }
}

/// The id of a type, as if all of its lifetimes were `'static`.
fn id_of<T: ?Sized>() -> TypeId {
    let name = PhantomData::<T>;
    let name: &dyn Named = &name;
    // SAFETY: only a lifetime bound of the object is changed, and the reference is used for this one call, which reads
    // nothing through it: a `PhantomData` has no bytes.
    let name = unsafe { std::mem::transmute::<&dyn Named, &(dyn Named + 'static)>(name) };
    name.id()
}

/// `value`, if it is a `U`, or a reference to one.
///
/// `U` must have no lifetime parameter (T2): the callers below are the only ones.
fn known<T: ?Sized, U: 'static>(value: &T) -> Option<&U> {
    if id_of::<T>() == TypeId::of::<U>() {
        // SAFETY: `T` is `U`: T1, T2; the result is borrowed as `value` is.
        return Some(unsafe { &*ptr::from_ref(value).cast::<U>() });
    }
    if id_of::<T>() == TypeId::of::<&'static U>() {
        // SAFETY: `T` is a `&U` of some lifetime (T1), which is at least that of the borrow of `value`.
        return Some(unsafe { *ptr::from_ref(value).cast::<&U>() });
    }
    None
}

/// The socket that `value` is, or refers to.
fn socket<T: ?Sized>(value: &T) -> Option<Socket<'_>> {
    let tcp = known::<T, TcpStream>(value).map(Socket::Tcp);
    tcp.or_else(|| known::<T, UnixStream>(value).map(Socket::Unix))
}

/// What bytes can be moved to by the kernel: a socket or a pipe.
pub(super) fn target<T: ?Sized>(value: &T) -> Option<Socket<'_>> {
    let own = || known::<T, PipeWriter>(value);
    let childs = || known::<T, ChildStdin>(value).map(ChildStdin::pipe);
    socket(value).or_else(|| own().or_else(childs).map(|end| Socket::Pipe(end)))
}

/// The green file that `value` is, or refers to.
pub(super) fn green_file<T: ?Sized>(value: &T) -> Option<&fs::File> {
    known(value)
}

/// What bytes can be moved from by the kernel: a socket, a pipe or a regular file.
pub(super) fn origin<T: ?Sized>(value: &T) -> Option<Origin<'_>> {
    let own = || known::<T, PipeReader>(value);
    let out = || known::<T, ChildStdout>(value).map(ChildStdout::pipe);
    let err = || known::<T, ChildStderr>(value).map(ChildStderr::pipe);
    if let Some(socket) = socket(value).or_else(|| own().or_else(out).or_else(err).map(|end| Socket::Pipe(end))) {
        return Some(Origin::Socket(socket));
    }
    // A `File` may be a pipe or a terminal, of which a read may wait.
    let file = known::<T, File>(value)?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(Origin::File(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    #[test]
    fn streams_and_files_are_recognised_and_nothing_else() {
        let (near, _far) = UnixStream::pair().unwrap();
        let reference = &near;
        assert!(matches!(socket(&near), Some(Socket::Unix(found)) if ptr::eq(found, &near)));
        assert!(matches!(socket(&reference), Some(Socket::Unix(found)) if ptr::eq(found, &near)));
        assert!(socket(&&reference).is_none(), "one reference, as std's Read has it");
        assert!(socket(&BufReader::new(reference)).is_none(), "it has a buffer of its own");
        let dynamic: &dyn Read = &reference;
        assert!(socket(dynamic).is_none());
        assert!(socket("text").is_none() && socket(&7).is_none());
        let file = File::open("/proc/self/exe").unwrap();
        assert!(matches!(origin(&&file), Some(Origin::File(found)) if ptr::eq(found, &file)));
        assert!(origin(&File::open("/dev/null").unwrap()).is_none(), "not a regular file");
        assert!(socket(&file).is_none() && green_file(&file).is_none());
        let green = fs::File::from(file);
        assert!(green_file(&&green).is_some_and(|found| ptr::eq(found, &green)));
        let (reader, writer) = crate::io::pipe().unwrap();
        assert!(origin(&reader).is_some() && target(&&writer).is_some());
        assert!(origin(&writer).is_none() && target(&reader).is_none(), "the other direction");
    }

    #[test]
    fn an_id_does_not_depend_on_lifetimes() {
        fn id_of_value<T>(_: &T) -> TypeId {
            id_of::<T>()
        }
        let local = 1;
        assert_eq!(id_of_value(&&local), TypeId::of::<&'static i32>());
        assert_ne!(id_of_value(&&local), TypeId::of::<&'static u32>());
    }
}
