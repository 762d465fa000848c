//! A test that starts itself again under strace(1), and looks at what the child's hub asked of the kernel.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// The kernel's number of the calling OS thread.
pub(crate) fn thread_number() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The child's part: leaves word, in the file that its role names, of which OS thread is traced: the calling one.
pub(crate) fn note_thread(file: &OsStr) {
    std::fs::write(file, thread_number()).unwrap();
}

/// What the kernel was asked by the OS thread that the child noted.
pub(crate) struct Trace {
    /// A line for each system call, without the thread's number.
    pub(crate) lines: Vec<String>,
}

impl Trace {
    /// How many calls were of one of these names.
    pub(crate) fn count(&self, names: &[&str]) -> usize {
        let name = |line: &String| line.split_once('(').is_some_and(|(name, _)| names.contains(&name));
        self.lines.iter().filter(|line| name(line)).count()
    }
}

/// Runs the test named `test` of this binary, with the variable `role` set to the file for [`note_thread`]. None, and a
/// line that says so, where there is no strace or nobody may trace.
pub(crate) fn traced(test: &str, role: &str) -> Option<Trace> {
    let base = env::temp_dir().join(format!("greenling-{}-{test}", std::process::id()));
    let (log, number) = (base.with_extension("log"), base.with_extension("tid"));
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(role, &number)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: strace is missing or not allowed to trace");
        return None;
    }
    let trace = std::fs::read_to_string(&log).unwrap();
    let thread = std::fs::read_to_string(&number).unwrap();
    let _ = (std::fs::remove_file(log), std::fs::remove_file(number));
    let of_thread = |line: &str| Some(line.strip_prefix(&thread)?.trim_start().to_owned());
    Some(Trace { lines: trace.lines().filter_map(of_thread).collect() })
}
