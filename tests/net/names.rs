//! Host names are looked up while other green threads run.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use crate::net_support::bounded;
use greenling::net::{TcpListener, TcpStream, ToSocketAddrs};
use greenling::{hub, spawn, yield_now};

#[test]
fn a_name_is_connected_to_while_others_run() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Rc::new(Cell::new(0));
        let seen = Rc::clone(&turns);
        let other = spawn(move || -> () {
            loop {
                seen.set(seen.get() + 1);
                yield_now();
            }
        });
        // localhost may mean ::1 first, where no socket listens: then the second address is tried.
        let mut connected = (0..100).map(|_| TcpStream::connect(("localhost", port)).unwrap());
        // A lookup that ends before this thread begins to wait, on a busy machine, lets none run.
        let mut stream = connected.find(|_| turns.get() > 0).expect("the other thread has had a turn");
        stream.write_all(b"x").unwrap();
        listener.accept().unwrap();
        other.kill();
        assert!(other.join().is_err());
        assert_eq!(hub::live_threads(), 0);
    });
}

#[test]
fn a_name_can_be_listened_on() {
    bounded(|| {
        let listener = TcpListener::bind("localhost:0").unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
    });
}

#[test]
fn main_may_wait_for_a_lookup_with_no_other_thread_alive() {
    bounded(|| assert!("localhost:1".to_socket_addrs().unwrap().count() > 0));
}

#[test]
fn a_literal_needs_no_other_thread_and_no_switch() {
    bounded(|| {
        greenling::no_switch(|| {
            for literal in ["127.0.0.1:1", "[::1]:1"] {
                assert_eq!(literal.to_socket_addrs().unwrap().count(), 1);
            }
            assert_eq!(("::1", 1).to_socket_addrs().unwrap().count(), 1);
        });
    });
}

#[test]
fn many_green_threads_on_several_hubs_look_names_up() {
    bounded(|| {
        let hubs: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(|| {
                    let lookups: Vec<_> = (0..40)
                        .map(|port| spawn(move || ("localhost", port).to_socket_addrs().unwrap().next()))
                        .collect();
                    for (port, lookup) in (0..).zip(lookups) {
                        let addr = lookup.join().unwrap().unwrap();
                        assert!(addr.ip().is_loopback());
                        assert_eq!(addr.port(), port);
                    }
                })
            })
            .collect();
        for hub in hubs {
            hub.join().unwrap();
        }
    });
}

#[test]
fn a_killed_lookup_leaves_the_hub_clean() {
    bounded(|| {
        let victims: Vec<_> =
            (0..20).map(|_| spawn(|| "localhost:1".to_socket_addrs().map(Iterator::count).unwrap())).collect();
        yield_now();
        for victim in &victims {
            victim.kill();
        }
        for victim in victims {
            // A lookup that was done before the kill has its result.
            assert!(victim.join().map_or_else(|error| error.is_killed(), |found| found > 0));
        }
        assert_eq!(hub::live_threads(), 0);
        assert!("localhost:1".to_socket_addrs().unwrap().count() > 0);
    });
}

#[test]
fn the_names_in_the_hosts_file_mean_what_it_says() {
    bounded(|| {
        let text = greenling::fs::read_to_string("/etc/hosts").unwrap();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let mut seen = 0;
        for line in lines {
            let mut words = line.split_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse::<std::net::Ipv4Addr>().ok()) else { continue };
            for name in words.take(3) {
                let found: Vec<_> = (name, 7).to_socket_addrs().unwrap().collect();
                assert!(found.contains(&(ip, 7).into()), "{name}: {found:?}");
                seen += 1;
            }
        }
        assert!(seen > 0, "{text}");
    });
}

#[test]
fn a_lookup_while_unwinding_is_an_error() {
    struct Looks(Rc<Cell<bool>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.set("localhost:1".to_socket_addrs().is_err());
        }
    }
    bounded(|| {
        let refused = Rc::new(Cell::new(false));
        let looks = Looks(Rc::clone(&refused));
        let victim = spawn(move || {
            let _looks = looks;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(victim.join().is_err());
        assert!(refused.get());
    });
}
