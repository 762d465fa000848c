//! Which hub gets the next connection, and what each hub has: the state that the hubs of one server share.
//!
//! ```text
//!   the hub that accepts            Balance (behind a lock)                 another hub
//!   accept, a place in the limit     slot 0   load 7   queue [ ]
//!   hand_over: the least load ---->  slot 1   load 5   queue [fd] ------> take: a stream and a Ticket
//!                                    slot 2   load 6   queue [ ]            serve; count
//!                                    slot 1   load 4  <------------------  drop of the Ticket
//! ```
//!
//! * Invariant server-8: a connection that was handed over is counted in the load of one slot, and holds one place in
//!   the limit, until it ends: while in the slot's queue, and then as long as its `Ticket` lives. The queue of a slot
//!   that closes goes to the others with its part of the load; if none is open, to `strays`, which are in no load.
//! * Invariant server-9: a supervisor that waits for an end of a connection elsewhere is woken by the next one. An end
//!   takes the waiter, or leaves `ended` behind, under the lock under which the supervisor leaves the waiter.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem::take;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::handle::{Command, Counters, Member};
use super::limit::Limit;
use crate::pure::lock::lock;
use crate::runtime::remote::Waiter;

/// A connection on its way to a hub. It has a place in the limit, and is closed by the drop.
#[derive(Debug)]
pub(super) struct Handed {
    /// The socket, which no hub has registered yet.
    pub(super) fd: OwnedFd,
    /// The address of the client.
    pub(super) peer: SocketAddr,
}

/// What the hubs of a server share.
pub(super) struct Balance {
    /// The limit on the connections of all hubs together.
    limit: Limit,
    /// The address that the server listens, or listened, on.
    pub(super) local: Option<SocketAddr>,
    /// The slots, and what waits.
    state: Mutex<State>,
}

/// The part of a [`Balance`] behind the lock.
struct State {
    /// The hubs, in the order in which the program named them.
    slots: Vec<Slot>,
    /// The slot that is the first of several with the same load.
    next: usize,
    /// Whether more connections may be handed over.
    fed: bool,
    /// What the hubs are asked to do, beyond what the server's handle says.
    command: Command,
    /// Connections for which no hub was left.
    strays: Vec<Handed>,
    /// Reasons for which hubs have put off connections.
    errors: Vec<io::Error>,
    /// The part of the server that accepts.
    front: Option<Arc<Member>>,
    /// The thread there that waits for an end of a connection elsewhere.
    exit_waiter: Option<Waiter>,
    /// A connection has ended since the last wait for one.
    ended: bool,
}

/// What the state knows of one hub.
#[derive(Default)]
struct Slot {
    /// The connections that were handed over and not yet taken.
    queue: VecDeque<Handed>,
    /// The number of connections that the hub has, those in the queue included.
    load: usize,
    /// Whether the hub takes no more.
    closed: bool,
    /// Whether the hub has ended with connections that will never end: they are not counted any more.
    written_off: bool,
    /// Whether the hub's part of the server drains, so that the supervisor takes what comes, not the acceptor.
    drains: bool,
    /// The hub's acceptor, if that waits.
    acceptor: Option<Waiter>,
    /// The hub's supervisor and counters, once there.
    member: Option<Arc<Member>>,
}

/// What a hub finds when it looks into its slot.
pub(super) enum Taken {
    /// A connection, with what counts it.
    One(Handed, Ticket),
    /// No connection, until the waiter is woken.
    Nothing,
    /// No connection, and none will come.
    Closed,
}

impl State {
    /// Returns the open slot with the least load: of several, the first one from `next` on.
    fn least(&mut self) -> Option<usize> {
        let count = self.slots.len();
        let turn = (0..count).map(|n| (self.next + n) % count).filter(|index| !self.slots[*index].closed);
        let index = turn.min_by_key(|index| self.slots[*index].load)?;
        self.next = (index + 1) % count;
        Some(index)
    }

    /// Puts a connection into the slot that is due, and returns what is to be woken.
    ///
    /// # Errors
    /// The connection, if no slot is open.
    fn put(&mut self, handed: Handed) -> Result<Option<Waiter>, Handed> {
        let Some(index) = self.least() else { return Err(handed) };
        let slot = &mut self.slots[index];
        slot.load += 1;
        slot.queue.push_back(handed);
        let supervisor = slot.member.as_ref().map(|member| member.supervisor.clone());
        Ok(if slot.drains { supervisor } else { slot.acceptor.take() })
    }

