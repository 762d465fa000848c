//! What is printed: how the run goes, and what came out, as text or for programs.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::options::Format;
use crate::run::Run;
use crate::units::{plural, time};
use crate::{NAME, cli};

/// What was measured, besides what the [`Run`] has counted.
pub(crate) struct Report {
    /// The length of the measurement.
    pub(crate) seconds: f64,
    /// Messages that came back in this time.
    pub(crate) answers: u64,
    /// CPU time of this process.
    pub(crate) own_cpu: Duration,
    /// The servers, if they are known and were still there.
    pub(crate) server: Option<Server>,
    /// What other programs did on this machine when the run began.
    pub(crate) busy: Option<String>,
}

/// CPU time, memory and OS threads of all servers together.
pub(crate) struct Server {
    /// CPU time while the run was measured.
    pub(crate) cpu: Duration,
    /// Memory at the end.
    pub(crate) resident_kib: u64,
    /// The growth of memory since before the first connection.
    pub(crate) grown_kib: f64,
    /// OS threads at the end.
    pub(crate) threads: u64,
}

impl Report {
    /// Prints the report in the format of the command line.
    pub(crate) fn print(&self, run: &Run) {
        let words = run.first_words.borrow();
        if run.options.format != Format::Text
            && let Some(words) = &*words
        {
            // The output may have no reader.
            let _ = writeln!(io::stderr(), "{NAME}: {}: {words}", failures(run));
        }
        match run.options.format {
            Format::Text => self.print_text(run),
            Format::Json => {
                let members: Vec<String> =
                    self.fields(run).iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                cli::say_exactly(NAME, format_args!("{{{}}}", members.join(", ")));
            }
            Format::Tsv => {
                let (names, values): (Vec<&str>, Vec<String>) = self.fields(run).into_iter().unzip();
                cli::say_exactly(NAME, names.join("\t"));
                cli::say_exactly(NAME, values.join("\t"));
            }
        }
    }

    /// Returns the messages a second.
    fn throughput(&self) -> f64 {
        self.answers as f64 / self.seconds.max(1e-9)
    }

    /// Returns names and values for programs: numbers, or null.
    fn fields(&self, run: &Run) -> Vec<(&'static str, String)> {
        let options = &run.options;
        let latencies = run.latencies.borrow();
        let microseconds = |quantile| format!("{:.1}", latencies.value_at_quantile(quantile) as f64 / 1e3);
        let null = || String::from("null");
        let of_server = |value: &dyn Fn(&Server) -> String| {
            let known = self.server.as_ref().filter(|_| !options.servers.is_empty());
            known.map_or_else(null, value)
        };
        // In the order of the columns: what was asked for, what came, what that took.
        let mut fields = vec![
            ("connections", options.connections.to_string()),
            ("idle", options.idle.to_string()),
            ("size", options.size.to_string()),
            ("pipeline", options.pipeline.to_string()),
            ("rate", options.rate.map_or_else(null, |rate| rate.to_string())),
            ("seconds", format!("{:.3}", self.seconds)),
            ("answers", self.answers.to_string()),
            ("answers_per_s", format!("{:.1}", self.throughput())),
            ("measured", latencies.len().to_string()),
            ("unsent", run.unsent.get().to_string()),
            ("p50_us", microseconds(0.5)),
            ("p90_us", microseconds(0.9)),
            ("p99_us", microseconds(0.99)),
            ("p99_9_us", microseconds(0.999)),
            ("max_us", format!("{:.1}", latencies.max() as f64 / 1e3)),
            ("server_cpu_us_per_answer", of_server(&|server| self.each(server.cpu))),
            ("server_cores", of_server(&|server| format!("{:.3}", server.cpu.as_secs_f64() / self.seconds))),
            ("server_rss_kib", of_server(&|server| server.resident_kib.to_string())),
            (
                "server_rss_kib_per_connection",
                of_server(&|server| format!("{:.2}", server.grown_kib / options.clients() as f64)),
            ),
            ("server_threads", of_server(&|server| server.threads.to_string())),
            ("client_cpu_us_per_answer", self.each(self.own_cpu)),
            ("client_cores", format!("{:.3}", self.own_cpu.as_secs_f64() / self.seconds)),
            ("connected", run.connected.get().to_string()),
            ("alive", run.alive.get().to_string()),
        ];
        let failures = run.failures.borrow();
        fields.push(("errors", failures.iter().sum::<u64>().to_string()));
        fields.extend(Failure::ALL.map(|failure| (failure.name(), failures[failure as usize].to_string())));
        fields
    }

