//! You will see a bank account that is an actor: three clients send requests, and the account answers each over a
//! channel that came with the request. The balance never goes below zero, and there is no lock.
#![forbid(unsafe_code)]

use greenling::channel::{self, Receiver, Sender};
use greenling::{spawn, thread};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "actor";

const HELP: &str = "\
A bank account that answers requests, one after the other.

usage: actor
";

/// A request to the account. A request that wants an answer brings a channel for the answer.
enum Request {
    Deposit(u64),
    Withdraw(u64, Sender<Result<u64, String>>),
    Balance(Sender<u64>),
}

/// Runs the actor, which alone sees the balance, until all senders of requests are gone.
fn account(requests: Receiver<Request>) -> u64 {
    let mut balance = 0;
    for request in requests {
        match request {
            Request::Deposit(amount) => balance += amount,
            Request::Withdraw(amount, answer) => {
                let result = match balance {
                    enough if enough >= amount => {
                        balance -= amount;
                        Ok(amount)
                    }
                    short => Err(format!("only {short} left")),
                };
                // The client may have gone meanwhile, which is no error of the account.
                let _ = answer.send(result);
            }
            Request::Balance(answer) => drop(answer.send(balance)),
        }
    }
    balance
}

/// Sends a request, and waits for the answer.
fn ask<T>(account: &Sender<Request>, request: impl FnOnce(Sender<T>) -> Request) -> T {
    let (answer, answered) = channel::bounded(1);
    account.send(request(answer)).unwrap_or_else(|_| panic!("the account is open"));
    answered.recv().expect("every request is answered")
}

fn main() {
    cli::no_arguments(NAME, HELP);
    cli::make_hub(NAME);
    // The actor: the receiver is its own, the sender is cloned for each client.
    let (ask_it, requests) = channel::bounded(16);
    let actor = spawn(|| account(requests));
    let clients: Vec<_> = ["Ann", "Bob", "Cid"]
        .into_iter()
        .map(|name| {
            let account = ask_it.clone();
            spawn(move || {
                account.send(Request::Deposit(10)).unwrap_or_else(|_| panic!("the account is open"));
                // Lets the other clients make their deposits first.
                thread::yield_now();
                match ask(&account, |answer| Request::Withdraw(15, answer)) {
                    Ok(amount) => cli::say(NAME, format_args!("{name} got {amount}")),
                    Err(why) => cli::say(NAME, format_args!("{name} got nothing: {why}")),
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("it does not panic");
    }
    cli::say(NAME, format_args!("balance: {}", ask(&ask_it, Request::Balance)));
    // The last sender: the actor's loop ends.
    drop(ask_it);
    cli::say(NAME, format_args!("closed with {}", actor.join().expect("it does not panic")));
}

// Output:
//
//     Ann got 15
//     Bob got 15
//     Cid got nothing: only 0 left
//     balance: 0
//     closed with 0
//
// Read next: src/channel/ends.rs; then `examples/chat_server.rs`, where one thread waits for several channels at once.
