//! The server models of `examples/server_models/`, each held to the same promises.
//!
//! `cases.rs` has one function per promise, which takes the model; the macro below makes a test of each, for each
//! model. What a model cannot do by its nature is part of its row in `Model`, and asserted as such by the same case.
//!
//! The Python programs of `examples/server_models/python/` are held to them, too: `python.rs`.
//!
//! `green-patched` and `green-threads-patched` are there with the feature `monkey`. Without it, a case in `own.rs`
//! asserts the refusal.
// Child processes with descriptors and limits of their own have no safe counterpart in std.
#![allow(unsafe_code)]

#[allow(dead_code, reason = "made for the tests of the examples, which need all of it")]
#[path = "../examples/built.rs"]
mod built;
mod cases;
mod own;
mod python;
#[allow(dead_code, reason = "the same")]
#[path = "../examples/support.rs"]
mod support;

/// What to expect of a model.
#[derive(Clone, Copy)]
struct Model {
    /// What `--model` calls it.
    name: &'static str,
    /// Serves more than one client at a time.
    concurrent: bool,
    /// Sleeps while no client wants anything.
    sleeps: bool,
    /// A process per client: descriptors are no limit.
    forks: bool,
    /// Several OS threads that accept: clients that come at once are logged in any order.
    hubs: bool,
    /// The Python program, if it is one, in `examples/server_models/python`.
    script: Option<&'static str>,
}

/// A model as most are.
const fn model(name: &'static str) -> Model {
    Model { name, concurrent: true, sleeps: true, forks: false, hubs: false, script: None }
}

/// Makes a module of tests for each model, and a table of the models, simplest first.
macro_rules! models {
    ($models:ident; $($(#[$attribute:meta])? $module:ident: $model:expr,)*) => {
        pub(crate) const $models: &[crate::Model] = &[$($(#[$attribute])? $model),*];
        $($(#[$attribute])? mod $module { crate::models!(@cases $model;
            it_answers_two_clients_in_turn
            it_thanks_for_every_message
            it_serves_two_hundred_that_come_at_once
            it_returns_a_message_larger_than_its_buffer
            it_returns_split_writes_as_they_come
            it_returns_bytes_that_are_no_text
            it_answers_all_before_a_half_closed_connection_ends
            it_survives_a_reset_in_mid_message
            it_bounds_what_it_keeps_for_a_client_that_never_reads
            it_sends_what_it_kept_to_a_client_that_has_ended
            it_forgets_clients_that_left
            it_refuses_a_client_without_descriptor_and_goes_on
            it_ends_on_sigterm_and_sigint_with_all_its_clients
            it_starts_again_at_once_on_the_same_port
            it_sleeps_while_no_message_is_there_or_known_to_come
        ); })*
    };
    (@cases $model:expr; $($case:ident)*) => {
        $(#[test]
        fn $case() {
            #[allow(unused_imports, reason = "a row may need either")]
            use crate::{Model, model, python::script};
            if crate::python::can_run($model) {
                crate::cases::$case($model);
            }
        })*
    };
}
use models;

models! { MODELS;
    blocking: Model { concurrent: false, ..model("blocking") },
    process: Model { forks: true, ..model("process") },
    thread: model("thread"),
    nonblocking: Model { sleeps: false, ..model("nonblocking") },
    select: model("select"),
    select_stdin: model("select-stdin"),
    poll: model("poll"),
    epoll_lt: model("epoll-lt"),
    epoll_et: model("epoll-et"),
    greenlet: model("greenlet"),
    green: model("green"),
    green_hubs: Model { hubs: true, ..model("green-hubs") },
    #[cfg(feature = "monkey")] green_patched: model("green-patched"),
    #[cfg(feature = "monkey")] green_threads_patched: model("green-threads-patched"),
}
