//! What each server promises, asked of each: the same requests get the same bytes back.

mod common;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use common::{Client, Script, each, each_library};

/// Connections at once.
const MANY: usize = 200;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, world!";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn line(request: &str, answer: &str) -> (Vec<u8>, Vec<u8>) {
    (request.as_bytes().to_vec(), answer.as_bytes().to_vec())
}

/// What ends a connection, with its status.
fn refused(request: &str, status: &str) -> (Vec<u8>, Vec<u8>) {
    line(request, &format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"))
}

fn bad_requests() -> Vec<(Vec<u8>, Vec<u8>)> {
    let (bad, large) = ("400 Bad Request", "431 Request Header Fields Too Large");
    vec![
        refused("nonsense\r\n\r\n", bad),
        refused("GET / HTTP/3.0\r\n\r\n", bad),
        refused("GET / HTTP/1.1\r\na b: c\r\n\r\n", bad),
        refused("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", bad),
        refused("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", bad),
        refused("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "501 Not Implemented"),
        refused(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000)), large),
        refused(&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(9000)), large),
        refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), large),
        refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: bcdef\r\n".repeat(900)), large),
    ]
}

fn hello() -> Script {
    let closing =
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 13\r\n\r\nHello, world!";
    let kept = closing.replace("close", "keep-alive");
    let mut last = bad_requests();
    last.push(line("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", closing));
    last.push(line("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\n\r\n", closing));
    Script {
        anchor: (GET, HELLO.into()),
        lines: vec![
            line(str::from_utf8(GET).unwrap(), HELLO),
            line(
                "GET /a/path?with=query HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nConnection: Keep-Alive\r\n\r\n",
                HELLO,
            ),
            line("POST / HTTP/1.1\r\ncontent-LENGTH: 30\r\n\r\nGET / HTTP/1.1\r\nnot a request.", HELLO),
            line("HEAD / HTTP/1.1\r\n\r\n", HELLO.strip_suffix("Hello, world!").unwrap()),
            line("GET / HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n", &kept),
            line("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", HELLO),
        ],
        last,
    }
}

fn key_value() -> Script {
    let command = |words: &[&str], answer: &str| {
        let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        (words, answer.to_owned())
    };
    let array = |words: &[&str], answer: &str| {
        let (text, answer) = command(words, answer);
        line(&format!("*{}\r\n{text}", words.len()), &answer)
    };
    let problem = |request: &str, problem: &str| line(request, &format!("-ERR Protocol error: {problem}\r\n"));
    Script {
        anchor: (b"PING\r\n", b"+PONG\r\n".to_vec()),
        lines: vec![
            line("PING\r\n", "+PONG\r\n"),
            array(&["PING"], "+PONG\r\n"),
            array(&["ping", "a word"], "$6\r\na word\r\n"),
            array(&["GET", "key"], "$-1\r\n"),
            array(&["SET", "key", "two\r\nlines"], "+OK\r\n"),
            array(&["get", "key"], "$10\r\ntwo\r\nlines\r\n"),
            array(&["INCR", "key"], "-ERR value is not an integer or out of range\r\n"),
            array(&["SET", "key", ""], "+OK\r\n"),
            array(&["GET", "key"], "$0\r\n\r\n"),
            array(&["INCR", "count"], ":1\r\n"),
            line("incr  count\n", ":2\r\n"),
            array(&["GET", "count"], "$1\r\n2\r\n"),
            line("\r\nSET count -1\r\n", "+OK\r\n"),
            array(&["INCR", "count"], ":0\r\n"),
            line("SET count 9223372036854775807\r\n", "+OK\r\n"),
            array(&["INCR", "count"], "-ERR value is not an integer or out of range\r\n"),
            line("*0\r\n*-1\r\nDEL key count none\r\n", ":2\r\n"),
            array(&["CONFIG", "GET", "save"], "*0\r\n"),
            array(&["GET"], "-ERR wrong number of arguments for 'get' command\r\n"),
            array(&["FLY", "away"], "-ERR unknown command\r\n"),
        ],
        last: vec![
            problem("*x\r\n", "invalid multibulk length"),
            problem("*2000\r\n", "invalid multibulk length"),
            problem("*1\r\nPING\r\n", "expected '$'"),
            problem("*1\r\n$-1\r\n", "invalid bulk length"),
            problem("*1\r\n$2000000\r\n", "invalid bulk length"),
            problem(&"a".repeat(9000), "too big inline request"),
        ],
    }
}

