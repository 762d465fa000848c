//! The page, and its server: on 127.0.0.1 only, with a random word in its address.
//!
//! ```text
//!   browser                          greenling-top, a green thread each          the program
//!   GET /WORD/ --------------------> page.html
//!   GET /WORD/ask?{"get":"hubs"} --> checks Host and WORD; connects -----------> answers a line
//!   <------------------------------- that line
//! ```
//!
//! Any page of the browser may send requests to 127.0.0.1, and a name of its own may be made to mean that address (DNS
//! rebinding). The first does not know the word; the second is told by the `Host` that it names.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use greenling::net::TcpStream;
use greenling::server::TcpServer;

use crate::agent::{self, Agent, Greeting};

/// The page.
const PAGE: &str = include_str!("page.html");

/// The most bytes of the head of a request.
const MOST_HEAD: u64 = 16 * 1024;

/// The most bytes of an answer of the program.
const MOST_ANSWER: u64 = 64 << 20;

/// How long a browser may take for each step.
const IDLE: Duration = Duration::from_secs(70);

/// Serves the page until the process is ended.
///
/// # Errors
/// The program cannot be asked; the port is taken.
pub fn run(path: &Path, port: u16) -> Result<(), String> {
    // Ask once, so that what is wrong is said now and not in the browser.
    Agent::connect(path)?;
    let failed = |error: io::Error| error.to_string();
    let site = Rc::new(Site { path: path.to_owned(), word: random_word().map_err(failed)? });
    let server = TcpServer::bind(("127.0.0.1", port)).map_err(|error| format!("127.0.0.1:{port}: {error}"))?;
    let server = server.max_connections(64).idle_timeout(IDLE).first_byte_timeout(Duration::from_secs(10));
    let address = server.local_addr().map_err(failed)?;
    println!("http://{address}/{}/", site.word);
    let _ = io::stdout().flush();
    server.run(move |stream, _| site.serve(&stream, address.port())).map(drop).map_err(failed)
}

/// Returns a word that cannot be guessed.
fn random_word() -> io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What is served.
struct Site {
    /// The socket of the program.
    path: PathBuf,
    /// The first part of each path.
    word: String,
}

/// An answer to the browser.
struct Reply {
    /// The status, with its words.
    status: &'static str,
    /// The type of the body.
    kind: &'static str,
    /// What is sent.
    body: String,
}

impl Reply {
    /// Makes a reply that says what is wrong.
    fn error(status: &'static str) -> Reply {
        Reply { status, kind: "text/plain; charset=utf-8", body: format!("{status}\n") }
    }
}

impl Site {
    /// Serves one request.
    fn serve(&self, stream: &TcpStream, port: u16) -> io::Result<()> {
        let mut lines = BufReader::new(stream.take(MOST_HEAD)).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(()) };
        let mut host = String::new();
        for line in lines {
            let line = line?;
            match line.split_once(':') {
                _ if line.is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("host") => host = value.trim().to_owned(),
                _ => {}
            }
        }
        let reply = self.reply(&first, &host, port);
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
             connect-src 'self'; img-src data:; frame-ancestors 'none'\r\n\r\n",
            reply.status,
            reply.kind,
            reply.body.len()
        );
        let mut stream = stream;
        stream.write_all(head.as_bytes())?;
        stream.write_all(reply.body.as_bytes())
    }

    /// Returns the reply to a request with this first line, for this host.
    fn reply(&self, first: &str, host: &str, port: u16) -> Reply {
        let mut words = first.split(' ');
        let (Some("GET"), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
            return Reply::error("405 Method Not Allowed");
        };
        if host != format!("127.0.0.1:{port}") && host != format!("localhost:{port}") {
            return Reply::error("421 Misdirected Request");
        }
        let Some(below) = target.strip_prefix('/').and_then(|rest| rest.strip_prefix(self.word.as_str())) else {
            return Reply::error("404 Not Found");
        };
        match below.split_once('?') {
            None if below == "/" => Reply { status: "200 OK", kind: "text/html; charset=utf-8", body: PAGE.to_owned() },
            Some(("/ask", query)) => {
                let answer = decode(query).ok_or_else(|| String::from("the query is no text"));
                let answer = answer.and_then(|request| ask(&self.path, &request));
                let body = answer.unwrap_or_else(|error| serde_json::json!({ "error": error }).to_string());
                Reply { status: "200 OK", kind: "application/json", body }
            }
            _ => Reply::error("404 Not Found"),
        }
    }
}

/// Asks the program, which other requests need not wait for. Returns its line.
fn ask(path: &Path, request: &str) -> Result<String, String> {
    if request.contains('\n') {
        return Err(String::from("a request is one line"));
    }
    let exchange = || -> io::Result<(String, String)> {
        let stream = agent::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut lines = BufReader::new((&stream).take(MOST_ANSWER));
        let (mut greeting, mut answer) = (String::new(), String::new());
        lines.read_line(&mut greeting)?;
        (&stream).write_all(format!("{request}\n").as_bytes())?;
        lines.read_line(&mut answer)?;
        Ok((greeting, answer))
    };
    let (greeting, answer) = exchange().map_err(|_| String::from("the program does not answer: it may have ended"))?;
    let greeting = Greeting::parse(path, &greeting)?;
    // What the page shows of the program comes with each answer.
    let answer = answer.trim_end().strip_prefix('{').ok_or("the program has given no answer")?;
    let program = serde_json::json!({"program": greeting.program, "pid": greeting.pid, "version": greeting.version});
    Ok(format!("{{\"of\":{program},{answer}"))
}

/// Returns the text that a query stands for: `%7B` is a brace.
fn decode(query: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = query.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_the_word_or_for_another_host_gets_nothing() {
        let site = Site { path: PathBuf::from("/no/such"), word: String::from("w0rd") };
        let status = |first: &str, host: &str| site.reply(first, host, 80).status;
        assert_eq!(status("GET /w0rd/ HTTP/1.1", "127.0.0.1:80"), "200 OK");
        assert_eq!(status("GET /w0rd/ HTTP/1.1", "localhost:80"), "200 OK");
        for path in ["/", "/ask?{}", "/w0r/", "/w0rd", "/w0rd/other", "/w0rdx/ask?{}"] {
            assert_eq!(status(&format!("GET {path} HTTP/1.1"), "127.0.0.1:80"), "404 Not Found", "{path}");
        }
        for host in ["", "evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:81"] {
            assert_eq!(status("GET /w0rd/ask?{} HTTP/1.1", host), "421 Misdirected Request", "{host}");
        }
        assert_eq!(status("POST /w0rd/ HTTP/1.1", "127.0.0.1:80"), "405 Method Not Allowed");
        let reply = site.reply("GET /w0rd/ask?%7B%7D HTTP/1.1", "127.0.0.1:80", 80);
        assert_eq!(reply.body, r#"{"error":"the program does not answer: it may have ended"}"#);
    }

    #[test]
    fn a_query_is_decoded_or_refused() {
        assert_eq!(decode("%7B%22a%22%3A1%7D%C3%A9"), Some(String::from("{\"a\":1}é")));
        assert_eq!([decode("%7"), decode("%zz"), decode("%ff"), decode("%+1")], [None, None, None, None]);
    }
}
