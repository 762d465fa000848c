//! The README says how many of std's examples run.

use std::path::Path;
use std::process::Command;

use std_examples::{COUNTS, REASONS};

/// The release that the README counts.
const RELEASE: &str = "1.95.";

#[test]
fn the_readme_has_the_count() {
    let (all, except) = COUNTS;
    if all == 0 {
        println!("SKIPPED: the sources of std are not installed (rustup component add rust-src)");
        return;
    }
    let run = all - except;
    println!("{run} of {all} run");
    for (reason, examples) in REASONS {
        println!("{examples:3}  {reason}");
    }
    let version = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version").output().unwrap();
    if !String::from_utf8(version.stdout).unwrap().starts_with(&format!("rustc {RELEASE}")) {
        println!("SKIPPED: the README counts the examples of {RELEASE}x");
        return;
    }
    for readme in ["README.md", "README.zh-CN.md"] {
        let text = std::fs::read_to_string(Path::new("../..").join(readme)).unwrap();
        for number in [run, all] {
            assert!(text.contains(&format!(" {number} ")), "{readme} does not say that {run} of {all} examples run");
        }
    }
}
