//! Hello to each request of HTTP/1.1.

use crate::http::{self, Body, Keep};
use crate::{Conversation, Next};

/// What is said.
pub const HELLO: &str = "Hello, world!";

/// The answer to most requests, made once.
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, world!";

/// A connection to the service.
#[derive(Debug, Default)]
pub struct Hello {
    body: Body,
}

impl Conversation for Hello {
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> (usize, Next) {
        let mut used = 0;
        loop {
            let request = match self.body.next_request(bytes, &mut used, answers) {
                Ok(request) => request,
                Err(next) => return (used, next),
            };
            // The usual request has its answer ready.
            if request.method != "HEAD" && request.keep_alive == Keep::Plain {
                answers.extend_from_slice(ANSWER.as_bytes());
                continue;
            }
            http::head(answers, "200 OK", HELLO.len() as u64, request.keep_alive);
            if request.method != "HEAD" {
                answers.extend_from_slice(HELLO.as_bytes());
            }
            if request.keep_alive == Keep::Close {
                return (bytes.len(), Next::End);
            }
        }
    }
}
