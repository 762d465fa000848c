//! One model under load: a server, connections that say nothing, and `echo_load` for those that do.
//!
//! ```text
//!                        one processor            another one
//!   hold  ------------>  server_models  <-------  echo_load
//!     idle connections,    its CPU time             active connections, closed loop,
//!     each with an echo    and memory               answers, latencies
//!     at the beginning
//! ```
//!
//! Idle connections are added to those that are there already: all points of a model have one server. A model that
//! cannot do a point says how far it came, and larger ones are not tried.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::child::Program;
use crate::model::Model;
use crate::options::Options;
use crate::process::memory;
use crate::server::{Family, cpu, slab_kib};

/// How long an answer may take before the server counts as one that does not serve.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a step of a program may take if the step itself takes no time.
const LONGEST_STEP: Duration = Duration::from_secs(60);

/// How long a server gets to fall asleep.
const SETTLE: Duration = Duration::from_millis(50);

/// How long a sleeping server is watched: a server that does not sleep gets a turn in this time, even on a busy
/// machine.
const ASLEEP: Duration = Duration::from_millis(200);

/// Idle connections that are made at once.
const BATCH: usize = 100;

/// Steps of fewer idle connections say nothing about the kernel's memory, which other programs use, too.
const LARGE_STEP: usize = 500;

/// What a model did at a point.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Connections that were active.
    pub(crate) active: usize,
    pub(crate) answers_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the server for each answer.
    pub(crate) cpu_us: f64,
    /// The same when a single connection asks.
    pub(crate) cpu_us_alone: Option<f64>,
    /// CPU time of the server for each second in which no client says anything.
    pub(crate) asleep_cores: f64,
    /// Memory of all processes of the server, shared pages counted for each.
    pub(crate) resident_kib: u64,
    /// The same, shared pages counted once.
    pub(crate) proportional_kib: u64,
    pub(crate) processes: usize,
    pub(crate) threads: u64,
}

/// A point that a model could not do.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The reason, in a few words.
    pub(crate) why: String,
    /// How far the model came.
    pub(crate) detail: String,
    /// How many connections the model served, if that was tried.
    pub(crate) served: Option<usize>,
}

impl Refusal {
    /// Returns a refusal that the model is known for.
    fn known(model: &Model, detail: String, served: Option<usize>) -> Refusal {
        let why = if model.nature.is_empty() { "does not serve all" } else { model.nature };
        Refusal { why: why.to_owned(), detail, served }
    }

    /// Returns a refusal for something else that went wrong.
    fn broken(detail: String) -> Refusal {
        Refusal { why: String::from("it failed"), detail, served: None }
    }
}

/// A model, and what is asked of the model.
pub(crate) struct Bench<'a> {
    /// The model of the server.
    model: &'static Model,
    /// How long to measure, and on which processors.
    options: &'a Options,
    /// The process of the server.
    server: Program,
    /// The address of the server.
    addr: SocketAddr,
    /// The connections that are idle.
    held: Vec<TcpStream>,
    /// The kernel's memory for each end of a connection, in KiB, by each large step.
    pub(crate) kernel_kib: Vec<f64>,
}

