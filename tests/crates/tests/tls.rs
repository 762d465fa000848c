//! `rustls` streams over `std::net`, at both ends: handshakes and records overlap on one OS thread. And `ureq` on top.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use greenling_crates::{Meeting, on_either_side, patched, serve_page};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A certificate for `localhost` that vouches for itself, and both sides' views of it.
struct Trust {
    /// Sent by the server, and known to the client.
    certificate: CertificateDer<'static>,
    /// What a server needs.
    server: Arc<ServerConfig>,
    /// What a client needs.
    client: Arc<ClientConfig>,
}

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let server =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Trust { certificate, server: Arc::new(server), client: Arc::new(client) }
});

/// Answers a line with many of it, after a meeting. Several records, in both directions.
fn serve_lines(mut tcp: TcpStream, meeting: &Meeting) {
    let mut tls = ServerConnection::new(Arc::clone(&TRUST.server)).unwrap();
    let mut line = String::new();
    BufReader::new(rustls::Stream::new(&mut tls, &mut tcp)).read_line(&mut line).unwrap();
    meeting.wait();
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    stream.write_all(line.repeat(100).as_bytes()).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}

#[test]
fn rustls_streams_overlap_at_both_ends() {
    LazyLock::force(&TRUST);
    let _guard = patched();
    let answers = on_either_side(serve_lines, |addr, number| {
        let tls = ClientConnection::new(Arc::clone(&TRUST.client), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(tls, TcpStream::connect(addr).unwrap());
        writeln!(stream, "{}", format!("number {number} ").repeat(1000)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert_eq!(answers[7], format!("{}\n", "number 7 ".repeat(1000)).repeat(100));
}

#[test]
fn ureq_requests_overlap_over_https() {
    LazyLock::force(&TRUST);
    let _guard = patched();
    let serve = |tcp, meeting: &Meeting| {
        let tls = ServerConnection::new(Arc::clone(&TRUST.server)).unwrap();
        let mut stream = serve_page(StreamOwned::new(tls, tcp), meeting);
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    };
    let answers = on_either_side(serve, |addr, number| {
        let roots = RootCerts::new_with_certs(&[Certificate::from_der(&TRUST.certificate).to_owned()]);
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = ureq::Agent::config_builder().tls_config(tls).build().new_agent();
        let url = format!("https://localhost:{}/{number}", addr.port());
        agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    });
    assert_eq!(answers[7], "/7".repeat(10_000));
}
