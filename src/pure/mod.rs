//! Data structures without kernel, clock, stacks or threads of their own: plain Rust that Miri and loom can run.
