//! What the compiler does not check: where `unsafe` may stand, which file may import which, how comments are written,
//! and what must not be in the tree. Each check is a function from a [`Tree`] to a list of complaints; one test runs
//! the check on the real tree, another on a bad snippet, because a check that was never seen to fail proves nothing.
//!
//! The tables come first: they are what changes when a file is added. The scanner and the larger checks are in `tidy/`.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/scanner.rs"]
mod scanner;
#[path = "tidy/tree.rs"]
mod tree;

use imports::{check_circles, check_imports};
use names::{check_backquoted, check_file_tables, check_labels};
use prose::{check_function_length, check_prose};
use scanner::{code_of, line_of, without_tests, words};
use tree::{Tree, assert_complains, assert_none, has_children, real_tree, sources, tree};

/// The files under `src/` that may hold `unsafe`. Each begins with `#![allow(unsafe_code)]`.
const UNSAFE: &[&str] = &[
    "pure/wait_table.rs",
    "sys/affinity.rs",
    "sys/allocator.rs",
    "sys/c_library.rs",
    "sys/clock.rs",
    "sys/endpoint.rs",
    "sys/dump_signal.rs",
    "sys/epoll.rs",
    "sys/eventfd.rs",
    "sys/file.rs",
    "sys/flag.rs",
    "sys/kernel_clock.rs",
    "sys/fork.rs",
    "sys/fork_lock.rs",
    "sys/handlers.rs",
    "sys/inherit.rs",
    "sys/mmap.rs",
    "sys/peek.rs",
    "sys/prefetch.rs",
    "sys/process.rs",
    "sys/pthread.rs",
    "sys/raw.rs",
    "sys/signal.rs",
    "sys/signalfd.rs",
    "sys/socket.rs",
    "sys/stack_pointer.rs",
    "sys/ticks.rs",
    "sys/stack_sample.rs",
    "sys/symbols.rs",
    "sys/testing.rs",
    "sys/tls/block.rs",
    "sys/tls/destructors.rs",
    "sys/tls/errno.rs",
    "sys/tls/guards.rs",
    "sys/tls/layout.rs",
    "sys/tls/live.rs",
    "sys/tls/make_image.rs",
    "sys/tls/memory.rs",
    "sys/tls/modules.rs",
    "sys/tls/pointer.rs",
    "sys/tls/probe.rs",
    "sys/tls/self_test.rs",
    "sys/tls/symbols.rs",
    "sys/tls/tests.rs",
    "sys/transfer.rs",
    "sys/unix.rs",
    "sys/unwind.rs",
    "io/downcast.rs",
    "switch/stack.rs",
    "switch/stack_pool.rs",
    "switch/tls_pool.rs",
    "switch/control_block.rs",
    "switch/debug_list.rs",
    "switch/fiber.rs",
    "switch/payload.rs",
    "switch/wait_node.rs",
    "switch/suspended.rs",
    "switch/sweep.rs",
    "switch/root.rs",
    "switch/own_locals.rs",
    "switch/run_loop.rs",
    "switch/remote_fiber.rs",
    "switch/teardown.rs",
    "switch/mailbox.rs",
    "switch/packet.rs",
    "thread/scope.rs",
    "hub/sync/mutex.rs",
    "hub/sync/rwlock.rs",
    "monkey/allocator.rs",
    "monkey/barrier.rs",
    "monkey/c_lock.rs",
    "monkey/child.rs",
    "monkey/clock.rs",
    "monkey/closing.rs",
    "monkey/condvar.rs",
    "monkey/dns.rs",
    "monkey/flock.rs",
    "monkey/library.rs",
    "monkey/futex.rs",
    "monkey/host.rs",
    "monkey/join.rs",
    "monkey/mmsg.rs",
    "monkey/mutex.rs",
    "monkey/once.rs",
    "monkey/patch.rs",
    "monkey/poll.rs",
    "monkey/random.rs",
    "monkey/rwlock.rs",
    "monkey/semaphore.rs",
    "monkey/setting.rs",
    "monkey/simulated.rs",
    "monkey/sockets.rs",
    "monkey/stream.rs",
    "monkey/thread_names.rs",
    "monkey/threads.rs",
    "monkey/time.rs",
    "monkey/transfer.rs",
];

