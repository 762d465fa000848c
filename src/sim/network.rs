//! The network of a simulation, as a program sees it: hosts, what lies between them, and what goes wrong.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::panic::Location;
use std::time::Duration;

use super::world::{World, current_host};
use crate::pure::disk::Disk;
use crate::pure::network::{Conditions, HostId, Network as Model};
use crate::runtime::hub::existing_hub;
use crate::sys::virtual_files::with_disk_of;
use crate::thread::{Builder, JoinHandle};

/// Calls `f` with the network of the simulation that the caller is in.
#[track_caller]
fn with_model<R>(f: impl FnOnce(&mut Model) -> R) -> R {
    match existing_hub().and_then(|hub| hub.simulated()) {
        Some(simulated) => f(&mut simulated.sockets.borrow_mut().network),
        None => panic!("greenling: this call is for a simulation: see `sim::run`"),
    }
}

/// Calls `f` with the disk of a host.
fn with_disk(host: HostId, f: impl FnOnce(&mut Disk)) {
    if let Some(simulated) = existing_hub().and_then(|hub| hub.simulated()) {
        with_disk_of(simulated, host, f);
    }
}

/// Returns the number of a host.
#[track_caller]
fn host_named(name: &str) -> HostId {
    match with_model(|network| network.host_named(name)) {
        Some(host) => host,
        None => panic!("greenling: no host of the simulation is called {name:?}: see `sim::host`"),
    }
}

/// Runs `f` in a new green thread on the host `name`, which is made if there is none of that name. Returns its handle.
///
/// What the thread spawns is on the same host, and so on. A host has addresses of its own, in 10.0.0.0/8 and fd00::/8,
/// and other hosts find it by its name. `127.0.0.1` and `::1` mean the host itself, whichever that is, and the names of
/// Unix sockets are its own. Threads that are on no host that was made so are on `localhost`, where main is.
///
/// ```
/// use greenling::{net::{TcpListener, TcpStream}, sim};
/// use std::io::{Read, Write};
/// use std::rc::Rc;
///
/// sim::run(1, || {
///     let listening = Rc::new(greenling::sync::Event::new());
///     let server = sim::host("db", {
///         let listening = listening.clone();
///         move || {
///             let listener = TcpListener::bind("0.0.0.0:5432").unwrap();
///             listening.set();
///             let (mut stream, peer) = listener.accept().unwrap();
///             stream.write_all(b"hello").unwrap();
///             peer.ip()
///         }
///     });
///     let client = sim::host("web", move || {
///         listening.wait();
///         let mut text = String::new();
///         TcpStream::connect("db:5432").unwrap().read_to_string(&mut text).unwrap();
///         assert_eq!(text, "hello");
///     });
///     client.join().unwrap();
///     assert_eq!(server.join().unwrap(), sim::network().address("web"));
///     assert_eq!(sim::elapsed().as_millis(), 4); // a millisecond for each way: the handshake, the text
/// });
/// ```
///
/// # Panics
/// Outside of a simulation; as [`spawn`](crate::spawn).
///
/// May switch: no.
#[track_caller]
pub fn host<F, T>(name: &str, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let host = with_model(|network| network.add_host(name));
    let site = Location::caller();
    let spawned = World::with(|world| world.on_host(host, || Builder::new().name(name.to_owned()).at(site).spawn(f)));
    match spawned {
        Some(Ok(handle)) => handle,
        Some(Err(error)) => panic!("failed to spawn a green thread: {error}"),
        None => unreachable!("a simulation has a world"),
    }
}

/// Returns the name of the host that the calling thread is on.
///
/// # Panics
/// Outside of a simulation.
///
/// May switch: no.
#[track_caller]
pub fn current_host_name() -> String {
    with_model(|network| network.host_name(current_host()).to_owned())
}

/// Returns the network of the simulation.
///
/// # Panics
/// Outside of a simulation.
///
/// May switch: no.
#[track_caller]
pub fn network() -> Network {
    with_model(|_| Network(()))
}