    /// Notes that a connection has ended or gone astray, and returns what waits for that (server-9).
    fn note_end(&mut self) -> Option<Waiter> {
        let waiter = self.exit_waiter.take();
        self.ended = waiter.is_none();
        waiter
    }

    /// Returns the waiters of all supervisors.
    fn supervisors(&self) -> Vec<Waiter> {
        self.slots.iter().filter_map(|slot| slot.member.as_ref()).map(|member| member.supervisor.clone()).collect()
    }

    /// Reports whether a connection could not be handed over.
    fn is_cut_off(&self) -> bool {
        self.fed && self.slots.iter().all(|slot| slot.closed)
    }
}

impl Balance {
    /// Makes the state of a server of `count` hubs.
    pub(super) fn new(count: usize, limit: Limit, local: Option<SocketAddr>) -> Balance {
        let slots = (0..count).map(|_| Slot::default()).collect();
        let state = State {
            slots,
            next: 0,
            fed: true,
            command: Command::Serve,
            strays: Vec::new(),
            errors: Vec::new(),
            front: None,
            exit_waiter: None,
            ended: false,
        };
        Balance { limit, local, state: Mutex::new(state) }
    }

    // ---- for the hub that accepts ----

    /// Notes the part of the server that accepts.
    pub(super) fn begin_front(&self, member: &Arc<Member>) {
        lock(&self.state).front = Some(Arc::clone(member));
    }

    /// Returns the part of the server that accepts, once there.
    pub(super) fn front(&self) -> Option<Arc<Member>> {
        lock(&self.state).front.clone()
    }

    /// Hands a connection, which has a place in the limit, to the hub with the fewest.
    ///
    /// # Errors
    /// The connection, with its place, if no hub is left.
    pub(super) fn hand_over(&self, handed: Handed) -> Result<(), Handed> {
        let put = lock(&self.state).put(handed);
        // The wake-up comes after the lock.
        put.map(wake)
    }

    /// Notes that nothing more will be handed over, and lets the hubs look.
    pub(super) fn stop_feeding(&self) {
        let mut state = lock(&self.state);
        if take(&mut state.fed) {
            let waiters = state.supervisors();
            drop(state);
            wake(waiters);
        }
    }

    /// Asks the hubs for something, beyond what the server's handle says.
    pub(super) fn give(&self, command: Command) {
        let mut state = lock(&self.state);
        state.command = command.max(state.command);
        let waiters = state.supervisors();
        drop(state);
        wake(waiters);
    }

    /// Returns how many connections the hubs have.
    pub(super) fn load(&self) -> usize {
        lock(&self.state).slots.iter().map(|slot| slot.load).sum()
    }

    /// Reports whether no hub is left.
    pub(super) fn is_cut_off(&self) -> bool {
        lock(&self.state).is_cut_off()
    }

    /// Leaves the thread that waits for an end of a connection. Reports whether one has ended since the last wait.
    pub(super) fn on_exit(&self, waiter: Option<Waiter>) -> bool {
        let mut state = lock(&self.state);
        if waiter.is_some() && take(&mut state.ended) {
            return true;
        }
        state.exit_waiter = waiter;
        false
    }

    /// Takes the reasons for which hubs have put off connections.
    pub(super) fn take_errors(&self) -> Vec<io::Error> {
        take(&mut lock(&self.state).errors)
    }

    /// Closes the connections for which no hub was left, and returns how many.
    pub(super) fn refuse_strays(&self) -> u64 {
        let strays = take(&mut lock(&self.state).strays);
        // Each is closed before its place is given back, as server-2 has it.
        let count = strays.len();
        drop(strays);
        (0..count).for_each(|_| self.limit.release());
        count as u64
    }

    /// Returns how many connections a hub has.
    pub(super) fn load_of(&self, index: usize) -> usize {
        lock(&self.state).slots[index].load
    }

    /// Returns the supervisor and counters of a hub, if it has begun.
    pub(super) fn member(&self, index: usize) -> Option<Arc<Member>> {
        lock(&self.state).slots[index].member.clone()
    }

    /// Returns what all hubs have counted together.
    pub(super) fn counters(&self) -> Counters {
        let state = lock(&self.state);
        let members = state.slots.iter().filter_map(|slot| slot.member.as_ref()).chain(&state.front);
        members.fold(Counters::default(), |sum, member| sum.plus(&member.counters.read()))
    }

    /// Gives up the connections of a hub that has ended, and returns how many there were.
    pub(super) fn write_off(&self, index: usize) -> u64 {
        let mut state = lock(&self.state);
        let slot = &mut state.slots[index];
        slot.written_off = true;
        let lost = take(&mut slot.load);
        let waiter = if lost > 0 { state.note_end() } else { None };
        drop(state);
        (0..lost).for_each(|_| self.limit.release());
        wake(waiter);
        lost as u64
    }