/// A file imports lower ranks only. The tens are the rank of a layer in the table of `lib.rs`; the rest orders the
/// files inside the layer. An entry that ends in `/` holds for the files below it that have no entry of their own;
/// these may import each other, and so may the files of a declared circle: see [`CIRCLES`]. A `mod.rs` without an entry
/// takes the highest rank in its folder; it may always name its children, and a path through one of its re-exports
/// counts as a path to the file that defines the item.
const RANKS: &[(&str, u32)] = &[
    // The kernel, and data structures that need none. `sys/mod.rs` holds what all of `sys` shares.
    ("pure/", 0),
    ("sys/", 1),
    ("sys/tls/", 2),
    // Greenlet-style: explicit switches. Knows of no hub. A fiber holds the list of those that wait for its end.
    ("switch/stack.rs", 10),
    ("switch/state.rs", 10),
    ("switch/pending.rs", 10),
    ("switch/reason.rs", 10),
    ("switch/budget.rs", 10),
    ("switch/debug_list.rs", 10),
    ("switch/stack_pool.rs", 20),
    ("switch/tls_pool.rs", 10),
    ("switch/extras.rs", 20),
    ("switch/control_block.rs", 30),
    ("switch/fiber.rs", 30),
    ("switch/wait_list.rs", 30),
    ("switch/wait_node.rs", 30),
    ("switch/debugger.rs", 31),
    ("switch/payload.rs", 31),
    ("switch/prefetch.rs", 31),
    ("switch/overflow.rs", 32),
    ("switch/sweep.rs", 32),
    ("switch/recorder.rs", 33),
    ("switch/hooks.rs", 10),
    ("switch/sampler.rs", 33),
    ("switch/simulation.rs", 33),
    ("switch/root.rs", 40),
    ("switch/run_loop.rs", 41),
    ("switch/own_locals.rs", 41),
    ("switch/remote_fiber.rs", 41),
    ("switch/traced.rs", 41),
    ("switch/delays.rs", 41),
    ("switch/simulated.rs", 41),
    ("switch/suspended.rs", 41),
    ("switch/teardown.rs", 42),
    ("switch/cancel.rs", 50),
    ("switch/mailbox.rs", 50),
    ("switch/packet.rs", 50),
    ("switch/greenlet/error.rs", 60),
    ("switch/greenlet/trace.rs", 60),
    ("switch/greenlet/handle.rs", 60),
    ("switch/greenlet/unwind.rs", 61),
    ("switch/greenlet/deliver.rs", 61),
    // Gevent-style: switches by itself when a call would block.
    ("runtime/remote_queue.rs", 70),
    ("runtime/counters.rs", 70),
    ("runtime/by_environment.rs", 70),
    ("runtime/question.rs", 71),
    ("runtime/watchdog.rs", 71),
    ("runtime/dump.rs", 72),
    ("runtime/monitor.rs", 72),
    ("runtime/watch_thread.rs", 72),
    ("runtime/ended.rs", 70),
    ("runtime/faults.rs", 70),
    ("runtime/foreign_waits.rs", 70),
    ("runtime/shared_waits.rs", 71),
    ("runtime/timers.rs", 70),
    ("runtime/reactor.rs", 70),
    ("runtime/watch.rs", 71),
    ("runtime/thread_info.rs", 70),
    ("runtime/backtraces.rs", 70),
    ("runtime/report.rs", 71),
    // A hub that ends may write its trace.
    ("runtime/trace/event.rs", 72),
    ("runtime/trace/json.rs", 72),
    ("runtime/trace/data.rs", 73),
    ("runtime/trace/slices.rs", 74),
    ("runtime/trace/chrome.rs", 75),
    ("runtime/trace/page.rs", 75),
    ("runtime/trace/why.rs", 75),
    ("runtime/trace/session.rs", 76),
    // The console may ask for a trace.
    ("runtime/console/request.rs", 72),
    ("runtime/console/place.rs", 72),
    ("runtime/console/object.rs", 73),
    ("runtime/console/snapshot.rs", 73),
    ("runtime/console/tracing.rs", 77),
    ("runtime/console/answers.rs", 78),
    ("runtime/console/agent.rs", 79),
    ("runtime/hub.rs", 80),
    ("runtime/caller.rs", 85),
    ("runtime/virtual_wait.rs", 85),
    ("runtime/park.rs", 90),
    ("runtime/checkpoint.rs", 100),
    ("runtime/source.rs", 101),
    ("runtime/remote.rs", 100),
    ("runtime/all_threads.rs", 101),
    ("runtime/choose.rs", 102),
    ("runtime/arms.rs", 103),
    ("runtime/select_source.rs", 103),
    // What users call, on park and source alone.
    ("interrupt.rs", 110),
    ("thread/handle.rs", 110),
    ("thread/join_error.rs", 110),
    ("thread/local.rs", 110),
    ("thread/join.rs", 111),
    ("thread/life.rs", 111),
    ("thread/spawn.rs", 112),
    ("thread/future.rs", 113),
    ("thread/scope.rs", 113),
    ("thread/try_scope.rs", 114),
    ("offload/builder.rs", 110),
    ("offload/error.rs", 110),
    ("offload/job.rs", 110),
    ("offload/workers.rs", 111),
    ("offload/pool.rs", 112),
    ("offload/per_process.rs", 113),
    ("hub/channel/state.rs", 130),
    ("hub/channel/ends.rs", 131),
    ("hub/channel/arms.rs", 132),
    ("hub/channel/iter.rs", 132),
    ("hub/metrics.rs", 130),
    ("hub/remote.rs", 130),
    ("hub/sync/poison.rs", 130),
    ("hub/sync/raw.rs", 130),
    ("hub/sync/mutex.rs", 131),
    ("hub/sync/once.rs", 131),
    ("hub/sync/rwlock.rs", 131),
    ("hub/sync/semaphore.rs", 131),
    ("hub/sync/condvar.rs", 132),
    ("hub/sync/once_lock.rs", 132),
    ("hub/sync/lazy_lock.rs", 133),
    ("trace.rs", 130),
    ("hub.rs", 134),
    ("hubs.rs", 140),
    // Sockets: what they share, names, TCP and UDP, Unix sockets, copies between them.
    ("net/", 120),
    ("net/resolve.rs", 121),
    ("net/addr.rs", 122),
    ("net/tcp_stream.rs", 123),
    ("net/udp.rs", 123),
    ("net/unix/", 123),
    ("net/unix/listener.rs", 124),
    ("net/tcp_listener.rs", 124),
    ("net/copy.rs", 125),
    ("net/mod.rs", 126),
    // Files: each call a job.
    ("fs/job.rs", 120),
    ("fs/builder.rs", 121),
    ("fs/dir.rs", 121),
    ("fs/file.rs", 121),
    ("fs/lock.rs", 122),
    ("fs/mod.rs", 123),
    // Standard streams and pipes, then what knows them.
    ("io/", 130),
    ("io/child.rs", 131),
    ("io/downcast.rs", 132),
    ("io/copy.rs", 133),
    ("io/mod.rs", 134),
    ("process/child.rs", 140),
    ("process/command.rs", 141),
    ("process/mod.rs", 142),
    // What only some systems have. `os/unix/net.rs` re-exports `net/unix`.
    ("os/linux/net.rs", 126),
    ("os/unix/net.rs", 126),
    ("os/unix/fs.rs", 126),
    ("os/unix/process.rs", 143),
    ("bridge.rs", 120),
    ("sync/wait_queue.rs", 120),
    ("sync/poison.rs", 120),
    ("sync/", 121),
    ("sync/condvar.rs", 122),
    ("sync/once_lock.rs", 122),
    ("sync/lazy_lock.rs", 123),
    ("channel/error.rs", 120),
    ("channel/broadcast.rs", 121),
    ("channel/store.rs", 121),
    ("channel/core.rs", 122),
    ("channel/ends.rs", 123),
    // A channel with std's names.
    ("sync/mpsc.rs", 124),
    ("signal.rs", 120),
    ("time.rs", 120),
    ("group/wait.rs", 130),
    ("group/members.rs", 131),
    ("group/pool.rs", 131),
    ("group/imap.rs", 132),
    ("group/own_pool.rs", 133),
    ("select/pieces.rs", 120),
    ("select/set.rs", 121),
    ("select.rs", 122),
    ("sim/failure.rs", 140),
    ("sim/faults.rs", 140),
    ("sim/registry.rs", 140),
    ("sim/world.rs", 141),
    ("sim/calls.rs", 142),
    ("sim/network.rs", 142),
    ("sim/config.rs", 142),
    ("sim/history.rs", 142),
    ("sim/left.rs", 143),
    ("sim/explore.rs", 143),
    ("sim/mod.rs", 144),
    ("monkey/", 150),
    ("server/", 140),
    ("server/balance.rs", 141),
    ("server/connections.rs", 141),
    ("server/drain.rs", 142),
    ("server/tcp.rs", 143),
    ("server/udp.rs", 144),
    ("server/balanced.rs", 144),
    ("lib.rs", 990),
];

