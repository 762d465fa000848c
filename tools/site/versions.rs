//! Figures over versions, as one page that needs nothing else: each row of a bench is one line, with its value in each
//! version, and beside the benches stand the counted figures, which need no run.
//!
//! Raw values of two machines say nothing about the program, so no line joins them; a ratio to the yardstick was measured
//! in turns with it, and is joined over all.

use std::fs;
use std::path::Path;

use crate::figures::{Run, SPREAD};
use crate::highlight::escaped;
use crate::{Outcome, chart, counts, history};

/// A column of a table.
pub struct Version {
    pub name: String,
    pub date: String,
    /// The machine, or the compiler, by its number: what decides whether raw values can be compared.
    pub on: usize,
    pub is_busy: bool,
}

/// A row's value in one version.
pub struct Point {
    pub raw: f64,
    pub ratio: Option<f64>,
    /// Whether it varied from run to run.
    pub is_wide: bool,
}

/// A row over versions.
pub struct Line {
    pub name: String,
    pub unit: String,
    /// One for each version; none where it has no such row.
    pub points: Vec<Option<Point>>,
}

/// A table: its columns and rows.
pub struct Group {
    pub versions: Vec<Version>,
    pub lines: Vec<Line>,
}

/// What is to be shown: runs in the order of versions, and what is to be known about them.
struct Found {
    runs: Vec<Run>,
    notes: Vec<String>,
}

/// The page with the runs of these files, or, if there are none, of the book's in each of their commits. And the warnings.
pub fn page(root: &Path, files: &[&str]) -> Outcome<(String, Vec<String>)> {
    let Found { mut runs, mut notes } = if files.is_empty() { of_the_book(root)? } else { given(files)? };
    // The place of a commit, if the history here has it; else the day of the run.
    let when = |run: &Run| {
        let commit = run.commit.split(',').next().unwrap_or_default();
        (history::date_of(root, commit).unwrap_or_else(|| run.date.clone()), run.date.clone())
    };
    runs.sort_by_cached_key(when);
    let mut machines = Vec::new();
    let mut benches: Vec<&str> = runs.iter().map(|run| &run.bench[..]).collect();
    benches.sort_unstable();
    benches.dedup();
    let parts: String = benches.iter().map(|bench| part(bench, &runs, &mut machines)).collect();
    let warnings: Vec<String> = runs
        .iter()
        .flat_map(|run| run.warnings().into_iter().map(move |said| format!("{} {}: {said}", run.bench, run.commit)))
        .collect();
    let html = frame(&benches, &machines, &notes, &format!("{parts}{}", counts::part(root)));
    notes.extend(warnings);
    Ok((html, notes))
}

/// The runs of files.
fn given(files: &[&str]) -> Outcome<Found> {
    let runs = files.iter().map(|file| Run::read(Path::new(file))).collect::<Outcome<_>>()?;
    Ok(Found { runs, notes: Vec::new() })
}

/// The runs of the book, as each commit left them.
fn of_the_book(root: &Path) -> Outcome<Found> {
    let folder = root.join("docs/figures");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".json"));
    names.sort_unstable();
    let mut found = Found { runs: Vec::new(), notes: Vec::new() };
    for name in names {
        let path = format!("docs/figures/{name}");
        let history = history::of(root, &path);
        found.notes.extend(history.note);
        for kept in history.kept {
            // An older file may have another form.
            match Run::parse(&kept.text) {
                Ok(run) => found.runs.push(run),
                Err(error) => {
                    found.notes.push(format!("{path} of {} {} is left out: {error}", kept.commit, kept.subject))
                }
            }
        }
    }
    Ok(found)
}

/// One bench: its versions, their warnings, and its rows.
fn part(bench: &str, runs: &[Run], machines: &mut Vec<String>) -> String {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.bench == bench).collect();
    let (mut versions, mut list) = (Vec::new(), String::new());
    for run in &runs {
        let machine = run.machine();
        let on = machines.iter().position(|known| *known == machine).unwrap_or_else(|| {
            machines.push(machine);
            machines.len() - 1
        });
        // What the machine did stands out; that rows vary is marked in the table, too.
        let (busy, vary): (Vec<_>, Vec<_>) = run.warnings().into_iter().partition(|said| said.starts_with("busy"));
        let vary: String = vary.iter().map(|said| format!(" · ⚠ {}", escaped(said))).collect();
        let said: String = busy.iter().map(|said| format!("<p class=warning>⚠ {}</p>\n", escaped(said))).collect();
        list += &format!(
            "<li><b>{}</b> {} · machine {} · {} · load {} · <code>{}</code>{vary}{said}</li>\n",
            escaped(&run.commit),
            escaped(&run.date),
            place(on),
            escaped(&run.compiler),
            run.load,
            escaped(&run.command)
        );
        let date = run.date.split(' ').next().unwrap_or_default().to_owned();
        versions.push(Version { name: run.commit.clone(), date, on, is_busy: !busy.is_empty() });
    }
    let group = Group { versions, lines: lines(&runs) };
    let bench = escaped(bench);
    format!("<h2 id=\"bench-{bench}\">{bench}</h2>\n<ul class=versions>\n{list}</ul>\n{}", group.table())
}

/// The rows of runs: those of the newest in its order, then what only older ones have.
fn lines(runs: &[&Run]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in runs.iter().rev().flat_map(|run| &run.rows) {
        if lines.iter().any(|line| line.name == row.name && line.unit == row.unit) {
            continue;
        }
        let points = runs.iter().map(|run| {
            let same = run.rows.iter().find(|other| other.name == row.name && other.unit == row.unit)?;
            Some(Point { raw: same.median, ratio: same.ratio, is_wide: same.spread() > SPREAD })
        });
        let points = points.collect();
        lines.push(Line { name: row.name.clone(), unit: row.unit.clone(), points });
    }
    lines
}