    /// Returns a time divided by the answers, in microseconds.
    fn each(&self, time: Duration) -> String {
        match self.answers {
            0 => String::from("null"),
            answers => format!("{:.3}", time.as_secs_f64() * 1e6 / answers as f64),
        }
    }

    /// Prints the report for people.
    fn print_text(&self, run: &Run) {
        let options = &run.options;
        let latencies = run.latencies.borrow();
        // What was asked for, in one line.
        let silent = if options.idle > 0 { format!(" and {} silent ones", options.idle) } else { String::new() };
        let deep = if options.pipeline > 1 { format!(", {} at once", options.pipeline) } else { String::new() };
        let mode = match options.rate {
            None => String::from("closed loop"),
            Some(rate) => format!("open loop, {rate}/s"),
        };
        cli::say(
            NAME,
            format_args!(
                "{}, {}{silent}, {}{deep}, {mode}",
                options.addr,
                plural(options.connections as u64, "connection"),
                plural(options.size as u64, "byte")
            ),
        );
        let line = |name: &str, text: String| cli::say(NAME, format_args!("  {name:<11} {text}"));
        line("answers", format!("{} in {:.1} s, {:.0}/s", self.answers, self.seconds, self.throughput()));
        // The results, a line for each subject that there is something to say of.
        if latencies.is_empty() {
            line("latency", String::from("nothing was measured"));
        } else {
            let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
            let mut values = quantiles
                .map(|(name, quantile)| format!("{name} {}", time(latencies.value_at_quantile(quantile))))
                .to_vec();
            values.push(format!("max {}", time(latencies.max())));
            line("latency", values.join(", "));
        }
        if run.unsent.get() > 0 {
            line("too late", format!("{} messages were due and not sent before the end", run.unsent.get()));
        }
        if !options.servers.is_empty() {
            match &self.server {
                Some(server) => {
                    let (cpu, share) = (self.each(server.cpu), server.cpu.as_secs_f64() / self.seconds * 100.0);
                    let threads = plural(server.threads, "OS thread");
                    line("server", format!("{cpu} us CPU/answer, {share:.0} % of a core, {threads}"));
                    let each = server.grown_kib / options.clients() as f64;
                    line("memory", format!("{} MiB, {each:.2} KiB/connection", server.resident_kib / 1024));
                }
                None => line("server", String::from("it has ended")),
            }
        }
        // A driver at the end of its core measures itself.
        let share = self.own_cpu.as_secs_f64() / self.seconds * 100.0;
        let limit = if share >= 95.0 { ": it may limit the rate" } else { "" };
        line("client", format!("{} us CPU/answer, {share:.0} % of a core{limit}", self.each(self.own_cpu)));
        let alive = format!("{} of {} alive", run.alive.get(), options.clients());
        match failures(run) {
            none if none.is_empty() => line("connections", format!("{alive}, no errors")),
            some => line("connections", format!("{alive}; {some}")),
        }
        if let Some(words) = &*run.first_words.borrow() {
            line("first error", words.clone());
        }
        if let Some(busy) = &self.busy {
            line("note", busy.clone());
        }
    }
}

/// Returns what went wrong and how often: `3 refused, 1 wrong bytes`.
pub(crate) fn failures(run: &Run) -> String {
    let failures = run.failures.borrow();
    let some = Failure::ALL.into_iter().filter(|&failure| failures[failure as usize] > 0);
    let words = some.map(|failure| format!("{} {}", failures[failure as usize], failure.name().replace('_', " ")));
    words.collect::<Vec<_>>().join(", ")
}

/// Returns the line of progress. `rate` is the messages a second since the last line.
pub(crate) fn progress(run: &Run, rate: f64) -> String {
    let options = &run.options;
    let (alive, all) = (run.alive.get(), options.clients());
    let what = match (run.started.get(), run.begun.get(), run.ended.get()) {
        (None, ..) => return format!("connecting: {} of {all}", run.connected.get()),
        (_, None, _) => String::from("warming up"),
        (_, Some(begun), None) => match options.requests {
            Some(requests) => format!("{} of {requests}", run.counted()),
            None => format!("{:.0} of {:.0} s", (Instant::now() - begun).as_secs_f64(), options.duration.as_secs_f64()),
        },
        (_, _, Some(_)) => String::from("waiting for the last answers"),
    };
    let latencies = run.latencies.borrow();
    let p99 =
        if latencies.is_empty() { String::new() } else { format!(", p99 {}", time(latencies.value_at_quantile(0.99))) };
    format!("{what}: {rate:.0} answers/s{p99}, {alive} of {all} alive")
}
