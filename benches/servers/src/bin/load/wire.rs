//! The protocols of requests and answers: which bytes ask, and where an answer ends. Pure.
#![forbid(unsafe_code)]

/// What is asked, and how an answer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1: `GET` of a path; the answer has status 200 and a `Content-Length`.
    Http(String),
    /// The protocol of Redis: `GET` of a key; the answer is a bulk string.
    Resp(String),
    /// So many bytes, which come back.
    Echo(usize),
}

impl Protocol {
    /// Returns the bytes of a request. All requests of a run are alike.
    pub(crate) fn request(&self) -> Vec<u8> {
        match self {
            Protocol::Http(path) => format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
            Protocol::Resp(key) => format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes(),
            Protocol::Echo(size) => (0..*size).map(|i| (i % 251) as u8).collect(),
        }
    }

    /// Returns the length of the answer at the beginning of `bytes`; `None` if more has to come.
    ///
    /// # Errors
    /// A word about what is wrong with the answer.
    pub(crate) fn answer(&self, request: &[u8], bytes: &[u8]) -> Result<Option<usize>, String> {
        match self {
            Protocol::Http(_) => http_answer(bytes),
            Protocol::Resp(_) => resp_answer(bytes),
            Protocol::Echo(_) => {
                let so_far = bytes.len().min(request.len());
                if bytes[..so_far] != request[..so_far] {
                    return Err("other bytes came back".to_owned());
                }
                Ok((so_far == request.len()).then_some(so_far))
            }
        }
    }
}

/// Returns where `needle` begins.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|part| part == needle)
}

fn http_answer(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("status line {status:?}"));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or("no Content-Length")?;
    let all = end + 4 + length;
    Ok((bytes.len() >= all).then_some(all))
}

fn resp_answer(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = find(bytes, b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok());
    // "$-1" is a key without a value, which would measure nothing.
    let all = end + 2 + length.ok_or(format!("answer {line:?}"))? + 2;
    Ok((bytes.len() >= all).then_some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_it_ends_wherever_it_is_cut() {
        let http = Protocol::Http("/".to_owned());
        let resp = Protocol::Resp("key".to_owned());
        let echo = Protocol::Echo(5);
        let cases: [(&Protocol, &[u8]); 3] = [
            (&http, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nServer: x\r\n\r\nhello"),
            (&resp, b"$5\r\nvalue\r\n"),
            (&echo, &[0, 1, 2, 3, 4]),
        ];
        for (protocol, whole) in cases {
            let request = protocol.request();
            for cut in 0..whole.len() {
                assert_eq!(protocol.answer(&request, &whole[..cut]), Ok(None), "{protocol:?} cut at {cut}");
            }
            // The beginning of a next answer belongs to that one.
            let more = [whole, b"$"].concat();
            assert_eq!(protocol.answer(&request, &more), Ok(Some(whole.len())), "{protocol:?}");
        }
    }

    #[test]
    fn wrong_answers_are_told() {
        let http = Protocol::Http("/".to_owned());
        assert!(http.answer(b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(http.answer(b"", b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Protocol::Resp("key".to_owned()).answer(b"", b"$-1\r\n").is_err());
        assert!(Protocol::Echo(2).answer(&[0, 1], &[0, 2]).is_err());
    }

    #[test]
    fn requests_are_what_the_protocols_say() {
        assert_eq!(Protocol::Resp("abc".to_owned()).request(), b"*2\r\n$3\r\nGET\r\n$3\r\nabc\r\n");
        assert!(Protocol::Http("/x".to_owned()).request().starts_with(b"GET /x HTTP/1.1\r\nHost: "));
        assert_eq!(Protocol::Echo(3).request(), [0, 1, 2]);
    }
}
