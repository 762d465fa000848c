//! What is stable in the modules of std that the crate mirrors is here too, or stands in a table of the documentation.
//!
//! `list.rs` has a row for each item, method and implementation, which the compiler checks. Where the sources of std
//! are installed (`rustup component add rust-src`) the rows are compared with them, so that a release of std that has
//! more shows what. What macros of std make, and what is in a module but belongs to re-exported types, is not compared.

mod list;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use scan::{Found, Module};

/// The release of std that `list.rs` describes: 1.95. An older one has less.
const LISTED: u32 = 95;

/// The modules, and where they are in the sources. Of `io`, whose other items are all re-exported, what waits.
const MODULES: &[Module] = &[
    Module { path: "fs", files: &["fs.rs"] },
    Module { path: "io", files: &["io/stdio.rs", "io/pipe.rs", "io/copy.rs"] },
    Module { path: "net", files: &["net"] },
    Module { path: "os::fd", files: &["os/fd"] },
    Module { path: "os::linux::net", files: &["os/linux/net.rs", "os/net/linux_ext"] },
    Module { path: "os::unix::fs", files: &["os/unix/fs.rs"] },
    Module { path: "os::unix::net", files: &["os/unix/net"] },
    Module { path: "os::unix::process", files: &["os/unix/process.rs"] },
    Module { path: "os::unix::thread", files: &["os/unix/thread.rs"] },
    Module { path: "process", files: &["process.rs"] },
    Module {
        path: "sync",
        files: &[
            "sync/mod.rs",
            "sync/barrier.rs",
            "sync/lazy_lock.rs",
            "sync/once.rs",
            "sync/once_lock.rs",
            "sync/poison.rs",
            "sync/poison",
        ],
    },
    Module { path: "sync::mpsc", files: &["sync/mpsc.rs"] },
    Module { path: "thread", files: &["thread"] },
    Module { path: "time", files: &["time.rs"] },
];

/// What is not here on purpose. The word in backquotes stands in the table of its module, with the reason.
const ABSENT: &[(&str, &str)] = &[
    ("fs::soft_link", "soft_link"),
    ("net::TcpListener::only_v6", "only_v6"),
    ("net::TcpListener::set_only_v6", "set_only_v6"),
    ("os::fd::File: FromRawFd", "FromRawFd"),
    ("os::fd::PipeReader: FromRawFd", "FromRawFd"),
    ("os::fd::PipeWriter: FromRawFd", "FromRawFd"),
    ("os::unix::net::UnixDatagram: FromRawFd", "FromRawFd"),
    ("os::unix::net::UnixListener: FromRawFd", "FromRawFd"),
    ("os::unix::net::UnixStream: FromRawFd", "FromRawFd"),
    ("os::unix::process::CommandExt::before_exec", "before_exec"),
    ("os::unix::process::CommandExt::pre_exec", "pre_exec"),
    ("os::unix::thread::JoinHandle: JoinHandleExt", "JoinHandleExt"),
    ("os::unix::thread::JoinHandleExt", "JoinHandleExt"),
    ("os::unix::thread::JoinHandleExt::as_pthread_t", "JoinHandleExt"),
    ("os::unix::thread::JoinHandleExt::into_pthread_t", "JoinHandleExt"),
    ("os::unix::thread::RawPthread", "JoinHandleExt"),
    ("sync::Condvar::wait_timeout_ms", "wait_timeout_ms"),
    ("sync::ONCE_INIT", "ONCE_INIT"),
    ("thread::Builder::spawn_unchecked", "spawn_unchecked"),
    ("thread::park_timeout_ms", "park_timeout_ms"),
    ("thread::sleep_ms", "sleep_ms"),
];

/// What the crate has already, and the release in which std's becomes stable: 1.96 is 96.
const AHEAD: &[(&str, u32)] = &[("sync::LazyLock: From<T>", 96)];

/// Stands in a stable `pub use` of std's, but is not stable itself.
const UNSTABLE: &[&str] = &["net::Ipv6MulticastScope"];

/// What rustc prints for these arguments.
fn rustc(arguments: &[&str]) -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(arguments).output().expect("rustc runs");
    String::from_utf8(output.stdout).expect("rustc prints text")
}

/// The folder `library` of the sources of std, if they are installed.
fn library() -> Option<PathBuf> {
    let library = Path::new(rustc(&["--print", "sysroot"]).trim()).join("lib/rustlib/src/rust/library");
    library.join("std/src/lib.rs").is_file().then_some(library)
}

