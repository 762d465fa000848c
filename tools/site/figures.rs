//! Figures of two runs side by side, as one page that needs nothing else: the book's, and a reader's own.
//!
//! The form of the files is in `benches/results/mod.rs`. What a run was disturbed by stands at the top of the page: a
//! figure of a busy machine says little, and one beside it says less.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Outcome;
use crate::highlight::escaped;

/// The form of files that is understood.
const SCHEMA: u64 = 1;

/// The load average for each core, the shares of others and of the hypervisor, and the middle half of a row's values as
/// a share of their median: above these a machine was busy.
const LOAD: f64 = 0.5;
const OTHERS: f64 = 0.1;
const STEAL: f64 = 0.02;
pub const SPREAD: f64 = 0.1;

/// One run of a bench.
pub struct Run {
    pub bench: String,
    pub command: String,
    pub date: String,
    pub commit: String,
    processor: String,
    kernel: String,
    pub compiler: String,
    cores: f64,
    pub load: f64,
    others: f64,
    steal: f64,
    pub rows: Vec<Row>,
}

/// One figure of a run.
pub struct Row {
    pub name: String,
    pub unit: String,
    pub median: f64,
    low: f64,
    high: f64,
    pub ratio: Option<f64>,
}

impl Row {
    /// The middle half of the values, as a share of their median.
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { ((self.high - self.low) / self.median).abs() }
    }
}

impl Run {
    /// Reads a file that a bench wrote.
    pub fn read(path: &Path) -> Outcome<Run> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Run::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str) -> Outcome<Run> {
        let file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file["schema"] != SCHEMA {
            return Err(format!("this is no file of figures, or not of the form {SCHEMA}"));
        }
        let rows = file["rows"].as_array().ok_or("there are no rows")?;
        let rows = rows.iter().map(|row| {
            let (name, unit) = (word(row, "name")?, word(row, "unit")?);
            let (median, low, high) = (number(row, "median")?, number(row, "low")?, number(row, "high")?);
            Ok(Row { name, unit, median, low, high, ratio: row["ratio"].as_f64() })
        });
        let rows: Vec<Row> = rows.collect::<Outcome<_>>()?;
        Ok(Run {
            bench: word(&file, "bench")?,
            command: word(&file, "command")?,
            date: word(&file, "date")?,
            commit: word(&file, "commit")?,
            processor: word(&file, "processor")?,
            kernel: word(&file, "kernel")?,
            compiler: word(&file, "compiler")?,
            cores: number(&file, "cores")?,
            load: number(&file, "load")?,
            others: number(&file, "others")?,
            steal: number(&file, "steal")?,
            rows,
        })
    }

    /// Processor, cores, kernel: two runs with the same can be of one machine.
    pub fn machine(&self) -> String {
        format!("{}, {} cores, Linux {}", self.processor, self.cores, self.kernel)
    }

    /// What the machine was busy with, and how many rows show it.
    pub fn warnings(&self) -> Vec<String> {
        let mut said = Vec::new();
        if self.load > LOAD * self.cores {
            said.push(format!("busy machine: the load average was {} on {} cores", self.load, self.cores));
        }
        if self.others > OTHERS {
            said.push(format!("busy machine: other programs took {:.0} % of it", self.others * 100.0));
        }
        if self.steal > STEAL {
            said.push(format!("busy machine: the hypervisor gave {:.0} % of it to others", self.steal * 100.0));
        }
        let wide = self.rows.iter().filter(|row| row.spread() > SPREAD).count();
        if wide > 0 {
            let of = self.rows.len();
            said.push(format!("{wide} of {of} rows vary by more than {:.0} % from run to run", SPREAD * 100.0));
        }
        said
    }
}

/// A text of a file.
fn word(of: &Value, name: &str) -> Outcome<String> {
    of[name].as_str().map(str::to_owned).ok_or_else(|| format!("there is no text {name:?}"))
}

/// A number of a file.
fn number(of: &Value, name: &str) -> Outcome<f64> {
    of[name].as_f64().ok_or_else(|| format!("there is no number {name:?}"))
}