    // ---- for any hub ----

    /// Closes a slot: what was not taken goes to the other hubs, or astray.
    pub(super) fn close(&self, index: usize) {
        let mut state = lock(&self.state);
        let slot = &mut state.slots[index];
        (slot.closed, slot.acceptor) = (true, None);
        let queue = take(&mut slot.queue);
        slot.load -= queue.len();
        let waiters: Vec<_> = queue.into_iter().filter_map(|handed| state.put_or_stray(handed)).collect();
        // The front may be the one to wait, for a load that is 0 now, or be cut off.
        let front = state.front.as_ref().map(|front| front.supervisor.clone());
        let exit = state.note_end();
        drop(state);
        wake(waiters);
        wake(front);
        wake(exit);
    }

    // ---- for the hub of a slot ----

    /// Notes that the hub's part of the server begins. The supervisor asks for the command afterwards, and so sees each
    /// one, as server-5 has it.
    pub(super) fn begin(&self, index: usize, member: &Arc<Member>) {
        lock(&self.state).slots[index].member = Some(Arc::clone(member));
    }

    /// Notes that the hub's acceptor takes nothing more; its supervisor does.
    pub(super) fn begin_drain(&self, index: usize) {
        lock(&self.state).slots[index].drains = true;
    }

    /// Returns what the hubs are asked to do, beyond what the server's handle says.
    pub(super) fn command(&self) -> Command {
        lock(&self.state).command
    }

    /// Reports whether more connections may come.
    pub(super) fn is_fed(&self) -> bool {
        lock(&self.state).fed
    }

    /// Reports whether a slot's queue holds a connection.
    pub(super) fn has_pending(&self, index: usize) -> bool {
        !lock(&self.state).slots[index].queue.is_empty()
    }

    /// Takes a connection out of a slot's queue. If there is none, leaves `waiter`, to be woken by the next one.
    pub(super) fn take(self: &Arc<Self>, index: usize, waiter: Option<Waiter>) -> Taken {
        let mut state = lock(&self.state);
        let slot = &mut state.slots[index];
        match slot.queue.pop_front() {
            Some(handed) => Taken::One(handed, Ticket { balance: Arc::clone(self), index, counts: true }),
            None if slot.closed => Taken::Closed,
            None => {
                slot.acceptor = waiter;
                Taken::Nothing
            }
        }
    }

    /// Takes a connection back that its hub has not begun, and gives it to another hub.
    pub(super) fn give_back(&self, handed: Handed, mut ticket: Ticket) {
        // The place in the limit stays with the connection.
        ticket.counts = false;
        let mut state = lock(&self.state);
        let slot = &mut state.slots[ticket.index];
        if !slot.written_off {
            slot.load -= 1;
        }
        let waiter = state.put_or_stray(handed);
        drop(state);
        wake(waiter);
    }

    /// Lets the program be told that a hub has put off a connection.
    pub(super) fn report(&self, error: &io::Error) {
        let copy = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        let mut state = lock(&self.state);
        state.errors.push(copy);
        let front = state.front.as_ref().map(|front| front.supervisor.clone());
        drop(state);
        wake(front);
    }
}

impl State {
    /// Puts a connection into the slot that is due, or to the strays.
    fn put_or_stray(&mut self, handed: Handed) -> Option<Waiter> {
        self.put(handed).unwrap_or_else(|stray| {
            self.strays.push(stray);
            None
        })
    }
}

/// Wakes what was taken out of the state; never under its lock.
fn wake(waiters: impl IntoIterator<Item = Waiter>) {
    waiters.into_iter().for_each(|waiter| waiter.wake());
}

impl Drop for Balance {
    /// Gives back the places of connections that no hub has taken, after the sockets were closed.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let queues = state.slots.iter_mut().map(|slot| take(&mut slot.queue));
        let left: Vec<_> = queues.flatten().chain(take(&mut state.strays)).collect();
        let count = left.len();
        drop(left);
        (0..count).for_each(|_| self.limit.release());
    }
}

