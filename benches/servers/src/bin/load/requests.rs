//! The driver of requests and answers: HTTP, RESP, and bytes that come back, plain, through a proxy or encrypted.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use crate::engine::{Engine, Link, tls_config};
use crate::options::Plan;
use crate::report::Report;
use crate::timetable::{Lane, SECOND, Timetable};
use crate::wire::Protocol;

/// A connection, with the requests that are its own.
struct Client {
    link: Link,
    lane: Lane,
    /// Whether the connection has failed.
    broken: bool,
}

/// When requests are due.
enum Agenda {
    /// On a timetable.
    Open(Timetable),
    /// As soon as the answer before has come, until that moment, and no more than so many.
    Closed { until: u64, left: u64 },
}

impl Agenda {
    /// Makes the agenda of a phase that begins now.
    fn new(plan: &Plan, now: u64, seconds: f64) -> Agenda {
        match plan.rate {
            Some(rate) => Agenda::Open(Timetable::new(now, rate, seconds, plan.most)),
            None => Agenda::Closed { until: now + (seconds * SECOND as f64) as u64, left: plan.most },
        }
    }

    /// Says whether one more may be sent after an answer.
    fn goes_on(&mut self, now: u64) -> bool {
        match self {
            Agenda::Closed { until, left } if now < *until && *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// All connections, and what they ask.
struct Drive<'a> {
    engine: Engine,
    clients: Vec<Client>,
    protocol: &'a Protocol,
    request: Vec<u8>,
    scratch: Vec<u8>,
    /// Requests that are due, and have neither answer nor error.
    open: u64,
}

/// Runs what the plan says, and returns what was counted.
pub(crate) fn run(plan: &Plan, addr: SocketAddr, protocol: &Protocol) -> io::Result<Report> {
    let memory_before = plan.server.map(|server| server.memory()).transpose()?;
    let mut drive = Drive::connect(plan, addr, protocol)?;
    // What is slow only at first is not counted: caches, allocators, the first growth of buffers.
    let warm = drive.phase(plan, plan.warmup)?;
    if warm.errors > 0 {
        return Ok(warm);
    }
    let cpu_before = plan.server.map(|server| server.cpu()).transpose()?;
    let mut report = drive.phase(plan, plan.seconds)?;
    report.connections = plan.connections as u64;
    if let (Some(server), Some(cpu), Some(memory)) = (plan.server, cpu_before, memory_before) {
        report.cpu = Some(server.cpu()?.saturating_sub(cpu));
        report.memory = Some((memory, server.memory()?));
    }
    Ok(report)
}

impl<'a> Drive<'a> {
    fn connect(plan: &Plan, addr: SocketAddr, protocol: &'a Protocol) -> io::Result<Drive<'a>> {
        let engine = Engine::new()?;
        let tls = plan.tls.then(tls_config).transpose().map_err(io::Error::other)?;
        let mut clients = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let mut link = Link::connect(addr, tls.as_ref())?;
            engine.watch(&mut link, number)?;
            clients.push(Client { link, lane: Lane::default(), broken: false });
        }
        let (request, scratch) = (protocol.request(), vec![0; 64 * 1024]);
        Ok(Drive { engine, clients, protocol, request, scratch, open: 0 })
    }

    /// One run over all connections, until all answers are there or the time is up.
    fn phase(&mut self, plan: &Plan, seconds: f64) -> io::Result<Report> {
        let mut report = Report::default();
        let (start, mut happened) = (self.engine.now(), Vec::new());
        let deadline = start + ((seconds + plan.grace) * SECOND as f64) as u64;
        let mut agenda = Agenda::new(plan, start, seconds);
        if let Agenda::Closed { .. } = agenda {
            for number in 0..self.clients.len() {
                if agenda.goes_on(start) {
                    self.enter(number, self.engine.now(), &mut report);
                }
            }
        }
        loop {
            // Requests that have come due are entered, and sent if their connection is free.
            let mut next = None;
            if let Agenda::Open(timetable) = &mut agenda {
                while let Some((number, due)) = timetable.take_due(self.engine.now()) {
                    report.lateness.record(self.engine.now() - due);
                    self.enter(number as usize % self.clients.len(), due, &mut report);
                }
                next = timetable.next_due();
            }
            if next.is_none() && self.open == 0 {
                break;
            }
            let now = self.engine.now();
            if now >= deadline {
                self.give_up(now, &mut report);
                break;
            }
            self.engine.wait(Some(next.unwrap_or(deadline).min(deadline)), &mut happened)?;
            for &number in &happened {
                self.serve(number, &mut agenda, &mut report);
            }
        }
        report.seconds = (self.engine.now() - start) as f64 / SECOND as f64;
        Ok(report)
    }

    /// Enters a request of a connection, and sends it if none is on its way there.
    fn enter(&mut self, number: usize, due: u64, report: &mut Report) {
        let client = &mut self.clients[number];
        if client.broken {
            return report.fail(1, || "the connection has failed before".to_owned());
        }
        client.lane.enter(due);
        self.open += 1;
        self.begin(number, report);
    }

    fn begin(&mut self, number: usize, report: &mut Report) {
        let client = &mut self.clients[number];
        if client.lane.begin()
            && let Err(error) = client.link.send(&self.request)
        {
            self.fail(number, error.to_string(), report);
        }
    }

    /// Something happened at a connection: sends what is left, takes answers, and begins what waits.
    fn serve(&mut self, number: usize, agenda: &mut Agenda, report: &mut Report) {
        let client = &mut self.clients[number];
        if client.broken {
            return;
        }
        let received = client.link.flush().and_then(|()| client.link.receive(&mut self.scratch));
        let now = self.engine.now();
        while !client.link.input.is_empty() {
            match self.protocol.answer(&self.request, &client.link.input) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    client.link.input.drain(..length);
                    let Some(latency) = client.lane.answered(now) else {
                        return self.fail(number, "an answer too many".to_owned(), report);
                    };
                    report.latencies.record(latency);
                    report.done += 1;
                    self.open -= 1;
                }
                Err(what) => return self.fail(number, what, report),
            }
        }
        match received {
            Ok(true) => {}
            Ok(false) => return self.fail(number, "the server has ended the connection".to_owned(), report),
            Err(error) => return self.fail(number, error.to_string(), report),
        }
        if client.lane.is_idle() && agenda.goes_on(now) {
            return self.enter(number, now, report);
        }
        self.begin(number, report);
    }

    /// Ends a connection that has failed: what it was asked for are errors.
    fn fail(&mut self, number: usize, what: String, report: &mut Report) {
        let now = self.engine.now();
        let client = &mut self.clients[number];
        client.broken = true;
        let lost = client.lane.give_up(now).count() as u64;
        self.open -= lost;
        report.fail(lost.max(1), || what);
    }

    /// Counts what has no answer when the time is up, with the time that it has waited.
    fn give_up(&mut self, now: u64, report: &mut Report) {
        for client in &mut self.clients {
            for waited in client.lane.give_up(now) {
                report.latencies.record(waited);
                report.fail(1, || "no answer in time".to_owned());
            }
        }
        self.open = 0;
    }
}
