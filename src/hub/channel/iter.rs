//! The iterators over a [`RemoteReceiver`].
#![forbid(unsafe_code)]

use std::iter::FusedIterator;

use super::ends::RemoteReceiver;

impl<T: Send> RemoteReceiver<T> {
    /// Returns an iterator over values as they come. The iterator ends when the channel is empty and closed, or empty
    /// and without senders.
    ///
    /// May switch: no, but its `next` does.
    pub fn iter(&self) -> RemoteIter<'_, T> {
        RemoteIter { receiver: self }
    }

    /// Returns an iterator over the values that are there now and that no waiting receiver is entitled to.
    ///
    /// May switch: no.
    pub fn try_iter(&self) -> RemoteTryIter<'_, T> {
        RemoteTryIter { receiver: self }
    }
}

impl<'a, T: Send> IntoIterator for &'a RemoteReceiver<T> {
    type Item = T;
    type IntoIter = RemoteIter<'a, T>;

    fn into_iter(self) -> RemoteIter<'a, T> {
        self.iter()
    }
}

impl<T: Send> IntoIterator for RemoteReceiver<T> {
    type Item = T;
    type IntoIter = RemoteIntoIter<T>;

    fn into_iter(self) -> RemoteIntoIter<T> {
        RemoteIntoIter { receiver: self }
    }
}

/// The iterator of [`RemoteReceiver::iter`], which waits for values.
#[derive(Debug)]
pub struct RemoteIter<'a, T> {
    receiver: &'a RemoteReceiver<T>,
}

impl<T: Send> Iterator for RemoteIter<'_, T> {
    type Item = T;

    /// Waits for the next value. Errors and panics are those of [`RemoteReceiver::recv`].
    ///
    /// May switch: yes.
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T: Send> FusedIterator for RemoteIter<'_, T> {}

/// The iterator of [`RemoteReceiver::try_iter`], which does not wait.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct RemoteTryIter<'a, T> {
    receiver: &'a RemoteReceiver<T>,
}

impl<T: Send> Iterator for RemoteTryIter<'_, T> {
    type Item = T;

    /// Takes the next value, if there is one.
    ///
    /// May switch: yes, if the caller's share of the CPU is used up (see [`thread`](crate::thread)).
    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// The iterator that owns its [`RemoteReceiver`], and waits for values.
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct RemoteIntoIter<T> {
    receiver: RemoteReceiver<T>,
}

impl<T: Send> Iterator for RemoteIntoIter<T> {
    type Item = T;

    /// Waits for the next value, as the `next` of [`RemoteIter`] does.
    ///
    /// May switch: yes.
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T: Send> FusedIterator for RemoteIntoIter<T> {}
