//! What every socket but TCP's has in common, written once as macros: timeouts and mode, clones, close, arms of `select!`,
//! and the ways from and to std's type and a bare descriptor.
//!
//! A type that uses them has the fields `source: Source<Std>` and `options: Options`. TCP's types came first, differ in
//! what `close` and the conversions do, and are written out: read those.
#![forbid(unsafe_code)]

/// Methods that every socket has: `open`, `try_clone`, `close`, `take_error`, `set_nonblocking`.
macro_rules! handle_methods {
    ($std:ty) => {
        /// std's socket, unless `close` was called.
        fn open(&self) -> io::Result<&$std> {
            self.source.open()
        }

        /// Another handle of the same socket. Both share timeouts and mode, as in std.
        ///
        /// # Errors
        /// `EMFILE`; `NotConnected` after [`close`](Self::close).
        ///
        /// May switch: no.
        pub fn try_clone(&self) -> io::Result<Self> {
            let clone = self.open()?.try_clone()?;
            self.source.set_shared();
            Ok(Self { source: self.source.sibling(clone), options: self.options.share() })
        }

        /// Takes the error that waits on the socket (`SO_ERROR`).
        ///
        /// # Errors
        /// What getsockopt(2) says.
        ///
        /// May switch: no.
        pub fn take_error(&self) -> io::Result<Option<io::Error>> {
            self.open()?.take_error()
        }

        /// With `true`, calls that would have to wait fail with `WouldBlock`, here and on clones. The kernel's socket is
        /// non-blocking either way.
        ///
        /// A loop over such calls must [`yield_now`](crate::yield_now) or sleep, or nobody else runs.
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

        /// For `select!`.
        #[doc(hidden)]
        pub fn select_readable(&self) -> crate::runtime::choose::ReadyArm<'_> {
            crate::runtime::choose::ReadyArm::new(&self.source, Direction::Read)
        }

        /// For `select!`.
        #[doc(hidden)]
        pub fn select_writable(&self) -> crate::runtime::choose::ReadyArm<'_> {
            crate::runtime::choose::ReadyArm::new(&self.source, Direction::Write)
        }
    };
}
pub(crate) use handle_methods;

/// The methods of the two timeouts.
macro_rules! timeout_methods {
    () => {
        /// From now on a call that has waited for `timeout` to receive fails with `WouldBlock`, as std's does on Linux;
        /// what comes later is there for the next call. `None`: it waits for ever.
        ///
        /// # Errors
        /// `InvalidInput` for zero.
        ///
        /// May switch: no.
        pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
            self.open()?;
            self.options.set_timeout(Direction::Read, timeout)
        }

        /// [`set_read_timeout`](Self::set_read_timeout) for calls that send.
        ///
        /// # Errors
        /// `InvalidInput` for zero.
        ///
        /// May switch: no.
        pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
            self.open()?;
            self.options.set_timeout(Direction::Write, timeout)
        }

        /// What [`set_read_timeout`](Self::set_read_timeout) set; exact, where the kernel rounds std's.
        ///
        /// # Errors
        /// `NotConnected` after [`close`](Self::close).
        ///
        /// May switch: no.
        pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
            self.open()?;
            Ok(self.options.timeout(Direction::Read))
        }

        /// What [`set_write_timeout`](Self::set_write_timeout) set.
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

/// The traits of a socket: `Debug`, descriptors, from std's type and, with the help of the way into that, to a descriptor.
/// `timeouts` is what is to be taken over from std's.
macro_rules! handle_traits {
    ($green:ident, $std:ty, timeouts: $timeouts:expr) => {
        impl fmt::Debug for $green {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.source.get().fmt(f)
            }
        }

        /// Makes the socket non-blocking, for everybody who shares it, and takes its timeouts over, if it has any. The green
        /// socket waits where std's would, whether or not `set_nonblocking` was called on it: the kernel's flag has another
        /// meaning here.
        impl From<$std> for $green {
            fn from(socket: $std) -> $green {
                // It fails for no open descriptor that is a socket; on any other the first call will fail.
                let _ = socket.set_nonblocking(true);
                let options = Options::default();
                for (direction, timeout) in $timeouts(&socket) {
                    if let Ok(Some(timeout)) = timeout {
                        // The kernel says "none" for zero, so it is accepted.
                        let _ = options.set_timeout(direction, Some(timeout));
                    }
                }
                $green { source: Source::new(socket, false, true), options }
            }
        }

        /// As from std's type.
        impl From<OwnedFd> for $green {
            fn from(fd: OwnedFd) -> $green {
                $green::from(<$std>::from(fd))
            }
        }

        /// As into std's type.
        impl From<$green> for OwnedFd {
            fn from(socket: $green) -> OwnedFd {
                <$std>::from(socket).into()
            }
        }

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

        /// As into std's type.
        impl IntoRawFd for $green {
            fn into_raw_fd(self) -> RawFd {
                <$std>::from(self).into_raw_fd()
            }
        }
    };
}
pub(crate) use handle_traits;

/// The way into std's type, for a socket with timeouts.
macro_rules! into_std_with_timeouts {
    ($green:ident, $std:ty) => {
        /// Makes the socket blocking, unless the green one's `set_nonblocking` was called with `true`, and gives it its
        /// timeouts. Clones of the green socket share it: they would block their OS thread from now on.
        impl From<$green> for $std {
            fn from(socket: $green) -> $std {
                let $green { source, options } = socket;
                let socket = source.into_inner();
                if options.were_used() {
                    // None of this fails on an open socket; timeouts were checked when they were set.
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
