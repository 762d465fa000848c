//! The methods and traits that UDP and Unix sockets share, as macros: timeouts, mode, clones, arms of `select!`,
//! conversions from and to std's type and a bare descriptor, and the descriptor itself.
//!
//! A type that uses the macros has the fields `source: Source<Std>` and `options: Options`. TCP's types differ in
//! `close` and in the conversions, and are written out: read those first.
#![forbid(unsafe_code)]

/// Implements the methods that every socket has: `open`, `try_clone`, `take_error` and `set_nonblocking`.
macro_rules! handle_methods {
    ($std:ty) => {
        /// Returns std's socket, unless `close` was called.
        fn open(&self) -> io::Result<&$std> {
            self.source.open()
        }

        /// Makes another handle of the same socket. Both share timeouts and mode, as in std.
        ///
        /// # Errors
        /// `EMFILE`; `NotConnected` after [`close`](Self::close).
        ///
        /// May switch: no.
        #[track_caller]
        pub fn try_clone(&self) -> io::Result<Self> {
            // The open file has a second descriptor from now on, so closing one does not take it out of the epoll set.
            let socket = self.open()?;
            let clone = socket.try_clone()?;
            crate::sys::virtual_sockets::duplicated(socket, &clone)?;
            crate::sys::virtual_sockets::made_at(&clone, std::panic::Location::caller());
            self.source.set_shared();
            Ok(Self { source: self.source.sibling(clone), options: self.options.share() })
        }

        /// Takes the pending error of the socket (`SO_ERROR`).
        ///
        /// # Errors
        /// What getsockopt(2) says.
        ///
        /// May switch: no.
        pub fn take_error(&self) -> io::Result<Option<io::Error>> {
            crate::sys::socket::take_error(std::os::fd::AsFd::as_fd(self.open()?))
        }

        /// Chooses whether calls that would have to wait fail with `WouldBlock`, here and on clones. The kernel's
        /// socket is non-blocking either way.
        ///
        /// A loop over such calls must [`yield_now`](crate::yield_now) or sleep, or no other green thread runs.
        ///
        /// # Errors
        /// `NotConnected` after [`close`](Self::close).
        ///
        /// May switch: no.
        pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
            self.open()?;
            self.options.set_nonblocking(nonblocking);
            Ok(())
        }
    };
}
pub(crate) use handle_methods;

/// Implements the arms of a `select!` that wait until a handle is ready.
macro_rules! ready_arms {
    ($handle:ty: $($source:ident::$method:ident by $direction:ident),+) => {$(
        impl crate::runtime::select_source::$source for $handle {
            type Arm<'a> = crate::runtime::arms::ReadyArm<'a>;

            fn $method(&self) -> crate::runtime::arms::ReadyArm<'_> {
                crate::runtime::arms::ReadyArm::new(&self.source, crate::runtime::reactor::Direction::$direction)
            }
        }
    )+};
}
pub(crate) use ready_arms;

/// Implements the methods of the two timeouts.
macro_rules! timeout_methods {
    () => {
        /// Sets how long a receiving call may wait before it fails with `WouldBlock`, as std's does on Linux. Data that
        /// arrives later is there for the next call. With `None`, a call waits for ever.
        ///
        /// # Errors
        /// `InvalidInput` for zero.
        ///
        /// May switch: no.
        pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
            self.open()?;
            self.options.set_timeout(Direction::Read, timeout)
        }

        /// Sets how long a sending call may wait: see [`set_read_timeout`](Self::set_read_timeout).
        ///
        /// # Errors
        /// `InvalidInput` for zero.
        ///
        /// May switch: no.
        pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
            self.open()?;
            self.options.set_timeout(Direction::Write, timeout)
        }

        /// Returns what [`set_read_timeout`](Self::set_read_timeout) set: exactly, where the kernel rounds std's.
        ///
        /// # Errors
        /// `NotConnected` after [`close`](Self::close).
        ///
        /// May switch: no.
        pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
            self.open()?;
            Ok(self.options.timeout(Direction::Read))
        }

        /// Returns what [`set_write_timeout`](Self::set_write_timeout) set.
        ///
        /// # Errors
        /// `NotConnected` after [`close`](Self::close).
        ///
        /// May switch: no.
        pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
            self.open()?;
            Ok(self.options.timeout(Direction::Write))
        }
    };
}
pub(crate) use timeout_methods;

/// Implements the traits of a socket: `Debug`, the conversion from std's type and, by way of the conversion into std's
/// type, those from and into a descriptor. `timeouts` reads the timeouts to take over from std's socket.
macro_rules! handle_traits {
    ($green:ident, $std:ty, timeouts: $timeouts:expr) => {
        impl fmt::Debug for $green {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let socket = self.source.get();
                crate::sys::virtual_sockets::fmt(socket, stringify!($green), f).unwrap_or_else(|| socket.fmt(f))
            }
        }

        /// Makes the socket non-blocking, for all handles and processes that share it, and takes over its timeouts. The
        /// green socket waits where a blocking one would, even after std's `set_nonblocking(true)`: the kernel's flag
        /// has another meaning here.
        impl From<$std> for $green {
            fn from(socket: $std) -> $green {
                // Making an open socket non-blocking does not fail; if the descriptor is none, the first call fails.
                let _ = socket.set_nonblocking(true);
                let options = Options::default();
                for (direction, timeout) in $timeouts(&socket) {
                    if let Ok(Some(timeout)) = timeout {
                        // The kernel reports a zero timeout as none, so `set_timeout` accepts what it reports.
                        let _ = options.set_timeout(direction, Some(timeout));
                    }
                }
                $green { source: Source::new(socket).shared(), options }
            }
        }

        /// Converts as `From` does for std's type.
        impl From<OwnedFd> for $green {
            fn from(fd: OwnedFd) -> $green {
                $green::from(<$std>::from(fd))
            }
        }

        /// Converts as the conversion into std's type does.
        impl From<$green> for OwnedFd {
            fn from(socket: $green) -> OwnedFd {
                <$std>::from(socket).into()
            }
        }

        /// Converts as the conversion into std's type does.
        impl IntoRawFd for $green {
            fn into_raw_fd(self) -> RawFd {
                <$std>::from(self).into_raw_fd()
            }
        }
    };
}
pub(crate) use handle_traits;

/// Implements the traits that borrow the descriptor.
macro_rules! descriptor_traits {
    ($green:ident) => {
        impl AsFd for $green {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.source.get().as_fd()
            }
        }

        impl AsRawFd for $green {
            fn as_raw_fd(&self) -> RawFd {
                self.source.get().as_raw_fd()
            }
        }
    };
}
pub(crate) use descriptor_traits;

/// Implements the conversion into std's type, for a socket with timeouts.
macro_rules! into_std_with_timeouts {
    ($green:ident, $std:ty) => {
        /// Makes the socket blocking, unless the green one's `set_nonblocking` was called with `true`, and hands the
        /// timeouts over to the kernel. Clones of the green socket share the kernel's socket, and still park.
        impl From<$green> for $std {
            fn from(socket: $green) -> $std {
                let $green { source, options } = socket;
                let socket = source.into_inner();
                if options.were_used() {
                    // Setting a timeout does not fail on an open socket: its value was checked when it was set.
                    let _ = socket.set_read_timeout(options.timeout(Direction::Read));
                    let _ = socket.set_write_timeout(options.timeout(Direction::Write));
                }
                let _ = socket.set_nonblocking(options.nonblocking());
                socket
            }
        }
    };
}
pub(crate) use into_std_with_timeouts;
