//! What both drivers stand on: one epoll with a timer that is exact to the microsecond, and connections that are plain
//! or encrypted. `mio` and `rustls` as they are: no runtime that is measured drives the measurement.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(20);

/// The token of the timer; connections have the numbers from 0 on.
const TIMER: Token = Token(usize::MAX);

/// The epoll, the timer and the clock.
pub(crate) struct Engine {
    poll: Poll,
    events: Events,
    timer: TimerFd,
    /// What the timer is set to.
    set_to: Option<u64>,
    beginning: Instant,
}

impl Engine {
    pub(crate) fn new() -> io::Result<Engine> {
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Engine { poll, events: Events::with_capacity(1024), timer, set_to: None, beginning: Instant::now() })
    }

    /// Returns the nanoseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.beginning.elapsed().as_nanos() as u64
    }

    /// Watches a connection under a number.
    pub(crate) fn watch(&self, link: &mut Link, number: usize) -> io::Result<()> {
        self.poll.registry().register(&mut link.tcp, Token(number), Interest::READABLE | Interest::WRITABLE)
    }

    /// Watches a listener under a number.
    pub(crate) fn watch_listener(&self, listener: &mut mio::net::TcpListener, number: usize) -> io::Result<()> {
        self.poll.registry().register(listener, Token(number), Interest::READABLE)
    }

    /// Waits until something happens or the moment has come; puts the numbers of the connections at which something
    /// happened into `happened`.
    pub(crate) fn wait(&mut self, until: Option<u64>, happened: &mut Vec<usize>) -> io::Result<()> {
        happened.clear();
        let now = self.now();
        // A moment that has come needs no timer; and the timer may be set to the moment already.
        let at_once = until.is_some_and(|until| until <= now);
        if let (Some(until), false) = (until, at_once)
            && self.set_to != Some(until)
        {
            let left = TimeSpec::from_duration(Duration::from_nanos(until - now));
            self.timer.set(Expiration::OneShot(left), TimerSetTimeFlags::empty())?;
            self.set_to = Some(until);
        }
        match self.poll.poll(&mut self.events, at_once.then_some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &self.events {
            match event.token() {
                TIMER => {
                    // Setting the timer anew also forgets that it has expired.
                    self.set_to = None;
                }
                Token(number) => happened.push(number),
            }
        }
        Ok(())
    }
}

/// A connection that never blocks.
pub(crate) struct Link {
    tcp: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes that the kernel did not take yet; of an encrypted connection `rustls` keeps them.
    unsent: Vec<u8>,
    /// What was received and not used.
    pub(crate) input: Vec<u8>,
}

impl Link {
    /// Connects, and shakes hands if there is a configuration of TLS. Blocks meanwhile.
    pub(crate) fn connect(addr: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Link> {
        let mut tcp = net::TcpStream::connect_timeout(&addr, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let tls = tls.map(|config| {
            let name = ServerName::try_from("localhost").expect("a name");
            let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp)?;
            }
            Ok::<_, io::Error>(Box::new(tls))
        });
        Link::of(tcp, tls.transpose()?)
    }

    /// Makes a link of a connection that stands.
    pub(crate) fn of(tcp: net::TcpStream, tls: Option<Box<ClientConnection>>) -> io::Result<Link> {
        tcp.set_nonblocking(true)?;
        let tcp = mio::net::TcpStream::from_std(tcp);
        Ok(Link { tcp, tls, unsent: Vec::new(), input: Vec::new() })
    }

    /// Makes a link of a connection that was accepted.
    pub(crate) fn accepted(tcp: mio::net::TcpStream) -> io::Result<Link> {
        tcp.set_nodelay(true)?;
        Ok(Link { tcp, tls: None, unsent: Vec::new(), input: Vec::new() })
    }

    /// Sends bytes, after those that are not sent yet.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
        } else {
            self.unsent.extend_from_slice(bytes);
        }
        self.flush()
    }

    /// Sends what is not sent yet, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        loop {
            let written = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.tcp),
                None if !self.unsent.is_empty() => self.tcp.write(&self.unsent),
                _ => return Ok(()),
            };
            match written {
                Ok(count) if self.tls.is_none() => drop(self.unsent.drain(..count)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes all that has come into `input`. False if the other side has ended.
    pub(crate) fn receive(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        loop {
            let read = match &mut self.tls {
                Some(tls) => tls.read_tls(&mut self.tcp),
                None => self.tcp.read(scratch),
            };
            match read {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    let Some(tls) = &mut self.tls else {
                        self.input.extend_from_slice(&scratch[..count]);
                        if count < scratch.len() {
                            // The socket is empty: what comes later is a new event.
                            return Ok(true);
                        }
                        continue;
                    };
                    let state = tls.process_new_packets().map_err(io::Error::other)?;
                    let before = self.input.len();
                    self.input.resize(before + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut self.input[before..])?;
                    if state.peer_has_closed() {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that no more bytes will be sent.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.tcp.shutdown(net::Shutdown::Write)
    }

    /// Reports whether all was sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }
}

/// Takes any certificate, since each server makes its own; the signatures of the handshake are checked.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the configuration of TLS: version 1.3 with one cipher and one key exchange, so that all servers compute the
/// same.
pub(crate) fn tls_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![ring::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    // A full handshake each, for all alike.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
