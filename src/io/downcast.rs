//! A test whether a generic `Read` or `Write` is one of the crate's own types. So `copy` has std's signature, and the
//! kernel can still move the bytes between sockets.
//!
//! Stable Rust has no specialization, and `TypeId::of` requires a `'static` type, while `&TcpStream` lives as long as
//! its stream. But an id does not depend on lifetimes: `&'a TcpStream` and `&'static TcpStream` have the same one. So
//! the id is read through a trait object, with a lifetime that is extended for one call that reads no data.
//!
//! * Invariant downcast-1: types with the same id are the same but for their lifetimes. The compiler upholds this.
//! * Invariant downcast-2: the types tested for here (`TcpStream`, `UnixStream`, `PipeReader`, `PipeWriter`, the ends
//!   of a child's pipes, and both `File`s) have no lifetime parameter, so a cast to one of them cannot extend a
//!   lifetime; and the result is borrowed no longer than the argument. Upheld by the functions that call
//!   `downcast_ref`.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::fs::File;
use std::marker::PhantomData;
use std::ptr;

use super::child::{ChildStderr, ChildStdin, ChildStdout};
use super::pipe::{PipeReader, PipeWriter};
use crate::fs;
use crate::net::TcpStream;
use crate::net::copy::{Endpoint, Origin};
use crate::net::unix::UnixStream;

/// A type that can return an id, provided that the type is `'static`.
trait Named {
    /// Returns the id of the type.
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

/// Returns the id of a type, as if all of its lifetimes were `'static`.
fn id_of<T: ?Sized>() -> TypeId {
    let name = PhantomData::<T>;
    let name: &dyn Named = &name;
    // SAFETY: only a lifetime bound of the object is changed, and the reference is used for this one call, which reads
    // nothing through it: a `PhantomData` has no bytes.
    let name = unsafe { std::mem::transmute::<&dyn Named, &(dyn Named + 'static)>(name) };
    name.id()
}

/// Returns `value` as a `U` if `value` is a `U` or a reference to one.
///
/// `U` must have no lifetime parameter (downcast-2): the callers below are the only ones.
fn downcast_ref<T: ?Sized, U: 'static>(value: &T) -> Option<&U> {
    if id_of::<T>() == TypeId::of::<U>() {
        // SAFETY: `T` is `U`: downcast-1, downcast-2; the result is borrowed as `value` is.
        return Some(unsafe { &*ptr::from_ref(value).cast::<U>() });
    }
    if id_of::<T>() == TypeId::of::<&'static U>() {
        // SAFETY: `T` is a `&U` of some lifetime (downcast-1), which is at least that of the borrow of `value`.
        return Some(unsafe { *ptr::from_ref(value).cast::<&U>() });
    }
    None
}

/// Returns the socket that `value` is or refers to.
fn socket<T: ?Sized>(value: &T) -> Option<Endpoint<'_>> {
    let tcp = downcast_ref::<T, TcpStream>(value).map(Endpoint::Tcp);
    tcp.or_else(|| downcast_ref::<T, UnixStream>(value).map(Endpoint::Unix))
}

/// Returns the endpoint that the kernel can move bytes to, if `value` is one: a socket or a pipe.
pub(super) fn target<T: ?Sized>(value: &T) -> Option<Endpoint<'_>> {
    let own = || downcast_ref::<T, PipeWriter>(value);
    let childs = || downcast_ref::<T, ChildStdin>(value).map(ChildStdin::pipe);
    socket(value).or_else(|| own().or_else(childs).map(|end| Endpoint::Pipe(end)))
}

/// Returns the green file that `value` is or refers to.
pub(super) fn green_file<T: ?Sized>(value: &T) -> Option<&fs::File> {
    downcast_ref(value)
}

/// Returns the origin that the kernel can move bytes from, if `value` is one: a socket, a pipe or a regular file.
pub(super) fn origin<T: ?Sized>(value: &T) -> Option<Origin<'_>> {
    let own = || downcast_ref::<T, PipeReader>(value);
    let out = || downcast_ref::<T, ChildStdout>(value).map(ChildStdout::pipe);
    let err = || downcast_ref::<T, ChildStderr>(value).map(ChildStderr::pipe);
    if let Some(socket) = socket(value).or_else(|| own().or_else(out).or_else(err).map(|end| Endpoint::Pipe(end))) {
        return Some(Origin::Endpoint(socket));
    }
    // A read of a regular file does not wait for a peer; but a `File` may also be a pipe or a terminal.
    let file = downcast_ref::<T, File>(value)?;
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
        assert!(matches!(socket(&near), Some(Endpoint::Unix(found)) if ptr::eq(found, &near)));
        assert!(matches!(socket(&reference), Some(Endpoint::Unix(found)) if ptr::eq(found, &near)));
        assert!(socket(&&reference).is_none(), "one reference, as std's Read has it");
        assert!(socket(&BufReader::new(reference)).is_none(), "a reader with a buffer of its own");
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