/// A value as the page has it: three digits that count.
fn shown(value: f64) -> String {
    let digits = (2 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 3) as usize;
    format!("{value:.digits$}")
}

/// What a run was, and its warnings.
fn about(title: &str, run: &Run) -> String {
    let warnings: String =
        run.warnings().iter().map(|said| format!("<p class=warning>⚠ {title}: {}</p>\n", escaped(said))).collect();
    let machine = format!("{}, {}", run.machine(), run.compiler);
    let facts = [&run.date, &machine, &format!("commit {}", run.commit), &format!("load {}", run.load)];
    let facts: Vec<String> = facts.iter().map(|fact| escaped(fact)).collect();
    format!("<p><b>{title}</b>: <code>{}</code><br>{}</p>\n{warnings}", escaped(&run.command), facts.join(" · "))
}

/// A bar with the middle half of the values on it; `whole` is the longest.
fn bar(kind: &str, row: &Row, whole: f64) -> String {
    let share = |value: f64| (value.max(0.0) / whole.max(f64::MIN_POSITIVE) * 100.0).min(100.0);
    format!(
        "<div class=\"bar {kind}\"><i style=\"width:{:.1}%\"></i><u style=\"left:{:.1}%;width:{:.1}%\"></u></div>",
        share(row.median),
        share(row.low),
        (share(row.high) - share(row.low)).max(0.0)
    )
}

/// The cells of one run's row.
fn cells(row: Option<&Row>) -> String {
    let Some(row) = row else { return "<td>–</td><td>–</td><td>–</td>".to_owned() };
    let wide = if row.spread() > SPREAD { " class=wide" } else { "" };
    let ratio = row.ratio.map_or(String::from("–"), |ratio| format!("{ratio:.2}"));
    format!("<td>{}</td><td{wide}>± {:.0} %</td><td>{ratio}</td>", shown(row.median), row.spread() * 50.0)
}

/// The rows of two runs: those of the book in its order, then what only the other has.
fn table(book: Option<&Run>, mine: &Run) -> String {
    let of_book = book.map_or(&[][..], |book| &book.rows);
    let only_mine = mine.rows.iter().filter(|row| of_book.iter().all(|other| other.name != row.name));
    let mut html = String::from(
        "<div class=table><table>\n<tr><th rowspan=2>row</th><th rowspan=2>unit</th><th colspan=3>the book</th>\
         <th colspan=3>yours</th><th rowspan=2>yours / book</th><th rowspan=2>book above, yours below</th></tr>\n\
         <tr><th>median</th><th>spread</th><th>× yardstick</th><th>median</th><th>spread</th><th>× yardstick</th></tr>\n",
    );
    for row in of_book.iter().chain(only_mine) {
        let is_same = |other: &&Row| other.name == row.name && other.unit == row.unit;
        let (theirs, ours) = (of_book.iter().find(is_same), mine.rows.iter().find(is_same));
        let ratio = theirs.zip(ours).filter(|(theirs, _)| theirs.median != 0.0);
        let ratio = ratio.map_or(String::from("–"), |(theirs, ours)| format!("{:.2}", ours.median / theirs.median));
        let whole = [theirs, ours].iter().flatten().map(|row| row.high.max(row.median)).fold(0.0, f64::max);
        let bars: String = [("book", theirs), ("yours", ours)]
            .iter()
            .filter_map(|(kind, row)| row.map(|row| bar(kind, row, whole)))
            .collect();
        html += &format!(
            "<tr><td><code>{}</code></td><td>{}</td>{}{}<td><b>{ratio}</b></td><td class=bars>{bars}</td></tr>\n",
            escaped(&row.name),
            escaped(&row.unit),
            cells(theirs),
            cells(ours)
        );
    }
    html + "</table></div>\n"
}

/// What stands in place of the book's run.
const NO_RUN: &str = "<p>The book has no run of this bench.</p>\n";