impl Line {
    /// Whether there is nothing but zeros.
    pub fn is_zero(&self) -> bool {
        self.points.iter().flatten().all(|point| point.raw == 0.0)
    }

    /// What the last version is to the one before: by ratios, or by raw values where both are of one machine.
    fn change(&self, versions: &[Version]) -> String {
        let mut there =
            versions.iter().zip(&self.points).rev().filter_map(|(version, point)| Some((version, point.as_ref()?)));
        let (Some((last, new)), Some((before, old))) = (there.next(), there.next()) else { return "–".to_owned() };
        let (new, old, kind) = match (new.ratio, old.ratio) {
            (Some(new), Some(old)) => (new, old, "×"),
            _ if last.on == before.on => (new.raw, old.raw, "raw"),
            _ => return "–".to_owned(),
        };
        if old == 0.0 { "–".to_owned() } else { format!("{:+.1} % <small>{kind}</small>", (new / old - 1.0) * 100.0) }
    }

    /// The row of the table.
    fn row(&self, versions: &[Version], has: Columns) -> String {
        let cells = self.points.iter().map(|point| {
            let Some(point) = point else { return "<td>–</td>".to_owned() };
            let wide = if point.is_wide { " class=wide" } else { "" };
            let ratio = point.ratio.map_or(String::new(), |ratio| format!(" <small>{} ×</small>", rounded(ratio, 3)));
            format!("<td{wide}>{}{ratio}</td>", shown(point.raw))
        });
        let cells: String = cells.collect();
        // One version has no course.
        let mut course = String::new();
        if has.ratios && has.course {
            course += &format!("<td class=chart>{}</td>", chart::ratios(self, versions));
        }
        if has.course {
            course += &format!("<td class=chart>{}</td><td>{}</td>", chart::raw(self, versions), self.change(versions));
        }
        // On a narrow page a name may go on after a slash.
        let name = escaped(&self.name).replace('/', "/<wbr>");
        format!("<tr><td><code>{name}</code></td><td>{}</td>{course}{cells}</tr>\n", escaped(&self.unit))
    }
}

/// Which columns a table has besides the versions.
#[derive(Clone, Copy)]
struct Columns {
    /// Whether a row has a ratio.
    ratios: bool,
    /// Whether there are two versions at least.
    course: bool,
}

impl Group {
    /// The table of all rows.
    pub fn table(&self) -> String {
        let ratios = self.lines.iter().flat_map(|line| &line.points).flatten().any(|point| point.ratio.is_some());
        let has = Columns { ratios, course: self.versions.len() > 1 };
        let heads = self.versions.iter().map(|version| {
            let busy = if version.is_busy { " ⚠" } else { "" };
            let (name, date) = (escaped(&version.name), escaped(&version.date));
            format!("<th>{name}{busy}<br><small>{date} {}</small></th>", place(version.on))
        });
        let heads: String = heads.collect();
        let rows: String = self.lines.iter().map(|line| line.row(&self.versions, has)).collect();
        let course = match has {
            Columns { course: false, .. } => "",
            Columns { ratios: false, .. } => "<th>raw</th><th>last / before</th>",
            Columns { ratios: true, .. } => "<th>× yardstick</th><th>raw</th><th>last / before</th>",
        };
        format!("<div class=table><table>\n<tr><th>row</th><th>unit</th>{course}{heads}</tr>\n{rows}</table></div>\n")
    }
}

/// A machine's or compiler's letter, with its colour.
pub fn place(number: usize) -> String {
    let letter = char::from(b'A' + (number % 26) as u8).to_string().repeat(number / 26 + 1);
    format!("<b class=m{}>{letter}</b>", number % chart::COLOURS)
}

/// A raw value as the page has it: with five digits that count, which is as many as files have.
pub fn shown(value: f64) -> String {
    rounded(value, 5)
}

/// A value with so many digits that count, without zeros at the end.
fn rounded(value: f64, digits: i32) -> String {
    let places = (digits - 1 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The page around its parts.
fn frame(benches: &[&str], machines: &[String], notes: &[String], parts: &str) -> String {
    let links: String = benches
        .iter()
        .map(|bench| escaped(bench))
        .map(|bench| format!("<a href=\"#bench-{bench}\">{bench}</a> · "))
        .collect();
    let machines: String = machines
        .iter()
        .enumerate()
        .map(|(at, machine)| format!("<li>Machine {}: {}</li>\n", place(at), escaped(machine)))
        .collect();
    let notes: String = notes.iter().map(|note| format!("<p class=warning>{}</p>\n", escaped(note))).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Figures over versions</title>\n\
         <style>\n{}{}</style>\n</head>\n<body>\n<main>\n<h1>Figures over versions</h1>\n\
         <p>{links}<a href=\"#counts\">counted figures</a></p>\n\
         <p>Versions go from left to right. A cell has the median and, with ×, what it is to the row's yardstick, measured in \
         turns with it. A line joins ratios of all versions, and raw values of one machine only: those of two say nothing \
         about the program. Processor, cores and kernel tell machines apart here, so two that call themselves the same \
         cannot be told apart. Both charts begin at zero. Hollow points and ⚠ are of a busy machine, marked cells vary by \
         more than {:.0} % from run to run.</p>\n\
         <ul>\n{machines}</ul>\n{notes}{parts}</main>\n</body>\n</html>\n",
        include_str!("figures.css"),
        include_str!("versions.css"),
        SPREAD * 100.0
    )
}