/// Circles of imports that may be: files that name each other, in alphabetical order.
const CIRCLES: &[&[&str]] = &[
    // An intrusive list and its elements.
    &["switch/control_block.rs", "switch/fiber.rs", "switch/wait_list.rs", "switch/wait_node.rs"],
];

/// What the comments of a file, or a document, may hold: words for people, long lines, doc comments that repeat a name.
/// The number is exact, so that it can only fall. None holds any.
const ALLOWED_PROSE: &[(&str, [usize; 3])] = &[];

/// Names in backquotes in comments that are not this repository's.
const FOREIGN: &[&str] = &[
    // Of the C library and the kernel.
    "_Fork",
    "__ctype_init",
    "__tls_get_addr",
    "_thread_db_STRUCT_FIELD",
    "copy_file_range",
    "dlerror",
    "fclose",
    "fgets",
    "getpwnam",
    "libthread_db",
    "locale_t",
    "lockf",
    "longjmp",
    "posix_spawn",
    "pthread_cancel",
    "pthread_exit",
    "pthread_t",
    "sa_mask",
    "sigwait",
    "somaxconn",
    "strerror",
    "timerfd",
    "vfork",
    "vmsplice",
    // Of std, and of other runtimes.
    "AddrNotAvailable",
    "MissedTickBehavior",
    "floor_char_boundary",
    "NetworkUnreachable",
    "Reverse",
    "into_incoming",
    "peer_cred",
    "set_passcred",
    "sysmon",
    // Prefixes.
    "try_",
];

