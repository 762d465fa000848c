//! HTTP/1.1 as far as the servers need it: the head of a request by `httparse`, and the heads of answers.

use std::io::Write;
use std::mem::MaybeUninit;

use crate::{MUCH, Next};

/// The longest head of a request.
pub const LONGEST_HEAD: usize = 8 * 1024;

/// The most headers of a request.
const MOST_HEADERS: usize = 64;

/// What a request asks for.
#[derive(Debug)]
pub struct Request<'a> {
    /// GET and so on.
    pub method: &'a str,
    /// The target, as it came.
    pub path: &'a str,
    /// Whether another request may follow.
    pub keep_alive: Keep,
    /// Bytes of the body.
    pub body: u64,
    /// Bytes of the head.
    pub head: usize,
}

/// Whether a connection goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As HTTP/1.1 does unless told otherwise: it goes on, and no header says so.
    Plain,
    /// It goes on, and HTTP/1.0 is told.
    Told,
    /// It ends.
    Close,
}

impl Keep {
    /// Returns the header that says so.
    pub fn header(self) -> &'static str {
        match self {
            Keep::Plain => "",
            Keep::Told => "connection: keep-alive\r\n",
            Keep::Close => "connection: close\r\n",
        }
    }
}

/// The statuses of requests that get no other answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400.
    Bad,
    /// 431.
    TooLarge,
    /// 501: a body in chunks.
    NotImplemented,
}

impl Refusal {
    /// Returns number and words.
    pub fn status(self) -> &'static str {
        match self {
            Refusal::Bad => "400 Bad Request",
            Refusal::TooLarge => "431 Request Header Fields Too Large",
            Refusal::NotImplemented => "501 Not Implemented",
        }
    }
}

/// Reads the head of a request; none if more bytes are needed. The answer is the same however the bytes were cut.
fn parse(bytes: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
    let window = &bytes[..bytes.len().min(LONGEST_HEAD)];
    let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    // The head ends within the window, or more is needed, or it is too long.
    let head = match parsed.parse_with_uninit_headers(window, &mut headers) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if window.len() < LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Refusal::Bad),
    };
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Bad);
    };
    // Three headers matter.
    let mut keep_alive = if version == 1 { Keep::Plain } else { Keep::Close };
    let mut body = None;
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = said(header.value, version, keep_alive);
        } else if header.name.eq_ignore_ascii_case("content-length") {
            let length = length(header.value).ok_or(Refusal::Bad)?;
            if body.replace(length).is_some_and(|other| other != length) {
                return Err(Refusal::Bad);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Refusal::NotImplemented);
        }
    }
    Ok(Some(Request { method, path, keep_alive, body: body.unwrap_or(0), head }))
}

/// What a header `connection` makes of what was so.
fn said(value: &[u8], version: u8, before: Keep) -> Keep {
    let has = |word: &str| {
        value.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    match version {
        _ if has("close") => Keep::Close,
        0 if has("keep-alive") => Keep::Told,
        _ => before,
    }
}

/// A length in digits.
fn length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Adds the head of an answer.
pub fn head(answers: &mut Vec<u8>, status: &str, length: u64, keep_alive: Keep) {
    let kind = if status.starts_with("200") { "content-type: text/plain\r\n" } else { "" };
    let keep_alive = keep_alive.header();
    write!(answers, "HTTP/1.1 {status}\r\n{kind}{keep_alive}content-length: {length}\r\n\r\n")
        .expect("a vector takes everything");
}

/// Adds the answer after which a connection ends.
fn refuse(answers: &mut Vec<u8>, refusal: Refusal) {
    head(answers, refusal.status(), 0, Keep::Close);
}

/// The bytes of a body that no service looks at.
#[derive(Debug, Default)]
pub struct Body {
    left: u64,
}

impl Body {
    /// Reads the next request of `bytes` from `used` on, behind the rest of this body, and expects its own.
    ///
    /// # Errors
    /// What comes in place of a request: more bytes are needed, the answers are many, or it was refused, and so all is
    /// used.
    #[inline]
    pub fn next_request<'a>(
        &mut self,
        bytes: &'a [u8],
        used: &mut usize,
        answers: &mut Vec<u8>,
    ) -> Result<Request<'a>, Next> {
        *used += self.skip(bytes.len() - *used);
        if *used == bytes.len() {
            return Err(Next::Read);
        }
        if answers.len() >= MUCH {
            return Err(Next::Again);
        }
        match parse(&bytes[*used..]) {
            Ok(Some(request)) => {
                *used += request.head;
                self.left = request.body;
                Ok(request)
            }
            Ok(None) => Err(Next::Read),
            Err(refusal) => {
                refuse(answers, refusal);
                *used = bytes.len();
                Err(Next::End)
            }
        }
    }

    /// Returns how many of so many bytes belong to the body, and forgets them.
    fn skip(&mut self, there: usize) -> usize {
        let skipped = self.left.min(there as u64);
        self.left -= skipped;
        skipped as usize
    }
}
