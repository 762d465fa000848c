//! The listeners: the first hub's, and those of the other hubs, with their servers.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use greenling::hub;
use greenling::net::{TcpListener, ToSocketAddrs};
use greenling::server::{ListenFd, TcpServer, listen_fds};
use greenling::{Hubs, RunningHubs};
use socket2::SockRef;

use crate::cli;
use crate::options::{NAME, Options};
use crate::service::Service;

/// Returns the listener of the first hub, and the address.
pub(crate) fn first(options: &Options) -> (TcpListener, SocketAddr) {
    // Without more descriptors some clients have to wait, and the server says so then.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let listener = match passed() {
        Some(listener) => listener,
        None if options.reuse_port => shared(options, options.addr.as_str()),
        None => TcpListener::bind(options.addr.as_str())
            .unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error)),
    };
    // The address is ours, and only now shared with the other hubs. If shared from the beginning, the
    // kernel would also give it to a second server, started by a user that has forgotten the first one.
    if options.hubs > 1 {
        let shared = SockRef::from(&listener).set_reuse_port(true);
        shared.unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error));
    }
    let addr = listener.local_addr().unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error));
    (listener, addr)
}

/// Returns the listener that was passed to this process at its start (LISTEN_FDS), if there is one.
fn passed() -> Option<TcpListener> {
    let first = listen_fds().and_then(|passed| passed.into_iter().next().map(ListenFd::into_tcp_listener).transpose());
    first.unwrap_or_else(|error| cli::fail(2, NAME, format_args!("cannot listen on what it was passed: {error}")))
}

/// Listens on an address that is shared: with other hubs, and with other processes if they are to.
fn shared(options: &Options, addr: impl ToSocketAddrs) -> TcpListener {
    TcpListener::bind_reuse_port(addr).unwrap_or_else(|error| cli::cannot_listen(NAME, &options.addr, &error))
}

/// Starts the servers of all hubs but this one, if there are to be any, and waits until they listen.
pub(crate) fn start_others(service: &Arc<Service>, addr: SocketAddr) -> Option<RunningHubs<()>> {
    let count = service.options.hubs - 1;
    if count == 0 {
        return None;
    }
    let (ready, all_ready) = hub::channel(None);
    let service = Arc::clone(service);
    let others = Hubs::new(count).name("echo").start(move |_| {
        let server = TcpServer::new(shared(&service.options, addr));
        let _ = ready.send(());
        crate::serve(&service, server);
    });
    all_ready.iter().take(count).for_each(drop);
    Some(others.unwrap_or_else(|error| cli::fail(1, NAME, format_args!("no OS threads: {error}"))))
}

/// Returns the first lines of the log.
pub(crate) fn greeting(addr: SocketAddr) -> String {
    format!("listening on {addr}\ntry: nc {} {}", reachable(addr.ip()), addr.port())
}

/// Returns an address at which a client on this machine reaches a server that listens on `ip`.
fn reachable(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => String::from("127.0.0.1"),
        IpAddr::V6(ip) if ip.is_unspecified() => String::from("::1"),
        ip => ip.to_string(),
    }
}
