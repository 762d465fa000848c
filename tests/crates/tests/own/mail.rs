//! Clients of SMTP, FTP and IMAP, against small servers that answer when all have asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use greenling_crates::{Meeting, on_either_side, patched};
use lettre::Transport;

/// Reads lines, and answers each with what `answer` says, until that is nothing.
fn converse(stream: TcpStream, greeting: &str, mut answer: impl FnMut(&str) -> Option<String>) {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(greeting.as_bytes()).unwrap();
    let mut line = String::new();
    while {
        line.clear();
        stream.read_line(&mut line).unwrap()
    } > 0
    {
        let Some(text) = answer(line.trim_end()) else { return };
        stream.get_mut().write_all(text.as_bytes()).unwrap();
    }
}

/// A server of SMTP, which answers a message with its last line.
fn serve_smtp(stream: TcpStream, meeting: &Meeting) {
    let (mut in_data, mut last) = (false, String::new());
    converse(stream, "220 here\r\n", |line| {
        if in_data && line != "." {
            line.clone_into(&mut last);
            return Some(String::new());
        }
        let text = match line.split(' ').next().unwrap() {
            "." => {
                meeting.wait();
                in_data = false;
                format!("250 {last}\r\n")
            }
            "DATA" => {
                in_data = true;
                "354 go on\r\n".to_owned()
            }
            "QUIT" => "221 bye\r\n".to_owned(),
            _ => "250 yes\r\n".to_owned(),
        };
        Some(text)
    });
}

/// Sends a mail, and returns the server's word.
fn sent(transport: &lettre::SmtpTransport, number: usize) -> String {
    let mail = lettre::Message::builder().from("a@localhost".parse().unwrap()).to("b@localhost".parse().unwrap());
    let mail = mail.body(format!("{}\r\nnumber {number}", "text\r\n".repeat(1000))).unwrap();
    transport.send(&mail).unwrap().first_line().unwrap().to_owned()
}

#[test]
fn lettre_mails_overlap() {
    let _guard = patched();
    let words = on_either_side(serve_smtp, |addr, number| {
        let transport = lettre::SmtpTransport::builder_dangerous(addr.ip().to_string()).port(addr.port());
        sent(&transport.pool_config(lettre::transport::smtp::PoolConfig::new().max_size(1)).build(), number)
    });
    assert_eq!(words[7], "number 7");
}

/// A server of FTP, which gives out files made of their names.
fn serve_ftp(stream: TcpStream, meeting: &Meeting) {
    let mut data = None;
    let mut control = stream.try_clone().unwrap();
    converse(stream, "220 here\r\n", |line| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let text = match word {
            "USER" => "331 and?\r\n".to_owned(),
            "PASS" => "230 welcome\r\n".to_owned(),
            "TYPE" => "200 yes\r\n".to_owned(),
            "PASV" => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                data = Some(listener);
                format!("227 (127,0,0,1,{},{})\r\n", port / 256, port % 256)
            }
            "RETR" => {
                let (mut file, _) = data.take().unwrap().accept().unwrap();
                control.write_all(b"150 here it comes\r\n").unwrap();
                meeting.wait();
                file.write_all(rest.repeat(10_000).as_bytes()).unwrap();
                "226 done\r\n".to_owned()
            }
            "QUIT" => "221 bye\r\n".to_owned(),
            _ => "502 no\r\n".to_owned(),
        };
        Some(text)
    });
}

#[test]
fn suppaftp_transfers_overlap() {
    let _guard = patched();
    let files = on_either_side(serve_ftp, |addr, number| {
        let mut client = suppaftp::FtpStream::connect(addr).unwrap();
        client.login("me", "secret").unwrap();
        let bytes = client.retr_as_buffer(&format!("file{number}")).unwrap().into_inner();
        client.quit().unwrap();
        String::from_utf8(bytes).unwrap()
    });
    assert_eq!(files[7], "file7".repeat(10_000));
}

/// A server of IMAP with one mail, the text of which is the user's name.
fn serve_imap(stream: TcpStream, meeting: &Meeting) {
    let mut user = String::new();
    converse(stream, "* OK here\r\n", |line| {
        let words: Vec<_> = line.split(' ').collect();
        let tag = words[0];
        let text = match words[1] {
            "LOGIN" => {
                words[2].trim_matches('"').clone_into(&mut user);
                format!("{tag} OK welcome\r\n")
            }
            "SELECT" => format!("* 1 EXISTS\r\n{tag} OK [READ-WRITE] yes\r\n"),
            "FETCH" => {
                meeting.wait();
                let body = user.repeat(1000);
                format!("* 1 FETCH (BODY[] {{{}}}\r\n{body})\r\n{tag} OK yes\r\n", body.len())
            }
            "LOGOUT" => format!("* BYE now\r\n{tag} OK bye\r\n"),
            _ => format!("{tag} BAD no\r\n"),
        };
        Some(text)
    });
}

#[test]
fn imap_fetches_overlap() {
    let _guard = patched();
    let mails = on_either_side(serve_imap, |addr, number| {
        let mut client = imap::Client::new(TcpStream::connect(addr).unwrap());
        client.read_greeting().unwrap();
        let mut session = client.login(format!("user{number}"), "secret").map_err(|(error, _)| error).unwrap();
        session.select("INBOX").unwrap();
        let mails = session.fetch("1", "BODY[]").unwrap();
        let text = String::from_utf8(mails.iter().next().unwrap().body().unwrap().to_vec()).unwrap();
        session.logout().unwrap();
        text
    });
    assert_eq!(mails[7], "user7".repeat(1000));
}