/// Counts a connection in the load of its hub, and in the limit, until dropped (server-8).
pub(super) struct Ticket {
    /// The state that counts.
    balance: Arc<Balance>,
    /// The slot of the connection's hub.
    index: usize,
    /// Whether the ticket still counts.
    counts: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        let mut state = lock(&self.balance.state);
        let slot = &mut state.slots[self.index];
        if slot.written_off {
            return;
        }
        slot.load -= 1;
        let waiter = state.note_end();
        drop(state);
        self.balance.limit.release();
        wake(waiter);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// A state with slots of these loads, and a limit.
    fn with_loads(loads: &[usize]) -> (Arc<Balance>, Limit) {
        let limit = Limit::new(100);
        let balance = Balance::new(loads.len(), limit.clone(), None);
        for (slot, load) in lock(&balance.state).slots.iter_mut().zip(loads) {
            slot.load = *load;
        }
        (Arc::new(balance), limit)
    }

    /// A descriptor with the number `port`.
    fn handed(port: u16) -> Handed {
        Handed { fd: File::open("/dev/null").unwrap().into(), peer: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Hands a connection over, with a place.
    fn hand(balance: &Balance, port: u16) -> bool {
        assert!(balance.limit.acquire());
        let gone = balance.hand_over(handed(port)).is_ok();
        if !gone {
            balance.limit.release();
        }
        gone
    }

    /// Returns the load of each slot.
    fn loads(balance: &Balance) -> Vec<usize> {
        lock(&balance.state).slots.iter().map(|slot| slot.load).collect()
    }

    /// What a slot's hub takes.
    fn took(balance: &Arc<Balance>, index: usize) -> (u16, Ticket) {
        let Taken::One(handed, ticket) = balance.take(index, None) else { panic!("nothing there") };
        (handed.peer.port(), ticket)
    }

    #[test]
    fn the_least_loaded_is_next_and_equal_ones_have_turns() {
        let (balance, limit) = with_loads(&[0, 0, 0]);
        (0..30).for_each(|port| assert!(hand(&balance, port)));
        assert_eq!(loads(&balance), [10, 10, 10]);
        let ports: Vec<_> = (0..3).map(|index| took(&balance, index).0).collect();
        assert_eq!(ports, [0, 1, 2], "in turns, and the tickets are dropped");
        let kept: Vec<_> = (0..4).map(|_| took(&balance, 1)).collect();
        drop(kept);
        assert_eq!((loads(&balance), limit.in_use()), (vec![9, 5, 9], 23));
        (0..4).for_each(|port| assert!(hand(&balance, port)));
        assert_eq!(loads(&balance), [9, 9, 9]);
    }

    #[test]
    fn the_queue_of_a_slot_that_closes_goes_to_the_others_and_then_astray() {
        let (balance, limit) = with_loads(&[0, 0]);
        (0..6).for_each(|port| assert!(hand(&balance, port)));
        let first = took(&balance, 0);
        balance.close(0);
        assert_eq!((loads(&balance), limit.in_use()), (vec![1, 5], 6));
        assert!(matches!(balance.take(0, None), Taken::Closed));
        drop(first);
        assert!(!balance.is_cut_off());
        balance.close(1);
        assert_eq!((loads(&balance), limit.in_use(), balance.is_cut_off()), (vec![0, 0], 5, true));
        assert!(!hand(&balance, 7));
        assert_eq!((balance.refuse_strays(), limit.in_use()), (5, 0));
    }

    #[test]
    fn what_was_written_off_is_not_counted_twice() {
        let (balance, limit) = with_loads(&[0, 0]);
        (0..4).for_each(|port| assert!(hand(&balance, port)));
        let tickets = [took(&balance, 0), took(&balance, 0)];
        balance.close(0);
        assert_eq!((balance.write_off(0), limit.in_use()), (2, 2));
        drop(tickets);
        assert_eq!((loads(&balance), limit.in_use()), (vec![0, 2], 2));
    }

    #[test]
    fn what_is_given_back_goes_to_another_with_its_place() {
        let (balance, limit) = with_loads(&[0, 3]);
        assert!(hand(&balance, 1));
        let (_, ticket) = took(&balance, 0);
        balance.close(0);
        balance.give_back(handed(1), ticket);
        assert_eq!((loads(&balance), limit.in_use()), (vec![0, 4], 1));
        assert_eq!(took(&balance, 1).0, 1);
    }

    #[test]
    fn an_end_before_the_wait_is_not_missed() {
        let (balance, _limit) = with_loads(&[0]);
        assert!(hand(&balance, 1));
        drop(took(&balance, 0));
        assert!(lock(&balance.state).ended);
    }

    #[test]
    fn places_of_connections_that_no_hub_took_are_given_back_at_the_end() {
        let (balance, limit) = with_loads(&[0, 0]);
        (0..5).for_each(|port| assert!(hand(&balance, port)));
        drop(took(&balance, 1));
        drop(balance);
        assert_eq!(limit.in_use(), 0);
    }
}
