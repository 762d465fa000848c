//! The patches in `docs/solutions/patches`: what one says of itself, and the change that it makes.
//!
//! ```text
//!   A permit is lost with the waiter that was killed          the title
//!
//!   Run: sync signals::a_permit_of_a_killed_waiter_..         the target, and the test or the folder of tests in it
//!   Features: monkey                                          what the build needs; may be missing
//!   Batch: A                                                  which others it can be built with; may be missing
//!   Ends: fails, hangs                                        each way in which the test may end
//!   Says: some words                                          what the output has; may be missing, or be there often
//!
//!   Why this is so, in paragraphs.
//!
//!   --- a/src/sync/wait_queue.rs                              the change: a diff that git and patch(1) understand
//! ```
//!
//! `6.1.patch` breaks what the place 6.1 of the book is about; `6.6.solution.patch` solves the exercise 6.6.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

/// How a test may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All is as it should be.
    Passes,
    /// An assertion fails, or another panic ends the test.
    Fails,
    /// It waits for ever.
    Hangs,
    /// A signal ends the process.
    Signal(&'static str),
}

impl End {
    /// Returns what a word of a patch means.
    fn of(word: &str) -> Option<End> {
        Some(match word {
            "passes" => End::Passes,
            "fails" => End::Fails,
            "hangs" => End::Hangs,
            "SIGABRT" => End::Signal("SIGABRT"),
            "SIGSEGV" => End::Signal("SIGSEGV"),
            _ => return None,
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Passes => "passes",
            End::Fails => "fails",
            End::Hangs => "hangs",
            End::Signal(name) => name,
        })
    }
}

/// A patch that was read, with all that it says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    /// The place in the book: chapter, and number in the chapter.
    pub(crate) number: String,
    /// Whether this solves an exercise, and breaks nothing.
    pub(crate) solves: bool,
    /// What happens, in a line.
    pub(crate) title: String,
    /// The test target: `lib`, the name of an integration test, or `loom`.
    pub(crate) target: String,
    /// The test, or the beginning of the names of tests; all if it is empty.
    pub(crate) filter: String,
    /// The features that the build needs.
    pub(crate) features: Vec<String>,
    /// The name of a batch: patches of one batch touch different things and tests, and share a build.
    pub(crate) batch: Option<String>,
    /// The ways in which the test may end.
    pub(crate) ends: Vec<End>,
    /// What the output has.
    pub(crate) says: Vec<String>,
    /// The reason, a string for each paragraph.
    pub(crate) why: Vec<String>,
    /// The change, as a unified diff.
    pub(crate) diff: String,
}

impl Patch {
    /// Reads the patch `name`, such as `6.1.patch`. The error says what is missing.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Patch, String> {
        let stem = name.strip_suffix(".patch").ok_or_else(|| format!("{name}: no patch by its name"))?;
        let number = stem.strip_suffix(".solution").unwrap_or(stem);
        let (head, diff) = text.split_once("\n--- ").ok_or_else(|| format!("{name}: there is no diff in it"))?;
        let mut paragraphs = head.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        let (title, fields) = (paragraphs.next().unwrap_or_default(), paragraphs.next().unwrap_or_default());
        let values = |key: &str| -> Vec<&str> {
            let lines = fields.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(name, _)| *name == key).map(|(_, value)| value.trim()).collect()
        };
        let run = *values("Run").first().ok_or_else(|| format!("{name}: no line \"Run:\""))?;
        let (target, filter) = run.split_once(' ').unwrap_or((run, ""));
        let words = values("Ends").join(", ");
        let ends: Option<Vec<End>> = words.split(", ").map(End::of).collect();
        let ends = ends.ok_or_else(|| format!("{name}: \"Ends: {words}\" is none of the ways to end"))?;
        let why: Vec<String> = paragraphs.map(|paragraph| paragraph.replace('\n', " ")).collect();
        if why.is_empty() {
            return Err(format!("{name}: it does not say why"));
        }
        let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<String>>();
        Ok(Patch {
            number: number.to_owned(),
            solves: stem != number,
            title: title.to_owned(),
            target: target.to_owned(),
            filter: filter.to_owned(),
            features: owned(values("Features")),
            batch: owned(values("Batch")).pop(),
            ends,
            says: owned(values("Says")),
            why,
            diff: format!("--- {diff}"),
        })
    }

    /// Returns the place of the patch in the order of the book.
    pub(crate) fn order(&self) -> (u32, u32) {
        let (chapter, number) = self.number.split_once('.').unwrap_or_default();
        (chapter.parse().unwrap_or(u32::MAX), number.parse().unwrap_or(u32::MAX))
    }

    /// Makes the change: returns the new text of each file. `read` returns the text of a file, or none. The error says
    /// which lines are not there.
    pub(crate) fn apply(&self, read: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, String> {
        let mut changed = BTreeMap::new();
        for file in self.diff.split("\n--- ") {
            let mut lines = file.lines().skip(1);
            let name = lines.next().and_then(|line| line.strip_prefix("+++ b/"));
            let name = name.ok_or_else(|| format!("{}: a diff without the line \"+++ b/\"", self.number))?;
            let is_new = file.trim_start_matches("--- ").starts_with("/dev/null");
            let old = if is_new { String::new() } else { read(name).ok_or_else(|| self.does_not_fit(name, ""))? };
            let mut text: Vec<&str> = old.lines().collect();
            let mut hunk: Vec<&str> = Vec::new();
            let (mut at, mut begin) = (0, 0);
            for line in lines.chain(["@@ -0"]) {
                let Some(place) = line.strip_prefix("@@ -") else {
                    hunk.push(line);
                    continue;
                };
                if !hunk.is_empty() {
                    let end = replace(&mut text, at, begin, &hunk).map_err(|lines| self.does_not_fit(name, &lines))?;
                    at = end;
                    hunk.clear();
                }
                let number = place.split([',', ' ']).next().and_then(|number| number.parse::<usize>().ok());
                begin = number.unwrap_or_default().saturating_sub(1);
            }
            changed.insert(name.to_owned(), text.join("\n") + "\n");
        }
        Ok(changed)
    }

    /// Returns the complaint about a patch for a file that has changed since.
    fn does_not_fit(&self, file: &str, lines: &str) -> String {
        format!("{} does not fit {file} any more: these lines are not there\n{lines}", self.number)
    }
}

/// Replaces the old lines of a hunk in `text` by the new ones, at the place from `at` on that is nearest to `begin`.
/// Returns where the new ones end, or the lines that are not there.
fn replace<'a>(text: &mut Vec<&'a str>, at: usize, begin: usize, hunk: &[&'a str]) -> Result<usize, String> {
    let side = |other: char| -> Vec<&'a str> {
        let lines = hunk.iter().filter(|line| !line.starts_with(other) && !line.starts_with('\\'));
        lines.map(|line| line.get(1..).unwrap_or("")).collect()
    };
    let (old, new) = (side('+'), side('-'));
    let places = (at..=text.len()).filter(|&start| text[start..].starts_with(&old));
    let Some(start) = places.min_by_key(|start| start.abs_diff(begin)) else {
        return Err(old.join("\n"));
    };
    let end = start + new.len();
    text.splice(start..start + old.len(), new);
    Ok(end)
}