/// A folder with files, which goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{test}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("small.txt"), "small").unwrap();
        fs::write(folder.join("empty"), "").unwrap();
        fs::write(folder.join("large"), large()).unwrap();
        Folder(folder)
    }

    fn service(&self) -> [&str; 2] {
        ["files", self.0.to_str().unwrap()]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// More than one buffer.
fn large() -> Vec<u8> {
    (0..50_000_u32).flat_map(|n| (n * 7).to_le_bytes()[..2].to_vec()).collect()
}

fn files() -> Script {
    let ok = |length: usize| format!("{OK}content-length: {length}\r\n\r\n");
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let small = format!("{}small", ok(5));
    let mut last = bad_requests();
    last.push(line(
        "GET /small.txt HTTP/1.1\r\nConnection: close\r\n\r\n",
        &format!("{OK}connection: close\r\ncontent-length: 5\r\n\r\nsmall"),
    ));
    Script {
        anchor: (b"GET /small.txt HTTP/1.1\r\n\r\n", small.clone().into_bytes()),
        lines: vec![
            line("GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n", &small),
            (b"GET /large HTTP/1.1\r\n\r\n".to_vec(), [ok(100_000).into_bytes(), large()].concat()),
            line("HEAD /large HTTP/1.1\r\n\r\n", &ok(100_000)),
            line("GET /empty HTTP/1.1\r\n\r\n", &ok(0)),
            line("GET /missing HTTP/1.1\r\n\r\n", missing),
            line("GET /../servers.rs HTTP/1.1\r\n\r\n", missing),
            line("GET / HTTP/1.1\r\n\r\n", missing),
            line(
                "POST /small.txt HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET ",
                &missing.replace("404 Not Found", "405 Method Not Allowed"),
            ),
        ],
        last,
    }
}

#[test]
fn hello_is_said_to_each_request() {
    each(&["hello"], |server| hello().one_by_one(server));
}

#[test]
fn hello_is_said_wherever_requests_are_cut() {
    each(&["hello"], |server| hello().cut_everywhere(server));
}

#[test]
fn hello_is_said_to_all_requests_that_come_at_once() {
    each(&["hello"], |server| hello().pipelined(server));
}

#[test]
fn hello_is_said_to_many() {
    each(&["hello"], |server| hello().many(server, MANY));
}

#[test]
fn commands_are_obeyed() {
    each(&["kv"], |server| key_value().one_by_one(server));
}

#[test]
fn commands_are_obeyed_wherever_they_are_cut() {
    each(&["kv"], |server| key_value().cut_everywhere(server));
}

#[test]
fn commands_that_come_at_once_are_obeyed_in_order() {
    each(&["kv"], |server| key_value().pipelined(server));
}

#[test]
fn commands_of_many_are_obeyed() {
    each(&["kv"], |server| key_value().many(server, MANY));
}

#[test]
fn connections_share_one_store() {
    each(&["kv"], |server| {
        let mut clients: Vec<_> = (0..20).map(|_| Client::of(server)).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.say(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n");
            client.hear(format!(":{}\r\n", n + 1).as_bytes(), "counted by all");
        }
    });
}

#[test]
fn a_large_value_comes_back() {
    let value = vec![b'v'; 1_000_000];
    let set = [b"*3\r\n$3\r\nSET\r\n$1\r\nv\r\n$1000000\r\n", &*value, b"\r\n"].concat();
    let got = [b"+OK\r\n$1000000\r\n", &*value, b"\r\n"].concat();
    each(&["kv"], |server| Client::of(server).talk(&[&set, &b"GET v\r\n"[..]].concat(), &got, "a large value"));
}

#[test]
fn files_are_sent() {
    let folder = Folder::new("one");
    each(&folder.service(), |server| files().one_by_one(server));
}

#[test]
fn files_are_sent_wherever_requests_are_cut() {
    let folder = Folder::new("cut");
    each(&folder.service(), |server| files().cut_everywhere(server));
}

#[test]
fn files_are_sent_for_all_requests_that_come_at_once() {
    let folder = Folder::new("pipelined");
    each(&folder.service(), |server| files().pipelined(server));
}

#[test]
fn files_are_sent_to_many() {
    let folder = Folder::new("many");
    each(&folder.service(), |server| files().many(server, MANY));
}

#[test]
fn libraries_say_hello_at_once_and_cut_and_refuse_what_is_no_request() {
    each_library(|server| {
        let answer = (200, b"Hello, world!".to_vec());
        let mut client = Client::of(server);
        for at in 1..GET.len() {
            client.say(&[GET, &GET[..at]].concat());
            assert_eq!(client.hear_http(), answer, "{}", server.name);
            client.say(&GET[at..]);
            assert_eq!(client.hear_http(), answer, "{}, cut at {at}", server.name);
        }
        client.say(&GET.repeat(100));
        (0..100).for_each(|_| assert_eq!(client.hear_http(), answer, "{}, at once", server.name));
        let mut client = Client::of(server);
        client.say(b"nonsense\r\n\r\n");
        assert_eq!(client.hear_http().0, 400, "{}", server.name);
    });
}