/// What follows the first dot of rustc's version, and whether it is a release.
fn release() -> (u32, bool) {
    let version = rustc(&["--version"]);
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).expect("rustc 1.x.y");
    (minor, !version.contains("-nightly") && !version.contains("-beta"))
}

/// Says which names the list lacks, and which it has too many for the release 1.`release`.
fn complaints(found: &Found, rows: &list::Rows, absent: &[(&str, &str)], release: u32) -> Vec<String> {
    let belongs = |name: &str, of: &String| {
        name.strip_prefix(of.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    let found: BTreeMap<&String, &String> = found
        .iter()
        .filter(|(name, _)| !rows.same.iter().any(|of| belongs(name, of)) && !UNSTABLE.contains(&name.as_str()))
        .collect();
    let listed: BTreeSet<&str> = rows.there.iter().map(String::as_str).chain(absent.iter().map(|row| row.0)).collect();
    let new = found
        .iter()
        .filter(|(name, _)| !listed.contains(name.as_str()))
        .map(|(name, since)| format!("new in std: {name}, stable since {since}"));
    let gone = listed
        .iter()
        .filter(|name| release >= LISTED && !AHEAD.iter().any(|row| row.0 == **name && row.1 > release))
        .filter(|name| !found.contains_key(&name.to_string()))
        .map(|name| format!("not in std: {name}"));
    new.chain(gone).collect()
}

/// The types of the crate's own: those whose implementations are asked for.
fn own(rows: &list::Rows) -> BTreeSet<String> {
    let names = rows.there.iter().filter(|name| !name.contains(": ")).filter_map(|name| name.rsplit("::").next());
    names.filter(|name| name.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

#[test]
fn what_is_stable_in_std_is_here_or_in_a_table() {
    let rows = list::rows();
    let Some(library) = library() else {
        println!("SKIPPED: the sources of std are not installed (rustup component add rust-src)");
        return;
    };
    let found = scan::stable(&library, MODULES, &own(&rows));
    assert!(found.len() > 700, "the sources were read, and only this is in them: {found:#?}");
    let (release, is_release) = release();
    let complaints = complaints(&found, &rows, ABSENT, release);
    if !is_release {
        println!("SKIPPED: this std is not released yet.\n{}", complaints.join("\n"));
        return;
    }
    assert!(
        complaints.is_empty(),
        "{}\n\nWhat is new is to be added to the crate and to tests/std_items/list.rs; or to a table of the \
         documentation, with the reason why it is not there, and to ABSENT in tests/std_items/main.rs.",
        complaints.join("\n")
    );
}

#[test]
fn what_is_absent_stands_in_a_table() {
    fn tables(folder: &Path, rows: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => tables(&path, rows),
                false => {
                    let text = std::fs::read_to_string(&path).unwrap();
                    rows.extend(text.lines().filter(|line| line.starts_with("//! |")).map(|line| format!("{line}\n")));
                }
            }
        }
    }
    let mut rows = String::new();
    tables(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut rows);
    for (name, word) in ABSENT {
        let stands = rows.lines().any(|row| {
            row.split('`')
                .skip(1)
                .step_by(2)
                .any(|code| code.split(|c: char| !(c == '_' || c.is_alphanumeric())).any(|w| w == *word))
        });
        assert!(stands, "{name}: no table of a module has `{word}`");
    }
}

#[test]
fn a_list_that_lacks_a_row_or_has_one_too_many_is_complained_about() {
    let mut rows = list::Rows::default();
    rows.there.insert("net::TcpStream".into());
    rows.there.insert("net::Gone".into());
    rows.same.insert("net::Shutdown".into());
    let names = ["net::TcpStream", "net::TcpStream::warp", "net::Shutdown: Debug", "net::Shutdowns", "net::old"];
    let found = names.into_iter().map(|name| (name.to_owned(), "1.99.0".to_owned())).collect();
    let absent = &[("net::old", "old")];
    let new =
        ["new in std: net::Shutdowns, stable since 1.99.0", "new in std: net::TcpStream::warp, stable since 1.99.0"];
    assert_eq!(complaints(&found, &rows, absent, LISTED - 1), new);
    assert_eq!(complaints(&found, &rows, absent, LISTED), [new[0], new[1], "not in std: net::Gone"]);
}