/// The network of a simulation, from [`network`]: what lies between hosts, and what goes wrong.
///
/// ```
/// use greenling::{net::UdpSocket, sim};
/// use std::time::Duration;
///
/// sim::run(1, || {
///     let network = sim::network();
///     network.latency(Duration::from_millis(20)).loss(0.01);
///     let echo = sim::host("echo", || {
///         let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
///         let mut buf = [0; 16];
///         let (len, from) = socket.recv_from(&mut buf).unwrap();
///         socket.send_to(&buf[..len], from).unwrap();
///     });
///     network.partition("localhost", "echo");
///     let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
///     socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
///     socket.send_to(b"lost", "echo:7").unwrap();
///     assert!(socket.recv(&mut [0; 16]).is_err());
///     network.heal("localhost", "echo");
///     while socket.send_to(b"again", "echo:7").is_ok() && socket.recv(&mut [0; 16]).is_err() {}
///     echo.join().unwrap();
/// });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Network(());

/// What lies between two hosts, from [`Network::between`].
#[derive(Clone, Copy, Debug)]
pub struct Link(HostId, HostId);

/// Converts a duration to nanoseconds.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns `value`, which has to be a probability.
#[track_caller]
fn probability(value: f64) -> f64 {
    assert!((0.0..=1.0).contains(&value), "greenling: {value} is no probability");
    value
}

/// Implements the methods that change conditions, by way of a method `change`.
macro_rules! conditions {
    ($handle:ty) => {
        /// What happens to packets. A packet under way is not affected.
        impl $handle {
            /// Sets how long a packet travels in each direction. 1 ms at first.
            ///
            /// May switch: no.
            pub fn latency(self, latency: Duration) -> Self {
                self.change(|conditions| conditions.latency = nanos(latency))
            }

            /// Sets the most that chance adds to the latency of each packet. Packets of a stream stay in order;
            /// datagrams may overtake each other. 0 at first.
            ///
            /// May switch: no.
            pub fn jitter(self, most: Duration) -> Self {
                self.change(|conditions| conditions.jitter = nanos(most))
            }

            /// Sets how many bytes a second fit through in each direction; 0 for no limit, as at first.
            ///
            /// May switch: no.
            pub fn bandwidth(self, bytes_per_second: u64) -> Self {
                self.change(|conditions| conditions.bandwidth = bytes_per_second)
            }

            /// Sets the probability that a packet is lost. A datagram is gone then; what belongs to a stream is sent
            /// again after 200 ms, 400 ms and so on. 0 at first.
            ///
            /// # Panics
            /// If `loss` is not in 0 to 1.
            ///
            /// May switch: no.
            #[track_caller]
            pub fn loss(self, loss: f64) -> Self {
                let loss = probability(loss);
                self.change(|conditions| conditions.loss = loss)
            }

            /// Sets the probability that a datagram arrives twice. 0 at first.
            ///
            /// # Panics
            /// If `duplication` is not in 0 to 1.
            ///
            /// May switch: no.
            #[track_caller]
            pub fn duplication(self, duplication: f64) -> Self {
                let duplication = probability(duplication);
                self.change(|conditions| conditions.duplication = duplication)
            }

            /// Sets the probability that a datagram is late by one latency to three, so that later ones overtake it. 0
            /// at first.
            ///
            /// # Panics
            /// If `reordering` is not in 0 to 1.
            ///
            /// May switch: no.
            #[track_caller]
            pub fn reordering(self, reordering: f64) -> Self {
                let reordering = probability(reordering);
                self.change(|conditions| conditions.reordering = reordering)
            }

            /// Makes each TCP connection that begins from now on end by a reset when `bytes` have arrived, in both
            /// directions together: exactly these bytes can be read. `None` for no reset, as at first.
            ///
            /// May switch: no.
            pub fn reset_after(self, bytes: impl Into<Option<u64>>) -> Self {
                let bytes = bytes.into();
                self.change(|conditions| conditions.reset_after = bytes)
            }
        }
    };
}

conditions!(Network);
conditions!(Link);

impl Network {
    /// Changes the conditions between any two hosts for which none were set.
    #[track_caller]
    fn change(self, change: impl FnOnce(&mut Conditions)) -> Network {
        with_model(|network| {
            let mut conditions = network.usual_conditions();
            change(&mut conditions);
            network.set_usual_conditions(conditions);
        });
        self
    }

