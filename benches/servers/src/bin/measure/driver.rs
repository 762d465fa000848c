//! The drivers: wrk for HTTP, redis-benchmark for the store. Both end by themselves; a time limit stands behind them.

use std::process::{Command, Stdio};

/// What a driver asks.
pub(crate) enum Asked {
    /// wrk: as many requests as are answered in a time.
    Wrk { connections: usize, path: &'static str },
    /// redis-benchmark: so many requests as are answered in about that time.
    Redis { connections: usize, command: &'static str, pipeline: usize },
}

/// What a driver says.
pub(crate) struct Said {
    pub(crate) requests: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Latencies in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Asked {
    /// Runs the driver on a core for about so many seconds. What it said before tells redis-benchmark how many requests
    /// these are; without that it is a short run.
    pub(crate) fn run(&self, port: u16, core: usize, seconds: u64, before: Option<&Said>) -> Result<Said, String> {
        match self {
            Asked::Wrk { connections, path } => {
                let (connections, seconds) = (format!("-c{connections}"), format!("-d{seconds}s"));
                let url = format!("http://127.0.0.1:{port}{path}");
                said_by_wrk(&output(core, &["wrk", "-t1", &connections, &seconds, "--latency", &url])?)
            }
            Asked::Redis { connections, command, pipeline } => {
                let count = before.map_or(20_000.0, |before| before.rate * seconds as f64).max(20_000.0);
                let [port, connections, pipeline] = [usize::from(port), *connections, *pipeline].map(|n| n.to_string());
                let requests = format!("{count:.0}");
                let line = ["redis-benchmark", "-p", &port, "-c", &connections, "-n", &requests, "-P", &pipeline];
                let rest = ["-t", *command, "-r", "10000", "--csv"];
                said_by_redis(&output(core, &[&line[..], &rest[..]].concat())?, count)
            }
        }
    }
}

/// What a command prints.
fn output(core: usize, command: &[&str]) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["120", "taskset", "-c", &core.to_string()])
        .args(command)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("timeout: {error}"))?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        return Err(format!("{} ended with {}: {problem}", command[0], output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads wrk's report. An error of a connection, or an answer that is none, spoils it.
fn said_by_wrk(report: &str) -> Result<Said, String> {
    if let Some(problem) = report.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        return Err(problem.trim().to_owned());
    }
    let line = |name: &str| {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).ok_or_else(|| format!("wrk does not say {name}"))
    };
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in ")).ok_or("no requests")?.0;
    Ok(Said {
        requests: requests.parse().map_err(|_| "no number of requests")?,
        rate: line("Requests/sec:")?.parse().map_err(|_| "no rate")?,
        p50: microseconds(line("50%")?)?,
        p99: microseconds(line("99%")?)?,
    })
}

/// A time as wrk prints it.
fn microseconds(text: &str) -> Result<f64, String> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.parse::<f64>().ok()?, factor)));
    found.map(|(value, factor)| value * factor).ok_or_else(|| format!("{text} is no time"))
}

/// Reads redis-benchmark's line: test, rate, and latencies in ms, the average, the least, p50, p95, p99, the most.
fn said_by_redis(report: &str, requests: f64) -> Result<Said, String> {
    let line = report.lines().rfind(|line| !line.is_empty()).ok_or("redis-benchmark says nothing")?;
    let fields: Vec<f64> = line.split(',').skip(1).filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    let &[rate, _, _, p50, _, p99, _] = &fields[..] else { return Err(format!("redis-benchmark says {line}")) };
    Ok(Said { requests, rate, p50: p50 * 1e3, p99: p99 * 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let report = "  Thread Stats   Avg      Stdev     Max   +/- Stdev\n  Latency Distribution\n     50%  412.00us\n     \
                      75%    1.00ms\n     99%    1.50ms\n  123456 requests in 3.00s, 10.00MB read\nRequests/sec:  41152.00\n";
        let said = said_by_wrk(report).unwrap();
        assert_eq!((said.requests, said.rate, said.p50, said.p99), (123_456.0, 41_152.0, 412.0, 1500.0));
        let problem = said_by_wrk(&format!("{report}  Socket errors: connect 0, read 1, write 0, timeout 0\n"));
        assert!(problem.is_err_and(|problem| problem.starts_with("Socket errors: connect 0")));
        assert_eq!(microseconds("1.20s"), Ok(1.2e6));
        assert!(microseconds("fast").is_err());
    }

    #[test]
    fn redis_benchmark_is_understood() {
        let report = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                      \"p99_latency_ms\",\"max_latency_ms\"\n\"GET\",\"123456.78\",\"0.3\",\"0.1\",\"0.25\",\"0.5\",\"0.75\",\"2\"\n";
        let said = said_by_redis(report, 20_000.0).unwrap();
        assert_eq!((said.requests, said.rate, said.p50, said.p99), (20_000.0, 123_456.78, 250.0, 750.0));
        assert!(said_by_redis("", 1.0).is_err());
    }
}
