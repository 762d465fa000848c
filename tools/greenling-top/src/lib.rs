//! The parts of `greenling-top`, which shows what the green threads of a running program do.
//!
//! ```text
//!   agent   the connection to the program: a socket, lines of JSON (docs/console.md)
//!   rows    answers as tables
//!   once    plain text         app   what the terminal shows, and what keys do       web   the page, and its server
//!                              tui   the terminal itself
//! ```

pub mod agent;
pub mod app;
pub mod once;
pub mod rows;
pub mod tui;
pub mod web;
