//! Lines of source, as the line tables name them; for the assembly of corosensei, the lines of its text.
//!
//! To the line tables a block of assembly is one line. Its instructions lie in memory in the order of the text, so a
//! line of the text is that of an instruction if the lines that follow it are those of the instructions that follow.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::program::{Place, repository};

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The file, shortened, and the number of the line.
    pub(crate) place: String,
    /// What stands there; empty if the file is not on this machine.
    pub(crate) text: String,
}

/// The functions of corosensei that are assembly, as the text names them.
const ASSEMBLY: [(&str, &str); 2] =
    [("switch_and_link", "pub unsafe fn switch_and_link("), ("switch_yield", "pub unsafe fn switch_yield(")];

/// The part of corosensei's folder in which its assembly is.
const TEXT: &str = "src/arch/x86_64.rs";

/// The files that were read.
#[derive(Default)]
pub(crate) struct Source {
    /// The lines of each file; none of those that are not here.
    files: HashMap<PathBuf, Vec<String>>,
}

impl Source {
    /// Returns the lines of a file.
    fn file(&mut self, path: &Path) -> &[String] {
        self.files.entry(path.to_owned()).or_insert_with(|| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        })
    }

    /// Returns the line of a place.
    pub(crate) fn line(&mut self, place: &Place) -> Line {
        // What the compiler was given is a path from the folder that it was called in.
        let path = Path::new(&place.file);
        let path = if path.is_absolute() { path.to_owned() } else { Path::new(repository()).join(path) };
        let text = self.file(&path).get((place.number as usize).wrapping_sub(1)).filter(|_| is_own(place));
        Line { place: place.line(), text: text.map(|text| text.trim().to_owned()).unwrap_or_default() }
    }

    /// Returns the line of corosensei's text for an instruction, which `following` begins with: the instructions in
    /// memory from there on. None if the innermost of its places is none of the functions that are assembly.
    pub(crate) fn assembly(&mut self, place: &Place, following: &[String]) -> Option<Line> {
        let (_, opening) = ASSEMBLY.into_iter().find(|(name, _)| place.function.ends_with(name))?;
        // .../corosensei-VERSION/src/unwind.rs has the macro by which the line tables know the block.
        let folder = Path::new(&place.file).ancestors().find(|folder| folder.ends_with("src"))?.parent()?;
        let crate_name = folder.file_name()?.to_str()?.to_owned();
        let text = instructions(self.file(&folder.join(TEXT)), opening);
        let plain: Vec<String> = text.iter().map(|(_, text)| plain(text)).collect();
        let following: Vec<String> = following.iter().map(|text| self::plain(text)).collect();
        let agrees = |from: usize| plain[from..].iter().zip(&following).take_while(|(a, b)| a == b).count();
        let best = (0..plain.len()).max_by_key(|from| agrees(*from)).filter(|from| agrees(*from) > 0)?;
        let (number, line) = &text[best];
        Some(Line { place: format!("{crate_name}/{TEXT}:{number}"), text: line.clone() })
    }
}

/// Reports whether a place is in this repository.
pub(crate) fn is_own(place: &Place) -> bool {
    !place.file.is_empty() && (Path::new(&place.file).is_relative() || Path::new(&place.file).starts_with(repository()))
}

/// Returns an instruction without what two ways of writing it may differ in: spaces, sizes that the registers say, the
/// base of numbers, and the distance to a label.
fn plain(text: &str) -> String {
    let text = text.replace("qword ptr ", "").replace(' ', "");
    if let Some((before, _)) = text.split_once("[rip+") {
        return before.to_owned();
    }
    match text.split_once("0x") {
        Some((before, after)) => {
            let digits = after.find(|letter: char| !letter.is_ascii_hexdigit()).unwrap_or(after.len());
            let number = u64::from_str_radix(&after[..digits], 16).unwrap_or(0);
            format!("{before}{number}{}", &after[digits..])
        }
        None => text,
    }
}

/// Returns the lines that are instructions in the function that begins with the line `opening`, with their numbers.
fn instructions(file: &[String], opening: &str) -> Vec<(usize, String)> {
    let begin = file.iter().position(|line| line.starts_with(opening)).unwrap_or(file.len());
    let end = file[begin..].iter().position(|line| line == "}").map_or(file.len(), |end| begin + end);
    let mut found = Vec::new();
    for (index, line) in file[begin..end].iter().enumerate() {
        let Some((text, _)) = line.trim().strip_prefix('"').and_then(|rest| rest.split_once('"')) else { continue };
        let mnemonic = text.split(' ').next().unwrap_or_default();
        // Labels end with a colon.
        if !mnemonic.is_empty() && !mnemonic.ends_with(':') {
            found.push((begin + index + 1, text.to_owned()));
        }
    }
    found
}
