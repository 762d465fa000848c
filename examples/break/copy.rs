//! A copy of the crate, in a folder of its own below `target`, to which a patch is applied.
//!
//! ```text
//!   target/break/copy        the crate, as it is but for one patch
//!   target/break/target      what cargo has built of it, one patch after the other
//!   target/break/loom        a package that has `src/pure` of the copy and nothing else, for loom
//! ```
//!
//! Invariant copy-1: a file of the copy is written only if its text differs. So cargo compiles anew what a patch has
//! changed, and what the patch before had changed, and the rest stays.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::patch::Patch;

/// Folders that are not copied: results of builds and of git, and packages that the crate does not need.
const LEFT_OUT: [&str; 7] = ["target", ".git", ".ci", "heavy", "peers", "crates", "storm"];

/// The package for loom.
const LOOM: &str = r#"[package]
name = "greenling-pure"
version = "0.1.0"
edition = "2024"

[lib]
path = "lib.rs"

[dependencies]
crossbeam-queue = "0.3.12"
loom = "0.7"

[lints.rust]
unexpected_cfgs = { level = "allow" }

[workspace]

[profile.dev]
opt-level = 2
debug = false
"#;

/// The copy and what is built of it.
pub(crate) struct Copy {
    /// The folder of the crate.
    root: PathBuf,
    /// The folder of the copy, the builds and the package for loom.
    folder: PathBuf,
}

impl Copy {
    /// Makes the folders for a copy of the crate at `root`.
    pub(crate) fn new(root: &Path) -> io::Result<Copy> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let copy = Copy { root: root.to_owned(), folder: target.join("break") };
        fs::create_dir_all(copy.crate_folder())?;
        Ok(copy)
    }

    /// Returns the folder of the copied crate.
    pub(crate) fn crate_folder(&self) -> PathBuf {
        self.folder.join("copy")
    }

    /// Returns the folder of the whole: what is there may be deleted.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the copy what the crate is, with the changes.
    pub(crate) fn sync(&self, changes: &BTreeMap<String, String>) -> io::Result<()> {
        self.sync_folder(Path::new(""), changes)?;
        for (name, text) in changes {
            write_if_changed(&self.crate_folder().join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// Does the work of [`sync`](Self::sync) for a folder, named from the root.
    fn sync_folder(&self, folder: &Path, changes: &BTreeMap<String, String>) -> io::Result<()> {
        let (from, to) = (self.root.join(folder), self.crate_folder().join(folder));
        fs::create_dir_all(&to)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if LEFT_OUT.iter().any(|left_out| name == *left_out) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.sync_folder(&path, changes)?;
            } else if !changes.contains_key(&path.to_string_lossy()[..]) {
                write_if_changed(&to.join(&name), &fs::read(entry.path())?)?;
            }
            names.push(name);
        }
        // What an earlier patch has added, or the crate has lost, goes.
        for entry in fs::read_dir(&to)? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let is_kept = names.contains(&entry.file_name()) || changes.contains_key(&path.to_string_lossy()[..]);
            if !is_kept && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Builds the test targets of patches in the copy, all at once, and returns the program of each. The error is what
    /// cargo says.
    pub(crate) fn build(&self, patches: &[&Patch]) -> Result<BTreeMap<String, PathBuf>, String> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["test", "--no-run"]).arg("--target-dir").arg(self.folder.join("target"));
        cargo.current_dir(self.crate_folder());
        let targets: BTreeSet<&str> = patches.iter().map(|patch| &patch.target[..]).collect();
        for target in &targets {
            match *target {
                "lib" => cargo.arg("--lib"),
                "loom" => {
                    let folder = self.loom_package().map_err(|error| error.to_string())?;
                    cargo.arg("--lib").env("RUSTFLAGS", "--cfg loom").current_dir(folder)
                }
                test => cargo.args(["--test", test]),
            };
        }
        for feature in patches.first().into_iter().flat_map(|patch| &patch.features) {
            cargo.args(["--features", feature]);
        }
        // Names and lines are all that a reader needs; to leave out the rest makes a build shorter.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "1").env("CARGO_TERM_COLOR", "never");
        let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let mut programs = BTreeMap::new();
        for line in said.lines().filter_map(|line| line.trim().strip_prefix("Executable ")) {
            let Some((what, program)) = line.trim_end_matches(')').split_once(" (") else { continue };
            let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.rsplit_once('-').map_or(&name[..], |(name, _)| name);
            // The unit tests of a batch are all of one kind: those of the crate, or those for loom.
            let unit = if targets.contains("loom") { "loom" } else { "lib" };
            let target = if what.starts_with("unittests ") { unit } else { name };
            programs.insert(target.to_owned(), self.crate_folder().join(program));
        }
        if output.status.success() && programs.len() == targets.len() { Ok(programs) } else { Err(said.into_owned()) }
    }

    /// Makes the package that has the folder `pure` of the copy, and returns its folder.
    fn loom_package(&self) -> io::Result<PathBuf> {
        let folder = self.folder.join("loom");
        fs::create_dir_all(&folder)?;
        write_if_changed(&folder.join("Cargo.toml"), LOOM.as_bytes())?;
        let pure = self.crate_folder().join("src/pure/mod.rs");
        let lib = format!("#![allow(dead_code, unused)]\n#[path = {pure:?}]\nmod pure;\n");
        write_if_changed(&folder.join("lib.rs"), lib.as_bytes())?;
        let lock = self.root.join("Cargo.lock");
        // The versions are those of the crate.
        if lock.exists() && !folder.join("Cargo.lock").exists() {
            fs::copy(lock, folder.join("Cargo.lock"))?;
        }
        Ok(folder)
    }
}

/// Writes a file, unless it has this text (copy-1).
fn write_if_changed(path: &Path, text: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}
