//! RESP, the protocol of Redis, as far as `redis-benchmark -t ping,set,get,incr` and its tests speak it: requests as
//! arrays of strings or as words on a line.

use std::io::Write;
use std::ops::Range;

use crate::store::{Shared, Store};
use crate::{Conversation, MUCH, Next};

/// The longest word on a line, and the longest line of words.
const LONGEST_LINE: usize = 8 * 1024;

/// The longest string.
const LONGEST_STRING: usize = 1024 * 1024;

/// The most strings of a request.
const MOST_STRINGS: usize = 1024;

/// A connection to the service.
#[derive(Debug)]
pub struct KeyValue<S> {
    store: S,
    /// Where the words of the request lie; kept, so that its memory is.
    words: Vec<Range<usize>>,
}

impl<S: Shared> KeyValue<S> {
    /// Serves a store.
    pub fn new(store: S) -> KeyValue<S> {
        KeyValue { store, words: Vec::new() }
    }
}

impl<S: Shared> Conversation for KeyValue<S> {
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> (usize, Next) {
        let words = &mut self.words;
        // One lock for all requests that are there.
        self.store.with(|store| {
            let mut used = 0;
            while used < bytes.len() {
                if answers.len() >= MUCH {
                    return (used, Next::Again);
                }
                words.clear();
                let rest = &bytes[used..];
                match parse(rest, words) {
                    Ok(Some(length)) => used += length,
                    Ok(None) => break,
                    Err(problem) => {
                        write!(answers, "-ERR Protocol error: {problem}\r\n").expect("a vector takes everything");
                        return (bytes.len(), Next::End);
                    }
                }
                if !words.is_empty() {
                    obey(store, rest, words, answers);
                }
            }
            (used, Next::Read)
        })
    }
}

/// Finds the words of the request at the beginning of `bytes`. Returns the length of the request; none if more bytes are
/// needed.
fn parse(bytes: &[u8], words: &mut Vec<Range<usize>>) -> Result<Option<usize>, &'static str> {
    if bytes[0] != b'*' {
        return inline(bytes, words);
    }
    let Some((count, mut at)) = number(bytes, 1, "invalid multibulk length")? else { return Ok(None) };
    if count > MOST_STRINGS as i64 {
        return Err("invalid multibulk length");
    }
    for _ in 0..count {
        // `$`, length, the string, and a line's end.
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(_) => return Err("expected '$'"),
        }
        let Some((length, begin)) = number(bytes, at + 1, "invalid bulk length")? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|&length| length <= LONGEST_STRING);
        let end = begin + length.ok_or("invalid bulk length")?;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        words.push(begin..end);
        at = end + 2;
    }
    Ok(Some(at))
}

/// Reads the number that begins at `from`, and returns it with the place behind its line.
fn number(bytes: &[u8], from: usize, problem: &'static str) -> Result<Option<(i64, usize)>, &'static str> {
    let mut value = 0_i64;
    let mut at = from;
    // Digits, by hand: there are two such numbers or more in each request.
    let is_negative = bytes.get(at) == Some(&b'-');
    at += usize::from(is_negative);
    let first = at;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' if at - first < 10 => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if at > first => {
                // The next byte is the line's end, whatever it is; Redis looks no closer.
                let value = if is_negative { -value } else { value };
                return Ok((bytes.len() > at + 1).then_some((value, at + 2)));
            }
            _ => return Err(problem),
        }
        at += 1;
    }
    Ok(None)
}

/// Finds the words of a line.
fn inline(bytes: &[u8], words: &mut Vec<Range<usize>>) -> Result<Option<usize>, &'static str> {
    let window = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() < LONGEST_LINE { Ok(None) } else { Err("too big inline request") };
    };
    let mut at = 0;
    for word in window[..end].split(|&byte| byte.is_ascii_whitespace()) {
        if !word.is_empty() {
            words.push(at..at + word.len());
        }
        at += word.len() + 1;
    }
    Ok(Some(end + 1))
}

/// Does what a request says.
fn obey(store: &mut Store, bytes: &[u8], words: &[Range<usize>], answers: &mut Vec<u8>) {
    let word = |n: usize| &bytes[words[n].clone()];
    let is = |name: &str| word(0).eq_ignore_ascii_case(name.as_bytes());
    match words.len() {
        1 if is("ping") => answers.extend_from_slice(b"+PONG\r\n"),
        2 if is("ping") || is("echo") => bulk(answers, Some(word(1))),
        2 if is("get") => bulk(answers, store.get(word(1))),
        3 if is("set") => {
            store.set(word(1), word(2));
            answers.extend_from_slice(b"+OK\r\n");
        }
        2 if is("incr") => match store.increment(word(1)) {
            Some(value) => integer(answers, value),
            None => answers.extend_from_slice(b"-ERR value is not an integer or out of range\r\n"),
        },
        2.. if is("del") => {
            let removed = (1..words.len()).filter(|&n| store.remove(word(n))).count();
            integer(answers, removed as i64);
        }
        // Drivers ask for settings first.
        3 if is("config") => answers.extend_from_slice(b"*0\r\n"),
        _ => {
            let name = String::from_utf8_lossy(word(0)).to_ascii_lowercase();
            let known = ["ping", "echo", "get", "set", "incr", "del", "config"].contains(&name.as_str());
            match known {
                true => write!(answers, "-ERR wrong number of arguments for '{name}' command\r\n"),
                false => write!(answers, "-ERR unknown command\r\n"),
            }
            .expect("a vector takes everything");
        }
    }
}

/// Adds a string, or the one that is none.
fn bulk(answers: &mut Vec<u8>, string: Option<&[u8]>) {
    let Some(string) = string else { return answers.extend_from_slice(b"$-1\r\n") };
    write!(answers, "${}\r\n", string.len()).expect("a vector takes everything");
    answers.extend_from_slice(string);
    answers.extend_from_slice(b"\r\n");
}

/// Adds a number.
fn integer(answers: &mut Vec<u8>, value: i64) {
    write!(answers, ":{value}\r\n").expect("a vector takes everything");
}