/// Crates that only one folder may name.
const FENCED_CRATES: &[(&str, &str)] = &[("libc", "sys/"), ("corosensei", "switch/")];

/// Traces of the machine a file was written on. Split, so that this file passes its own check.
const DENIED: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/tmp/", "wt"), concat!("/ho", "me/"), concat!("/work/", "shared")];

// ---- the checks -----------------------------------------------------------------------------------------------------

fn check_first_line(tree: &Tree) -> Vec<String> {
    sources(tree)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(file, _)| format!("{file}: does not begin with `//!`"))
        .collect()
}

fn check_unsafe(tree: &Tree, allowed: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let code = code_of(text);
        let found: Vec<usize> = words(&code, "unsafe").collect();
        let forbids = code.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
        if allowed.contains(&file) {
            if found.is_empty() {
                complaints.push(format!("{file}: is listed, but holds no `unsafe`: take it off the list"));
            }
            if has_children(tree, file) {
                complaints.push(format!("{file}: has modules below it, which its `allow` would reach"));
            }
            continue;
        }
        for at in found {
            complaints.push(format!("{file}:{}: `unsafe` in a file that is not listed", line_of(text, at)));
        }
        // In a file with modules below it, `forbid` would bind these as well.
        if !forbids && !has_children(tree, file) {
            complaints.push(format!("{file}: `#![forbid(unsafe_code)]` is missing"));
        }
        if words(&code, "unsafe_code").any(|at| code[..at].trim_end().ends_with("allow(")) {
            complaints.push(format!("{file}: allows unsafe code but is not listed"));
        }
    }
    complaints
}

