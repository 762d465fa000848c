//! The counted figures of `benches/counts/counts.txt` over its commits, and what each commit changed.

use std::path::Path;

use crate::Outcome;
use crate::highlight::escaped;
use crate::history::{self, Kept};
use crate::versions::{Group, Line, Point, Version, place};

/// Where the figures are.
pub const FILE: &str = "benches/counts/counts.txt";

/// One version of the file.
struct Counts {
    compiler: String,
    /// Path, figure, value.
    values: Vec<(String, String, f64)>,
}

impl Counts {
    /// Reads a file: a line with the compiler, one with the names of figures, one for each path.
    fn parse(text: &str) -> Outcome<Counts> {
        let mut comments = text.lines().filter_map(|line| line.strip_prefix('#'));
        let compiler = comments.next().ok_or("no compiler is named")?.trim().to_owned();
        // Names are two blanks apart at least, since they have blanks themselves.
        let header = comments.next().ok_or("no figures are named")?.split("  ").map(str::trim);
        let figures: Vec<&str> = header.filter(|name| !name.is_empty()).skip(1).collect();
        let mut values = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let path = words.next().unwrap_or_default();
            let row: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
            if row.len() != figures.len() || figures.is_empty() {
                return Err(format!("{path} has {} figures in place of {}", row.len(), figures.len()));
            }
            values
                .extend(figures.iter().zip(row).map(|(figure, value)| (path.to_owned(), (*figure).to_owned(), value)));
        }
        Ok(Counts { compiler, values })
    }

    fn find(&self, path: &str, figure: &str) -> Option<f64> {
        self.values.iter().find(|value| value.0 == path && value.1 == figure).map(|value| value.2)
    }
}

/// The part of the page about counts.
pub fn part(root: &Path) -> String {
    let history = history::of(root, FILE);
    let mut notes: Vec<String> = history.note.into_iter().collect();
    let mut versions: Vec<(Kept, Counts)> = Vec::new();
    for kept in history.kept {
        match Counts::parse(&kept.text) {
            Ok(counts) => versions.push((kept, counts)),
            Err(error) => notes.push(format!("{FILE} of {} is left out: {error}.", name(&kept))),
        }
    }
    let notes: String = notes.iter().map(|note| format!("<p class=warning>{}</p>\n", escaped(note))).collect();
    let head = format!(
        "<h2 id=counts>Counted figures</h2>\n<p>What <code>{FILE}</code> said after each commit that changed it: what one \
         round along a hot path takes. It needs no run, and no quiet machine. Another compiler makes other code of the \
         same program, so values of different compilers are not joined by a line.</p>\n{notes}"
    );
    if versions.is_empty() {
        return head + "<p>There are no counted figures here.</p>\n";
    }
    let mut compilers = Vec::new();
    let group = group(&versions, &mut compilers);
    let legend: Vec<String> =
        compilers.iter().enumerate().map(|(at, name)| format!("{} {}", place(at), escaped(name))).collect();
    let (zero, rest): (Vec<Line>, Vec<Line>) = group.lines.into_iter().partition(Line::is_zero);
    let table = Group { lines: rest, ..group }.table();
    format!("{head}<p>Compilers: {}.</p>\n{table}{}{}", legend.join(", "), zeros(&zero), changes(&versions))
}

/// The versions as columns.
fn group(versions: &[(Kept, Counts)], compilers: &mut Vec<String>) -> Group {
    let columns = versions.iter().map(|(kept, counts)| {
        let at = compilers.iter().position(|known| *known == counts.compiler).unwrap_or_else(|| {
            compilers.push(counts.compiler.clone());
            compilers.len() - 1
        });
        let date = kept.date.split(' ').next().unwrap_or_default().to_owned();
        Version { name: name(kept).to_owned(), date, on: at, is_busy: false }
    });
    let columns = columns.collect();
    // The newest version's rows first, then those that are gone.
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for (path, figure, _) in versions.iter().rev().flat_map(|(_, counts)| &counts.values) {
        if !keys.contains(&(path, figure)) {
            keys.push((path, figure));
        }
    }
    let lines = keys.into_iter().map(|(path, figure)| {
        let points = versions
            .iter()
            .map(|(_, counts)| counts.find(path, figure).map(|raw| Point { raw, ratio: None, is_wide: false }));
        Line { name: path.to_owned(), unit: figure.to_owned(), points: points.collect() }
    });
    let lines = lines.collect();
    Group { versions: columns, lines }
}

/// The rows that are zero in each version, in one sentence: they would be half of the table.
fn zeros(lines: &[Line]) -> String {
    let mut by_path: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        match by_path.iter_mut().find(|(path, _)| *path == line.name) {
            Some((_, figures)) => figures.push(&line.unit),
            None => by_path.push((&line.name, vec![&line.unit])),
        }
    }
    let said = by_path
        .iter()
        .map(|(path, figures)| format!("<code>{}</code>: {}", escaped(path), escaped(&figures.join(", "))));
    let said: Vec<String> = said.collect();
    if said.is_empty() { String::new() } else { format!("<p>Zero in every version: {}.</p>\n", said.join("; ")) }
}

