//! The driver of a chat room: members over WebSocket, messages on a timetable, and each delivery to a member counted.
//!
//! The latency of a delivery is the time from the moment at which its message was due to the moment at which that
//! member's bytes were read. A thousand members make a thousand deliveries of each message.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::engine::{Engine, Link};
use crate::frames::{ACCEPT, BINARY, CLOSE, PING, PONG, UPGRADE, read_frame, write_frame};
use crate::options::Plan;
use crate::report::Report;
use crate::timetable::{SECOND, Timetable};

/// Messages on their way at once when there is no timetable. Far fewer than the queue of a member holds.
const WINDOW: usize = 16;

/// A member of the room.
struct Member {
    link: Link,
    /// The numbers of the messages received in this phase, as bits.
    received: Vec<u64>,
    /// Whether the room has answered a ping: then the member is in.
    joined: bool,
    broken: bool,
}

/// The messages of a phase.
#[derive(Default)]
struct Messages {
    /// When each was due.
    due: Vec<u64>,
    /// How many members have each. Those that all members have are left out.
    missing: BTreeMap<u64, usize>,
}

/// The room as its members see it.
struct Room {
    engine: Engine,
    members: Vec<Member>,
    /// A message: the number goes into its first eight bytes.
    payload: Vec<u8>,
    frame: Vec<u8>,
    scratch: Vec<u8>,
}

/// Runs what the plan says, and returns what was counted.
pub(crate) fn run(plan: &Plan, addr: SocketAddr) -> io::Result<Report> {
    let memory_before = plan.server.map(|server| server.memory()).transpose()?;
    let mut room = Room::join(plan, addr)?;
    let warm = room.phase(plan, plan.warmup)?;
    if warm.errors > 0 {
        return Ok(warm);
    }
    let cpu_before = plan.server.map(|server| server.cpu()).transpose()?;
    let mut report = room.phase(plan, plan.seconds)?;
    report.connections = plan.connections as u64;
    if let (Some(server), Some(cpu), Some(memory)) = (plan.server, cpu_before, memory_before) {
        report.cpu = Some(server.cpu()?.saturating_sub(cpu));
        report.memory = Some((memory, server.memory()?));
    }
    Ok(report)
}

/// Connects and asks for the upgrade; blocks meanwhile.
fn upgrade(addr: SocketAddr) -> io::Result<Link> {
    let mut tcp = TcpStream::connect_timeout(&addr, Duration::from_secs(20))?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    tcp.write_all(UPGRADE)?;
    let mut head = Vec::new();
    let mut byte = [0];
    // A byte at a time: what follows the head belongs to the room.
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        tcp.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head);
    if !text.starts_with("HTTP/1.1 101") || !text.contains(ACCEPT) {
        return Err(io::Error::other(format!("no upgrade: {text:?}")));
    }
    Link::of(tcp, None)
}

impl Room {
    /// Brings in all members. A member is in when the room has answered its ping, since rooms enter a member before
    /// they read from it.
    fn join(plan: &Plan, addr: SocketAddr) -> io::Result<Room> {
        let engine = Engine::new()?;
        let mut members = Vec::with_capacity(plan.connections);
        let mut ping = Vec::new();
        write_frame(&mut ping, PING, b"in?");
        for number in 0..plan.connections {
            let mut link = upgrade(addr)?;
            engine.watch(&mut link, number)?;
            link.send(&ping)?;
            members.push(Member { link, received: Vec::new(), joined: false, broken: false });
        }
        let (payload, scratch) = (vec![b'.'; plan.size.max(8)], vec![0; 256 * 1024]);
        let mut room = Room { engine, members, payload, frame: Vec::new(), scratch };
        let deadline = room.engine.now() + 20 * SECOND;
        let (mut happened, mut report) = (Vec::new(), Report::default());
        while room.members.iter().any(|member| !member.joined) && room.engine.now() < deadline && report.errors == 0 {
            room.engine.wait(Some(deadline), &mut happened)?;
            happened.iter().for_each(|&number| room.serve(number, &mut Messages::default(), &mut report));
        }
        match report.first_error {
            Some(what) => Err(io::Error::other(what)),
            None if room.members.iter().all(|member| member.joined) => Ok(room),
            None => Err(io::Error::other("not all members are in after 20 seconds")),
        }
    }