impl<'a> Bench<'a> {
    /// Starts the server of a model.
    pub(crate) fn start(model: &'static Model, options: &'a Options) -> Result<Bench<'a>, String> {
        let args = ["--model", model.name, "--addr", "127.0.0.1:0", "--quiet", "--hubs", "2"];
        let mut server = Program::start("server_models", &args, options.processors.0).map_err(words)?;
        let line = server.line(LONGEST_STEP)?;
        let addr = line.strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        let addr = addr.ok_or_else(|| format!("server_models said {line:?}"))?;
        Ok(Bench { model, options, server, addr, held: Vec::new(), kernel_kib: Vec::new() })
    }

    /// Measures the model beside so many idle connections.
    pub(crate) fn point(&mut self, idle: usize) -> Result<Figures, Refusal> {
        if idle > self.model.most_idle {
            return Err(Refusal::known(self.model, String::from("not tried"), None));
        }
        let (before, count) = (slab_kib(), self.held.len());
        self.hold(idle)?;
        if idle >= count + LARGE_STEP
            && let (Some(before), Some(after)) = (before, slab_kib())
        {
            // Both ends are on this machine.
            self.kernel_kib.push((after - before) / (2 * (idle - count)) as f64);
        }
        let processes = Family::of(self.server.id()).processes;
        let asleep_cores = {
            // The server may still look at what the last of them said.
            thread::sleep(SETTLE);
            let (begin, cpu_before) = (Instant::now(), cpu(&processes));
            thread::sleep(ASLEEP);
            (cpu(&processes).saturating_sub(cpu_before)).as_secs_f64() / begin.elapsed().as_secs_f64()
        };
        let active = if self.model.alone { 1 } else { self.options.active };
        let mut figures = self.least_disturbed(active, self.options.duration)?;
        figures.asleep_cores = asleep_cores;
        if self.model.waits {
            figures.cpu_us_alone = Some(self.least_disturbed(1, self.options.duration / 2)?.cpu_us);
        }
        Ok(figures)
    }

    /// Runs several rounds of `load`, which share the time, and returns the one with the most answers. Other programs
    /// on the machine take answers away and make each more expensive, and never the other way round.
    fn least_disturbed(&mut self, active: usize, duration: Duration) -> Result<Figures, Refusal> {
        let rounds = self.options.rounds;
        let mut best: Option<Figures> = None;
        for _ in 0..rounds {
            let round = self.load(active, duration / rounds)?;
            if best.as_ref().is_none_or(|best| round.answers_per_s > best.answers_per_s) {
                best = Some(round);
            }
        }
        best.ok_or_else(|| Refusal::broken(String::from("not one round")))
    }

    /// Makes idle connections until there are so many. Each gets an echo, so that the server knows the connection.
    fn hold(&mut self, idle: usize) -> Result<(), Refusal> {
        while self.held.len() < idle {
            let count = BATCH.min(idle - self.held.len());
            // All of a batch connect before the first echo is read: the server has them at once.
            let batch: Vec<io::Result<TcpStream>> = (0..count).map(|_| self.connect()).collect();
            for stream in batch {
                let echo = stream.and_then(|mut stream| stream.read_exact(&mut [0]).map(|()| stream));
                match echo {
                    Ok(stream) => self.held.push(stream),
                    Err(error) => {
                        let served = self.held.len();
                        let why = match error.kind() {
                            io::ErrorKind::WouldBlock => format!("nothing for {PATIENCE:?}"),
                            io::ErrorKind::UnexpectedEof => String::from("closed by the server"),
                            _ => words(error),
                        };
                        let detail = format!("of the idle connections {served} got an echo, the next one none: {why}");
                        return Err(Refusal::known(self.model, detail, Some(served)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a connection, and sends a byte.
    fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // The connection ends by a reset, and leaves nothing in TIME_WAIT that would block a port later.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        stream.write_all(&[0])?;
        Ok(stream)
    }

    /// Measures so many active connections.
    fn load(&mut self, active: usize, duration: Duration) -> Result<Figures, Refusal> {
        let addr = self.addr.to_string();
        let (count, time) = (active.to_string(), format!("{}ms", duration.as_millis()));
        let patience = format!("{}s", PATIENCE.as_secs());
        let args = ["--addr", &addr, "--connections", &count, "--duration", &time, "--warmup", "0"];
        let args = [&args[..], &["--patience", &patience, "--tsv", "--step"]].concat();
        let threads = Family::of(self.server.id()).threads;
        let mut load = Program::start("echo_load", &args, self.options.processors.1)
            .map_err(|error| Refusal::broken(words(error)))?;
        let connected = load.line(LONGEST_STEP).unwrap_or_default();
        let connected = connected.strip_prefix("connected ").and_then(|count| count.parse().ok()).unwrap_or(0);
        if connected < active {
            let held = self.held.len();
            let detail = format!("beside {held} idle connections {connected} of {active} active ones got an echo");
            return Err(Refusal::known(self.model, detail, Some(held + connected)));
        }
        // Between the two readings all CPU time is spent on messages that are counted.
        let processes = Family::of(self.server.id()).processes;
        let cpu_before = cpu(&processes);
        load.go_on();
        load.line(duration + LONGEST_STEP).map_err(Refusal::broken)?;
        let used = cpu(&processes).saturating_sub(cpu_before);
        let memory = memory(&processes)
            .map_err(|process| Refusal::broken(format!("process {process} of the server has ended")))?;
        load.go_on();
        // The report: a line of names, a line of values.
        let (names, values) =
            (load.line(PATIENCE).map_err(Refusal::broken)?, load.line(PATIENCE).map_err(Refusal::broken)?);
        let report: HashMap<&str, &str> = names.split('\t').zip(values.split('\t')).collect();
        let number = |name: &str| {
            let value = report.get(name).and_then(|value| value.parse::<f64>().ok());
            value.ok_or_else(|| Refusal::broken(format!("echo_load reports no {name}")))
        };
        if number("errors")? > 0.0 {
            return Err(Refusal::broken(load.line(PATIENCE).err().unwrap_or_default()));
        }
        drop(load);
        // The threads of this round are not to be counted with the next.
        self.wait_until(|family| family.threads <= threads);
        Ok(Figures {
            active,
            answers_per_s: number("answers_per_s")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            cpu_us: used.as_secs_f64() * 1e6 / number("answers")?.max(1.0),
            cpu_us_alone: None,
            asleep_cores: 0.0,
            resident_kib: memory.resident_kib,
            proportional_kib: memory.proportional_kib,
            processes: processes.len(),
            threads: memory.threads,
        })
    }

    /// Waits until the threads and processes that served former clients have ended. Gives up when that takes too long.
    fn wait_until(&self, have_left: impl Fn(Family) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !have_left(Family::of(self.server.id())) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        self.held.clear();
        // The next model is to have the machine for itself.
        self.wait_until(|family| family.processes.len() <= 1);
    }
}

/// Returns the words of an error.
fn words(error: io::Error) -> String {
    error.to_string()
}