/// What each commit changed, the newest first.
fn changes(versions: &[(Kept, Counts)]) -> String {
    let mut html = String::from("<h3>Which commit changed what</h3>\n<dl>\n");
    for (at, (kept, counts)) in versions.iter().enumerate().rev() {
        let said = match at.checked_sub(1) {
            None => vec![format!("the first {} figures", counts.values.len())],
            Some(before) => differences(&versions[before].1, counts),
        };
        let items: String = said.iter().map(|said| format!("<li>{}</li>\n", escaped(said))).collect();
        html += &format!(
            "<dt><code>{}</code> {} {}</dt>\n<dd><ul>\n{items}</ul></dd>\n",
            escaped(name(kept)),
            escaped(&kept.date),
            escaped(&kept.subject)
        );
    }
    html + "</dl>\n"
}

/// What is other in `after`.
fn differences(before: &Counts, after: &Counts) -> Vec<String> {
    let mut said = Vec::new();
    if before.compiler != after.compiler {
        said.push(format!("compiler: {} → {}", before.compiler, after.compiler));
    }
    for (path, figure, value) in &after.values {
        match before.find(path, figure) {
            None => said.push(format!("{path}: {figure} {value}, new")),
            Some(old) if old != *value => {
                let share =
                    if old == 0.0 { String::new() } else { format!(" ({:+.1} %)", (value / old - 1.0) * 100.0) };
                said.push(format!("{path}: {figure} {old} → {value}{share}"));
            }
            Some(_) => {}
        }
    }
    let gone = before.values.iter().filter(|(path, figure, _)| after.find(path, figure).is_none());
    said.extend(gone.map(|(path, figure, old)| format!("{path}: {figure} was {old}, gone")));
    if said.is_empty() { vec!["no figure".to_owned()] } else { said }
}

/// A version's name.
fn name(kept: &Kept) -> &str {
    if kept.commit.is_empty() { &kept.subject } else { &kept.commit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::Folder;
    use std::fs;

    /// A file of counts with these rows.
    fn file(compiler: &str, rows: &str) -> String {
        format!("# {compiler}, x86_64\n# one round       instructions     L1 misses  bytes\n{rows}")
    }

    #[test]
    fn counts_over_commits_say_which_one_changed_what() {
        let folder = Folder::new("counts");
        folder.git(&["init", "--quiet"]);
        folder.commit(FILE, &file("rustc 1", "yield 90.0 0.00 0\nold 1.0 2.00 3\n"), "counts: begin");
        folder.commit(FILE, "broken", "counts: break");
        folder.commit(FILE, &file("rustc 1", "yield 81.0 0.00 0\nnew 5.0 6.00 7\n"), "yield: be <shorter>");
        let html = part(&folder.0);
        for said in [
            "<li>yield: instructions 90 → 81 (-10.0 %)</li>",
            "<li>new: bytes 7, new</li>",
            "<li>old: L1 misses was 2, gone</li>",
            "yield: be &lt;shorter&gt;</dt>",
            "<li>the first 6 figures</li>",
            "is left out: no compiler is named.",
            "Zero in every version: <code>yield</code>: L1 misses, bytes.",
        ] {
            assert!(html.contains(said), "{said} is not in {html}");
        }
        assert_eq!(html.matches("<tr><td><code>").count(), 7, "all rows but the two of zeros: {html}");
    }

    #[test]
    fn values_of_two_compilers_are_not_joined() {
        let folder = Folder::new("compilers");
        folder.git(&["init", "--quiet"]);
        folder.commit(FILE, &file("rustc 1", "yield 90.0 0.00 0\n"), "one");
        folder.commit(FILE, &file("rustc 2", "yield 81.0 0.00 0\n"), "two");
        let html = part(&folder.0);
        assert!(!html.contains("<polyline") && html.contains("compiler: rustc 1, x86_64 → rustc 2, x86_64"), "{html}");
        folder.commit(FILE, &file("rustc 2", "yield 80.0 0.00 0\n"), "three");
        assert_eq!(part(&folder.0).matches("<polyline").count(), 1);
    }

    #[test]
    fn without_git_the_page_has_the_file_and_says_so() {
        let folder = Folder::new("counts-alone");
        fs::create_dir_all(folder.0.join("benches/counts")).expect("a folder is made");
        assert!(part(&folder.0).contains("There are no counted figures here."));
        fs::write(folder.0.join(FILE), file("rustc 1", "yield 90.0 0.00 0\n")).expect("a file is written");
        let html = part(&folder.0);
        assert!(
            html.contains("There is no history of benches/counts/counts.txt here, only the file as it is."),
            "{html}"
        );
        assert!(html.contains("<code>yield</code>") && html.contains("90"), "{html}");
    }
}