    /// One run, until all members have all messages or the time is up.
    fn phase(&mut self, plan: &Plan, seconds: f64) -> io::Result<Report> {
        let (mut report, mut messages, mut happened) = (Report::default(), Messages::default(), Vec::new());
        self.members.iter_mut().for_each(|member| member.received.clear());
        let start = self.engine.now();
        let end = start + (seconds * SECOND as f64) as u64;
        let deadline = end + (plan.grace * SECOND as f64) as u64;
        let mut timetable = plan.rate.map(|rate| Timetable::new(start, rate, seconds, plan.most));
        loop {
            // Messages that are due are sent; without a timetable, as many as the window allows.
            let next = match &mut timetable {
                Some(timetable) => {
                    while let Some((_, due)) = timetable.take_due(self.engine.now()) {
                        report.lateness.record(self.engine.now() - due);
                        self.send(due, &mut messages, &mut report);
                    }
                    timetable.next_due()
                }
                None => {
                    let now = self.engine.now();
                    let more = |messages: &Messages| now < end && (messages.due.len() as u64) < plan.most;
                    while more(&messages) && messages.missing.len() < WINDOW {
                        self.send(now, &mut messages, &mut report);
                    }
                    more(&messages).then_some(end)
                }
            };
            if next.is_none() && messages.missing.is_empty() {
                break;
            }
            let now = self.engine.now();
            if now >= deadline || report.errors > 0 {
                give_up(now, &messages, &mut report);
                break;
            }
            self.engine.wait(Some(next.unwrap_or(deadline).min(deadline)), &mut happened)?;
            happened.iter().for_each(|&number| self.serve(number, &mut messages, &mut report));
        }
        report.seconds = (self.engine.now() - start) as f64 / SECOND as f64;
        Ok(report)
    }

    /// Sends the next message, through the members in turn.
    fn send(&mut self, due: u64, messages: &mut Messages, report: &mut Report) {
        let number = messages.due.len() as u64;
        messages.due.push(due);
        messages.missing.insert(number, self.members.len());
        self.payload[..8].copy_from_slice(&number.to_be_bytes());
        self.frame.clear();
        write_frame(&mut self.frame, BINARY, &self.payload);
        let sender = number as usize % self.members.len();
        if let Err(error) = self.members[sender].link.send(&self.frame) {
            self.fail(sender, error.to_string(), report);
        }
    }

    /// Something happened at a member: takes what was delivered.
    fn serve(&mut self, number: usize, messages: &mut Messages, report: &mut Report) {
        let member = &mut self.members[number];
        if member.broken {
            return;
        }
        let received = member.link.flush().and_then(|()| member.link.receive(&mut self.scratch));
        let now = self.engine.now();
        let mut used = 0;
        let mut problem = None;
        while problem.is_none() {
            match read_frame(&member.link.input[used..]) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    used += frame.length;
                    match frame.kind {
                        BINARY if frame.payload.len() == self.payload.len() => {
                            let which = u64::from_be_bytes(*frame.payload.first_chunk().expect("eight bytes or more"));
                            match messages.delivered(which, &mut member.received) {
                                Some(due) => {
                                    report.done += 1;
                                    report.latencies.record(now.saturating_sub(due));
                                }
                                None => problem = Some(format!("message {which} came twice or was not sent")),
                            }
                        }
                        PONG => member.joined = true,
                        CLOSE => problem = Some("the room has thrown out a member".to_owned()),
                        kind => problem = Some(format!("a frame of kind {kind}, {} bytes", frame.payload.len())),
                    }
                }
                Err(what) => problem = Some(what),
            }
        }
        member.link.input.drain(..used);
        match (problem, received) {
            (Some(what), _) => self.fail(number, what, report),
            (None, Ok(true)) => {}
            (None, Ok(false)) => self.fail(number, "the room has ended a connection".to_owned(), report),
            (None, Err(error)) => self.fail(number, error.to_string(), report),
        }
    }

    fn fail(&mut self, number: usize, what: String, report: &mut Report) {
        self.members[number].broken = true;
        report.fail(1, || what);
    }
}

/// Counts what was not delivered when the time is up, with the time that it has waited.
fn give_up(now: u64, messages: &Messages, report: &mut Report) {
    for (&number, &missing) in &messages.missing {
        for _ in 0..missing {
            report.latencies.record(now - messages.due[number as usize]);
        }
        report.fail(missing as u64, || "not delivered in time".to_owned());
    }
}

impl Messages {
    /// Notes that a member has a message; returns when that was due. `None` if the member had it before, or there is no
    /// such message.
    fn delivered(&mut self, number: u64, received: &mut Vec<u64>) -> Option<u64> {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        let due = *self.due.get(number as usize)?;
        if received.len() <= word {
            received.resize(word + 1, 0);
        }
        if received[word] & bit != 0 {
            return None;
        }
        received[word] |= bit;
        let missing = self.missing.get_mut(&number)?;
        *missing -= 1;
        if *missing == 0 {
            self.missing.remove(&number);
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_gets_each_message_once() {
        let mut messages = Messages { due: vec![10, 20], missing: BTreeMap::from([(0, 2), (1, 2)]) };
        let (mut one, mut other) = (Vec::new(), Vec::new());
        assert_eq!(messages.delivered(1, &mut one), Some(20));
        assert_eq!(messages.delivered(1, &mut one), None, "twice");
        assert_eq!(messages.delivered(2, &mut one), None, "never sent");
        assert_eq!(messages.delivered(1, &mut other), Some(20));
        assert_eq!(messages.missing, BTreeMap::from([(0, 2)]));
    }

    #[test]
    fn what_is_not_delivered_counts_as_late_as_it_is() {
        let messages = Messages { due: vec![100, 1000], missing: BTreeMap::from([(0, 1), (1, 3)]) };
        let mut report = Report::default();
        give_up(10_000, &messages, &mut report);
        assert_eq!((report.errors, report.latencies.count()), (4, 4));
        assert!(report.latencies.max() >= 9_900);
    }
}
