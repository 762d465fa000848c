//! std with the modules that greenling mirrors replaced by greenling's, and std's examples of these, whose `std::` is
//! this package: see `build.rs`.
//!
//! ```text
//! cargo test --manifest-path tests/std_examples/Cargo.toml
//! ```

#![allow(non_snake_case)] // names of examples are made of those of items

pub use greenling::{fs, io, net, os, process, sync, thread, time};
pub use std::*;

include!(concat!(env!("OUT_DIR"), "/counts.rs"));
include!(concat!(env!("OUT_DIR"), "/examples.rs"));
