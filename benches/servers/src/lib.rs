//! What the Rust servers of this package share: the services without their sockets. A runtime reads bytes, feeds them
//! to the conversation of the connection, and writes the answer; so the servers differ in how they wait, and in nothing
//! else.
//!
//! ```text
//! PROGRAM hello           HTTP/1.1: hello to each request
//! PROGRAM kv              a key-value store that speaks RESP
//! PROGRAM files FOLDER    HTTP/1.1: the files of a folder
//! ```
//!
//! Each prints `listening on ADDR` and serves until killed. The programs `streams_..` have services of their own: see
//! [`streams`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::{env, process};

pub mod files;
pub mod hello;
pub mod http;
pub mod resp;
pub mod store;
pub mod streams;

/// Bytes of the buffer into which a connection is read.
pub const BUFFER: usize = 16 * 1024;

/// Bytes of answers after which these are written, whatever requests are still there.
pub const MUCH: usize = 64 * 1024;

/// What the command line asks for.
pub enum Service {
    /// Hello over HTTP.
    Hello,
    /// A key-value store.
    KeyValue,
    /// The files of this folder over HTTP.
    Files(PathBuf),
}

impl Service {
    /// Returns what the command line asks for; ends the program if that is nothing.
    pub fn asked() -> Service {
        let mut arguments = env::args().skip(1);
        match (arguments.next().as_deref(), arguments.next()) {
            (Some("hello"), None) => Service::Hello,
            (Some("kv"), None) => Service::KeyValue,
            (Some("files"), Some(folder)) => Service::Files(folder.into()),
            _ => {
                eprintln!("usage: PROGRAM hello | kv | files FOLDER");
                process::exit(2);
            }
        }
    }
}

/// What a server does after it has written the answers.
#[derive(Debug)]
pub enum Next {
    /// Read more.
    Read,
    /// Ask again, with nothing to feed: answers have become many, and there are more requests.
    Again,
    /// Send so many bytes of a file, then ask again, with nothing to feed.
    Send(File, u64),
    /// End the connection.
    End,
}

/// One side of a connection, without the connection.
pub trait Conversation {
    /// Answers the requests that lie whole at the beginning of `bytes`. Returns how many bytes these had, and what comes
    /// next.
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> (usize, Next);
}

/// A conversation, and the bytes of requests that are not whole yet.
#[derive(Debug, Default)]
pub struct Fed<C> {
    conversation: C,
    pending: Vec<u8>,
}

impl<C: Conversation> Fed<C> {
    /// Returns a conversation in which nothing was said.
    pub fn new(conversation: C) -> Fed<C> {
        Fed { conversation, pending: Vec::new() }
    }

    /// Takes bytes that were read, and adds what there is to answer to `answers`.
    pub fn feed(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> Next {
        // Whole requests are answered where they lie; only the rest is kept.
        if self.pending.is_empty() {
            let (used, next) = self.conversation.answer(bytes, answers);
            self.pending.extend_from_slice(&bytes[used..]);
            return next;
        }
        self.pending.extend_from_slice(bytes);
        let (used, next) = self.conversation.answer(&self.pending, answers);
        self.pending.drain(..used);
        next
    }
}
