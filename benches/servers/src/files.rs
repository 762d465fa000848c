//! The files of a folder over HTTP/1.1. The conversation opens the file, the server sends it.

use std::fs::File;
use std::path::PathBuf;

use crate::http::{self, Body, Keep, Request};
use crate::{Conversation, Next};

/// A connection to the service.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    body: Body,
    /// The connection ends when the file is sent.
    ends: bool,
}

impl Files {
    /// Serves the files of a folder, without those of folders in it.
    pub fn new(folder: PathBuf) -> Files {
        Files { folder, body: Body::default(), ends: false }
    }

    /// Opens what is asked for; none if there is no such file.
    fn open(&self, path: &str) -> Option<(File, u64)> {
        let name = path.strip_prefix('/')?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.starts_with('.') || name.is_empty() || !name.bytes().all(is_plain) {
            return None;
        }
        let file = File::open(self.folder.join(name)).ok()?;
        let about = file.metadata().ok()?;
        about.is_file().then_some((file, about.len()))
    }

    /// Adds the head of the answer, and returns the file that follows it.
    fn reply(&self, request: &Request<'_>, answers: &mut Vec<u8>) -> Option<(File, u64)> {
        if !matches!(request.method, "GET" | "HEAD") {
            http::head(answers, "405 Method Not Allowed", 0, request.keep_alive);
            return None;
        }
        let Some((file, length)) = self.open(request.path) else {
            http::head(answers, "404 Not Found", 0, request.keep_alive);
            return None;
        };
        http::head(answers, "200 OK", length, request.keep_alive);
        (request.method == "GET").then_some((file, length))
    }
}

impl Conversation for Files {
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> (usize, Next) {
        let mut used = 0;
        loop {
            if self.ends {
                return (bytes.len(), Next::End);
            }
            let request = match self.body.next_request(bytes, &mut used, answers) {
                Ok(request) => request,
                Err(next) => return (used, next),
            };
            self.ends = request.keep_alive == Keep::Close;
            if let Some((file, length)) = self.reply(&request, answers) {
                return (used, Next::Send(file, length));
            }
        }
    }
}
