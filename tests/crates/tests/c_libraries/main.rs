//! Crates on C libraries of the system: `curl`, `native-tls` on OpenSSL, `rusqlite`, `diesel`, `ssh2`.
#![forbid(unsafe_code)]

mod clients;
mod sqlite;
mod ssh;