/// The page with the runs in pairs: the book's, if it has one, and another.
pub fn page(runs: &[(Option<Run>, Run)]) -> String {
    let parts = runs.iter().map(|(book, mine)| {
        format!(
            "<h2>{}</h2>\n{}{}{}",
            escaped(&mine.bench),
            book.as_ref().map_or(String::from(NO_RUN), |book| about("The book", book)),
            about("Yours", mine),
            table(book.as_ref(), mine)
        )
    });
    format!(
        "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Figures beside the book's</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<main>\n<h1>Figures beside the book's</h1>\n\
         <p>A median, and half of what the middle half of the values covers, as a share of it. A time says something about \
         a machine; what it is to its yardstick, measured in turns with it, says something about the program: compare \
         these columns first.</p>\n{}</main>\n</body>\n</html>\n",
        include_str!("figures.css"),
        parts.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one row, of a machine with these figures.
    fn file(load: f64, others: f64, steal: f64, high: f64) -> String {
        format!(
            "{{ \"schema\": 1, \"bench\": \"b\", \"command\": \"c\", \"date\": \"d\", \"commit\": \"e\", \"processor\": \"p\", \
             \"cores\": 2, \"kernel\": \"6\", \"compiler\": \"r\", \"load\": {load}, \"others\": {others}, \"steal\": {steal}, \
             \"rows\": [ {{ \"name\": \"x<y\", \"unit\": \"ns\", \"median\": 10, \"low\": 10, \"high\": {high}, \"values\": 9 }} ] }}"
        )
    }

    #[test]
    fn a_busy_machine_is_warned_of() {
        let warnings = |text: String| Run::parse(&text).unwrap().warnings();
        assert_eq!(warnings(file(1.0, 0.1, 0.02, 11.0)), [""; 0]);
        assert_eq!(warnings(file(1.1, 0.0, 0.0, 10.0)), ["busy machine: the load average was 1.1 on 2 cores"]);
        assert_eq!(warnings(file(0.0, 0.2, 0.0, 10.0)), ["busy machine: other programs took 20 % of it"]);
        assert_eq!(warnings(file(0.0, 0.0, 0.5, 10.0)), ["busy machine: the hypervisor gave 50 % of it to others"]);
        assert_eq!(warnings(file(0.0, 0.0, 0.0, 12.0)), ["1 of 1 rows vary by more than 10 % from run to run"]);
    }

    #[test]
    fn the_page_has_all_rows_and_the_warning() {
        let book = Run::parse(&file(0.0, 0.0, 0.0, 10.0)).unwrap();
        let mine = file(9.0, 0.0, 0.0, 10.0).replace("] }", ", { \"name\": \"z\", \"unit\": \"ns\", \"median\": 20, \"low\": 1, \"high\": 30, \"values\": 9, \"ratio\": 1.5 } ] }");
        let mine = Run::parse(&mine).unwrap();
        let html = page(&[(Some(book), mine)]);
        assert_eq!(html.matches("<tr><td>").count(), 2);
        assert!(html.contains("<code>x&lt;y</code>") && html.contains("<b>1.00</b>"), "{html}");
        assert!(html.contains("<code>z</code>") && html.contains("<td>1.50</td>"), "{html}");
        assert!(html.contains("⚠ Yours: busy machine: the load average was 9 on 2 cores"), "{html}");
        assert!(!html.contains("⚠ The book"));
        assert!(!html.contains("://"), "nothing is loaded");
    }

    #[test]
    fn a_bench_of_which_the_book_has_no_run_is_shown_alone() {
        let html = page(&[(None, Run::parse(&file(0.0, 0.0, 0.0, 10.0)).unwrap())]);
        assert!(html.contains(NO_RUN) && html.contains("<code>x&lt;y</code>"), "{html}");
    }

    #[test]
    fn what_is_no_file_of_figures_is_one_clear_error() {
        let error = |text: &str| Run::parse(text).err().expect("an error");
        assert_eq!(error("{}"), "this is no file of figures, or not of the form 1");
        assert_eq!(error("{ \"schema\": 1 }"), "there are no rows");
        assert_eq!(error(&file(0.0, 0.0, 0.0, 1.0).replace("\"unit\"", "\"u\"")), "there is no text \"unit\"");
        assert!(error("x").starts_with("expected value"));
    }
}
