//! Clients: `curl`, `native-tls`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;

use greenling_crates::{Meeting, on_either_side, patched, serve_page};
use native_tls::{Certificate, Identity, TlsAcceptor, TlsConnector};

#[test]
fn curl_transfers_overlap() {
    let _guard = patched();
    curl::init();
    let serve = |stream, meeting: &Meeting| drop(serve_page(stream, meeting));
    let pages = on_either_side(serve, |addr, number| {
        let (mut easy, mut page) = (curl::easy::Easy::new(), Vec::new());
        easy.url(&format!("http://localhost:{}/{number}", addr.port())).unwrap();
        let mut transfer = easy.transfer();
        transfer
            .write_function(|bytes| {
                page.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
        transfer.perform().unwrap();
        drop(transfer);
        String::from_utf8(page).unwrap()
    });
    assert_eq!(pages[7], "/7".repeat(10_000));
}

/// Both sides' views of a certificate for `localhost`.
static TLS: LazyLock<(TlsAcceptor, TlsConnector)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pkcs8(certificate.as_bytes(), key.as_bytes()).unwrap();
    let trusted = Certificate::from_pem(certificate.as_bytes()).unwrap();
    let connector = TlsConnector::builder().add_root_certificate(trusted).build().unwrap();
    (TlsAcceptor::new(identity).unwrap(), connector)
});

#[test]
fn native_tls_streams_overlap_at_both_ends() {
    LazyLock::force(&TLS);
    let _guard = patched();
    let serve = |tcp, meeting: &Meeting| {
        let mut stream = BufReader::new(TLS.0.accept(tcp).unwrap());
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        meeting.wait();
        stream.get_mut().write_all(line.repeat(100).as_bytes()).unwrap();
        stream.get_mut().shutdown().unwrap();
    };
    let answers = on_either_side(serve, |addr, number| {
        let mut stream = TLS.1.connect("localhost", TcpStream::connect(addr).unwrap()).unwrap();
        writeln!(stream, "{}", format!("number {number} ").repeat(1000)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(answers[7], format!("{}\n", "number 7 ".repeat(1000)).repeat(100));
}
