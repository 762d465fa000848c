//! The example programs of this build: their names, and where they lie once they are built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Returns the path of an example's program. The first call builds the examples if they are older than the sources:
/// `cargo test --test examples` builds no examples by itself.
pub(crate) fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(built_examples).join(name)
}

/// Builds the examples, unless they are fresh, and returns their folder.
fn built_examples() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/[TRIPLE/]PROFILE/deps/examples-HASH
    let profile = test.ancestors().nth(2).unwrap();
    let folder = profile.join("examples");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = newest(&root.join("src")).max(newest(&root.join("examples")));
    let fresh = |name: String| {
        let built = folder.join(name).metadata().and_then(|program| program.modified());
        built.is_ok_and(|built| built > sources)
    };
    if examples().into_iter().all(fresh) && has_our_features(&folder.join("server_models")) {
        return folder;
    }
    // The same target folder, triple, profile and features as this test's.
    let above = profile.parent().unwrap();
    let triple = above.file_name().and_then(|name| name.to_str()).filter(|name| name.contains("-linux-"));
    let target = if triple.is_some() { above.parent().unwrap() } else { above };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).args(["build", "--quiet", "--examples", "--target-dir"]).arg(target);
    cargo.args(triple.into_iter().flat_map(|triple| ["--target", triple]));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some(profile) => {
            cargo.args(["--profile", profile]);
        }
        None => panic!("no profile in {}", test.display()),
    }
    let features = [("sanitizer", cfg!(feature = "sanitizer")), ("monkey", cfg!(feature = "monkey"))];
    for (feature, _) in features.into_iter().filter(|&(_, is_ours)| is_ours) {
        cargo.args(["--features", feature]);
    }
    assert!(cargo.status().unwrap().success(), "the examples do not build");
    folder
}

/// Reports whether the examples were built with the feature `monkey` exactly if this test was: builds with and without
/// it lie in one folder, and the last one overwrites the others.
fn has_our_features(server_models: &Path) -> bool {
    let list = Command::new(server_models).arg("--list").output();
    list.is_ok_and(|list| String::from_utf8_lossy(&list.stdout).contains("green-patched") == cfg!(feature = "monkey"))
}

/// Returns the time of the last change to a file below `folder`. Packages of their own, such as `examples/heavy`, do
/// not count.
fn newest(folder: &Path) -> SystemTime {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap());
    let entries = entries.filter(|entry| !entry.path().join("Cargo.toml").exists());
    let times = entries.map(|entry| {
        let file = entry.metadata().unwrap();
        if file.is_dir() { newest(&entry.path()) } else { file.modified().unwrap() }
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns the names of all examples of this build, sorted.
pub(crate) fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let programs = entries.filter(|path| path.extension().is_some() || path.join("main.rs").exists());
    let names = programs.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let patched = ["echo_std_patched", "echo_threads_patched"];
    let mut names: Vec<String> =
        names.filter(|name| cfg!(feature = "monkey") || !patched.contains(&&name[..])).collect();
    names.sort();
    names
}