fn check_fenced_crates(tree: &Tree, fences: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        let code = without_tests(&code_of(text));
        for (name, folder) in fences {
            if file.starts_with(folder) {
                continue;
            }
            for at in words(&code, name) {
                complaints.push(format!("{file}:{}: names `{name}`, which only {folder} may", line_of(text, at)));
            }
        }
    }
    complaints
}

fn check_denied_words(tree: &Tree, denied: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in tree {
        for (number, line) in text.lines().enumerate() {
            for word in denied.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{file}:{}: `{word}`", number + 1));
            }
        }
    }
    complaints
}

fn check_leftovers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in sources(tree) {
        for (number, line) in text.lines().enumerate() {
            for word in ["TODO", "FIXME", "XXX"] {
                if words(line, word).next().is_some() {
                    complaints.push(format!("{file}:{}: {word}", number + 1));
                }
            }
            // Code that was commented out ends as code does.
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let comment = comment.trim();
            let code_begins = ["let ", "fn ", "pub ", "use ", "if ", "for ", "return", "println!", "dbg!", "eprintln!"]
                .iter()
                .any(|word| comment.starts_with(word));
            if code_begins && (comment.ends_with(';') || comment.ends_with('{')) {
                complaints.push(format!("{file}:{}: code in a comment", number + 1));
            }
        }
    }
    complaints
}

/// Complains about files that the list in `lib.rs` below the heading "Reading order" names in backquotes, from `src/`
/// or from the root, and that are not there.
fn check_reading_order(tree: &Tree) -> Vec<String> {
    let Some(lib) = tree.get("src/lib.rs") else {
        return vec!["lib.rs: is not there".to_owned()];
    };
    let mut complaints = Vec::new();
    let mut inside = false;
    for (number, line) in lib.lines().enumerate() {
        let Some(doc) = line.strip_prefix("//!") else {
            break;
        };
        if doc.trim_start().starts_with('#') {
            inside = doc.to_lowercase().contains("reading order");
            continue;
        }
        // Names of files and folders.
        for name in doc.split('`').skip(1).step_by(2).filter(|_| inside) {
            let is_file = [".rs", ".md", ".toml"].iter().any(|ending| name.ends_with(ending));
            let is_folder = name.ends_with('/');
            let exists = tree.keys().any(|file| {
                let below = file.strip_prefix("src/").unwrap_or(file);
                if is_folder {
                    file.starts_with(name) || below.starts_with(name)
                } else {
                    file == name || below == name
                }
            });
            if (is_file || is_folder) && !exists {
                complaints.push(format!("lib.rs:{}: the reading order names `{name}`, which is not there", number + 1));
            }
        }
    }
    complaints
}

fn check_table_entries(tree: &Tree) -> Vec<String> {
    let entries = RANKS.iter().map(|(entry, ..)| entry).chain(UNSAFE);
    entries
        .filter(|entry| {
            !sources(tree).any(|(file, _)| file == **entry || (entry.ends_with('/') && file.starts_with(**entry)))
        })
        .map(|entry| format!("{entry}: in a table of this test, but not in src/"))
        .collect()
}

// ---- the checks on the real tree ------------------------------------------------------------------------------------

/// The other tests would all pass on an empty tree.
#[test]
fn the_tree_is_read() {
    let tree = real_tree();
    for file in ["Cargo.toml", ".ci/run", "src/lib.rs", "src/sys/mod.rs", "tests/tidy.rs"] {
        assert!(tree.contains_key(file), "{file} was not read");
    }
}

#[test]
fn every_file_opens_with_what_it_is() {
    assert_none(&check_first_line(&real_tree()));
}

#[test]
fn unsafe_stands_in_listed_files_only() {
    assert_none(&check_unsafe(&real_tree(), UNSAFE));
}

#[test]
fn imports_go_downwards() {
    assert_none(&check_imports(&real_tree(), RANKS, CIRCLES));
}

#[test]
fn fenced_crates_stay_in_their_folder() {
    assert_none(&check_fenced_crates(&real_tree(), FENCED_CRATES));
}

#[test]
fn no_trace_of_a_machine() {
    assert_none(&check_denied_words(&real_tree(), DENIED));
}

#[test]
fn no_leftovers() {
    assert_none(&check_leftovers(&real_tree()));
}