    /// Returns what lies between two hosts. What is set there holds in place of what is set for the network. With the
    /// same name twice: inside of each host, where there is no delay and no loss at first.
    ///
    /// # Panics
    /// If there is no host of such a name.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn between(self, one: &str, other: &str) -> Link {
        Link(host_named(one), host_named(other))
    }

    /// Returns the address of a host, in IPv4.
    ///
    /// # Panics
    /// If there is no host of this name.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn address(self, name: &str) -> IpAddr {
        let host = host_named(name);
        with_model(|network| network.address(host))
    }

    /// Sets the bytes that fit into the buffers of sockets that are made from now on, and of the connections of
    /// listeners that are: bytes that wait to be sent, and bytes that wait to be read. A writer waits when both are
    /// full, its own and the reader's. 208 KiB each at first.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn buffers(self, send: usize, receive: usize) -> Network {
        with_model(|network| network.set_rooms(send, receive));
        self
    }

    /// Cuts the link between two hosts: nothing arrives any more, neither does what is under way. Connections stay, as
    /// their ends do not know; what they send is sent again for a quarter of an hour, and then they fail with
    /// `TimedOut`.
    ///
    /// # Panics
    /// If there is no host of such a name.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn partition(self, one: &str, other: &str) -> Network {
        let (one, other) = (host_named(one), host_named(other));
        with_model(|network| network.set_cut(one, other, true));
        self
    }

    /// Restores the link between two hosts. Connections go on when they send again: up to two minutes later, as in
    /// life.
    ///
    /// # Panics
    /// If there is no host of such a name.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn heal(self, one: &str, other: &str) -> Network {
        let (one, other) = (host_named(one), host_named(other));
        with_model(|network| network.set_cut(one, other, false));
        self
    }

    /// Restores all links.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn heal_all(self) -> Network {
        with_model(Model::heal_all);
        self
    }

    /// Ends a host, as a loss of power does: its sockets are gone, other hosts are not told, and nothing arrives. Its
    /// threads are killed: their destructors run, and find their sockets and files gone (`EBADF`; `EIO` for paths). A
    /// thread that kills its own host goes on until its next wait. Of the [files](crate::sim#files) there is left what
    /// was synced, and as much more as the schedule says.
    ///
    /// Other hosts see what they would: connections are half-open, requests for a connection time out after two
    /// minutes, and after a [`restart`](Self::restart) what is sent on an old connection is answered by a reset.
    ///
    /// # Panics
    /// If there is no host of this name; for `localhost`, where main is.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn crash(self, name: &str) -> Network {
        let host = host_named(name);
        assert!(host != crate::pure::network::LOCALHOST, "greenling: main is on localhost, which cannot crash");
        with_model(|network| network.crash(host));
        World::with(|world| {
            world.crash_disk(host);
            world.kill_all_of(host);
        });
        self
    }

    /// Makes a host reachable again that has crashed. [`host`] starts threads on it.
    ///
    /// # Panics
    /// If there is no host of this name.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn restart(self, name: &str) -> Network {
        let host = host_named(name);
        with_model(|network| network.restart(host));
        with_disk(host, Disk::restart);
        self
    }

    /// Sets how many bytes the contents of all files of a host may have, as a disk that is too small; 1 GiB at first,
    /// and with `None`.
    ///
    /// # Panics
    /// If there is no host of this name.
    ///
    /// May switch: no.
    #[track_caller]
    pub fn disk_space(self, name: &str, bytes: impl Into<Option<u64>>) -> Network {
        let (host, bytes) = (host_named(name), bytes.into());
        with_disk(host, |disk| disk.set_capacity(bytes));
        self
    }
}

impl Link {
    /// Changes the conditions between the two hosts.
    #[track_caller]
    fn change(self, change: impl FnOnce(&mut Conditions)) -> Link {
        with_model(|network| {
            let mut conditions = network.conditions(self.0, self.1);
            change(&mut conditions);
            network.set_conditions(self.0, self.1, conditions);
        });
        self
    }
}
