//! Runs a part of a test in a process of its own: the test binary starts itself again, in the profile it was built in.
#![allow(unsafe_code, dead_code, unreachable_pub)]

use std::env;
use std::process::{Command, Output};

/// Names, in the environment of a child, the part that it runs.
const ROLE: &str = "GREENLING_TEST_ROLE";

/// What this process is to do, if it is a child. The test named `child` of each binary asks, and does nothing if not.
pub fn role() -> Option<String> {
    let role = env::var(ROLE).ok()?;
    // A core file of an expected death helps nobody.
    // SAFETY: PR_SET_DUMPABLE takes an integer (prctl(2)).
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    Some(role)
}

/// Runs the test `child` of this binary as `role`, with guards of the kind `guard` (empty: what the kernel has).
pub fn run(role: &str, guard: &str) -> Output {
    let mut command = Command::new(env::current_exe().expect("the path of the test binary"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env("GREENLING_GUARD", guard);
    command.output().expect("the test binary runs again")
}

/// [`run`] for a part that must succeed.
pub fn succeeds(role: &str, guard: &str) -> String {
    let output = run(role, guard);
    assert!(output.status.success(), "{}\n{}\n{}", output.status, out(&output), err(&output));
    out(&output)
}

/// What it wrote to fd 1.
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it wrote to fd 2.
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the kernel can install guards without splitting mappings (Linux 6.13).
pub fn has_install() -> bool {
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice (mmap(2)).
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 65_536, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the mapping is ours, and nobody has a reference into it (madvise(2)).
    let installed = unsafe { libc::madvise(page, 65_536, MADV_GUARD_INSTALL) } == 0;
    // SAFETY: as above (munmap(2)).
    unsafe { libc::munmap(page, 65_536) };
    installed
}

/// The kinds of guard that can be forced on this kernel.
pub fn guards() -> &'static [&'static str] {
    if has_install() {
        return &["install", "protect"];
    }
    eprintln!("skipped for MADV_GUARD_INSTALL: this kernel is older than 6.13");
    &["protect"]
}
