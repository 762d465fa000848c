//! What a run has counted, and how it is printed: one line for people, or `name value` lines for scripts.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Latencies in nanoseconds, to three digits.
#[derive(Debug)]
pub(crate) struct Latencies {
    counts: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: Histogram::new(3).expect("three digits are allowed") }
    }
}

impl Latencies {
    /// Counts one.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.counts.record(nanoseconds.max(1)).expect("the histogram grows by itself");
    }

    /// Returns the latency below which so many per cent are.
    pub(crate) fn at(&self, percentile: f64) -> u64 {
        self.counts.value_at_quantile(percentile / 100.0)
    }

    /// Returns the longest one.
    pub(crate) fn max(&self) -> u64 {
        self.counts.max()
    }

    /// Returns how many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.counts.len()
    }
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Requests, or deliveries of a chat room, that came to an end as they should.
    pub(crate) done: u64,
    /// Those that did not.
    pub(crate) errors: u64,
    /// From the moment a request was due to its answer. One without an answer counts with the time until the driver
    /// gave up.
    pub(crate) latencies: Latencies,
    /// How late the driver itself was: a stall of the driver is no server's fault, and is seen here.
    pub(crate) lateness: Latencies,
    /// Seconds from the first due moment to the last answer.
    pub(crate) seconds: f64,
    /// CPU nanoseconds of the server meanwhile.
    pub(crate) cpu: Option<u64>,
    /// Bytes of the server before there were connections, and with all of them.
    pub(crate) memory: Option<(u64, u64)>,
    /// How many connections there were.
    pub(crate) connections: u64,
    /// The first thing that went wrong.
    pub(crate) first_error: Option<String>,
}

impl Report {
    /// Counts something that went wrong.
    pub(crate) fn fail(&mut self, count: u64, what: impl FnOnce() -> String) {
        self.errors += count;
        if count > 0 {
            self.first_error.get_or_insert_with(what);
        }
    }

    /// Returns all figures with their names, in the order in which they are printed.
    fn figures(&self, unit: &str) -> Vec<(String, String)> {
        let microseconds = |nanoseconds: u64| format!("{:.1}", nanoseconds as f64 / 1e3);
        let mut all = vec![
            (unit.to_owned(), self.done.to_string()),
            ("errors".to_owned(), self.errors.to_string()),
            (format!("{unit}/s"), format!("{:.0}", self.done as f64 / self.seconds.max(1e-9))),
        ];
        for (name, percentile) in [("p50-us", 50.0), ("p99-us", 99.0), ("p99.9-us", 99.9)] {
            all.push((name.to_owned(), microseconds(self.latencies.at(percentile))));
        }
        all.push(("max-us".to_owned(), microseconds(self.latencies.max())));
        all.push(("driver-p99-us".to_owned(), microseconds(self.lateness.at(99.0))));
        all.push(("driver-max-us".to_owned(), microseconds(self.lateness.max())));
        if let Some(cpu) = self.cpu {
            all.push(("cpu-us".to_owned(), format!("{:.3}", cpu as f64 / 1e3 / self.done.max(1) as f64)));
        }
        if let Some((before, with_all)) = self.memory {
            let each = with_all.saturating_sub(before) as f64 / self.connections.max(1) as f64;
            all.push(("kib-connection".to_owned(), format!("{:.1}", each / 1024.0)));
        }
        all
    }

    /// Returns the text that is printed.
    pub(crate) fn text(&self, unit: &str, for_scripts: bool) -> String {
        let mut text = String::new();
        for (name, value) in self.figures(unit) {
            if for_scripts {
                let _ = writeln!(text, "{name} {value}");
            } else {
                let _ = write!(text, "{name} {value}  ");
            }
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_and_divided_by_what_was_done() {
        let mut report = Report { done: 4, seconds: 2.0, cpu: Some(8_000), connections: 2, ..Report::default() };
        report.memory = Some((1024, 1024 + 2 * 10 * 1024));
        (1..=4).for_each(|latency| report.latencies.record(latency * 1_000_000));
        report.fail(0, || unreachable!("nothing failed"));
        let text = report.text("requests", true);
        for line in ["requests 4", "errors 0", "requests/s 2", "cpu-us 2.000", "kib-connection 10.0"] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
        }
        assert!(report.latencies.at(50.0).abs_diff(2_000_000) < 2_000, "{text}");
    }

    #[test]
    fn the_first_error_is_kept_and_all_are_counted() {
        let mut report = Report::default();
        report.fail(2, || "first".to_owned());
        report.fail(3, || "second".to_owned());
        assert_eq!((report.errors, report.first_error.as_deref()), (5, Some("first")));
    }
}
