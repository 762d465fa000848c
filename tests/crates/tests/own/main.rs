//! Crates that wait for locks, keep thread-locals, or have OS threads of their own, in green threads with thread-locals of
//! their own and with patched locks: what they do at once there, and that it is what they do on OS threads.
#![forbid(unsafe_code)]

mod channels;
mod clients;
mod computing;
mod locks;
mod logs;
mod mail;
mod pools;
mod servers;
mod system;