#[test]
fn reading_order_names_files_that_exist() {
    assert_none(&check_reading_order(&real_tree()));
}

#[test]
fn tables_name_files_that_exist() {
    assert_none(&check_table_entries(&real_tree()));
}

#[test]
fn imports_have_no_circles() {
    assert_none(&check_circles(&real_tree(), CIRCLES));
}

#[test]
fn comments_are_plain() {
    assert_none(&check_prose(&real_tree(), ALLOWED_PROSE));
}

#[test]
fn functions_are_short() {
    assert_none(&check_function_length(&real_tree()));
}

#[test]
fn labels_of_invariants_are_unique() {
    assert_none(&check_labels(&real_tree(), &["docs/book/"]));
}

#[test]
fn names_in_comments_exist() {
    assert_none(&check_backquoted(&real_tree(), FOREIGN));
}

#[test]
fn tables_of_files_are_whole() {
    assert_none(&check_file_tables(&real_tree()));
}

// ---- the checks on bad snippets -------------------------------------------------------------------------------------

#[test]
fn complains_about_a_first_line() {
    let bad = tree(&[("src/a.rs", "//! Good.\n"), ("src/b.rs", "// bad\n"), ("tests/c.rs", "free")]);
    assert_complains(&check_first_line(&bad), &["b.rs: does not begin"]);
}

#[test]
fn complains_about_unsafe() {
    let bad = tree(&[
        ("src/lib.rs", "//! Fine without forbid. unsafe\n"),
        ("src/sys/mod.rs", "//! Not fine.\nfn f() { unsafe { g() } }\n"),
        ("src/sys/empty.rs", "//! Listed for nothing.\n"),
        ("src/sys/good.rs", "//! Listed.\n#![allow(unsafe_code)]\nunsafe fn f() {}\n"),
        ("src/free.rs", "//! Not listed.\n#![allow(unsafe_code)]\nconst A: &str = \"unsafe\";\n"),
        ("src/tame.rs", "//! Tame.\n#![forbid(unsafe_code)]\n"),
    ]);
    assert_complains(
        &check_unsafe(&bad, &["sys/empty.rs", "sys/good.rs"]),
        &["free.rs: `#![forbid", "free.rs: allows", "sys/empty.rs: is listed, but", "sys/mod.rs:2: `unsafe` in"],
    );
}

#[test]
fn complains_about_fenced_crates() {
    let bad = tree(&[("src/sys/a.rs", "use libc::c_int;"), ("src/b.rs", "// libc\nfn f() { libc::getpid(); }")]);
    assert_complains(&check_fenced_crates(&bad, &[("libc", "sys/")]), &["b.rs:2: names `libc`"]);
}

#[test]
fn complains_about_denied_words() {
    let bad = tree(&[("README.md", "fine\nsee /secret/place\n")]);
    assert_complains(&check_denied_words(&bad, &["/secret/"]), &["README.md:2"]);
    assert_complains(&check_denied_words(&tree(&[("a", concat!("/ro", "ot/x"))]), DENIED), &["a:1"]);
}

#[test]
fn complains_about_leftovers() {
    let bad = tree(&[(
        "src/a.rs",
        "// TODO: more\n/// XXX\nlet a = 1; // let b = 2;\n    // fn f() {\n// let us see;  a sentence\n/// let doc = 1;\n// TODOs",
    )]);
    assert_complains(&check_leftovers(&bad), &["a.rs:1: TODO", "a.rs:2: XXX", "a.rs:3: code", "a.rs:4: code"]);
}

#[test]
fn complains_about_the_reading_order() {
    let text = "//! `gone.rs` is free here.\n//! # Reading order\n//! 1. `a.rs`, `b/`\n//! 2. `gone.rs`, `Type`, `no/`\n//! # Next\n//! `x.rs`\n";
    let bad = tree(&[("src/lib.rs", text), ("src/a.rs", ""), ("src/b/mod.rs", "")]);
    assert_complains(&check_reading_order(&bad), &["lib.rs:4: the reading order names `gone.rs`", "`no/`"]);
}

#[test]
fn complains_about_table_entries() {
    assert_eq!(check_table_entries(&tree(&[])).len(), RANKS.len() + UNSAFE.len());
}
