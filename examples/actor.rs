//! You will see a bank account that is an actor: three clients send it requests, and it answers each over a channel that
//! came with the request. Its balance never goes below zero, and there is no lock.
#![forbid(unsafe_code)]

use greenling::channel::{self, Receiver, Sender};
use greenling::{spawn, thread};

/// What the account can be asked. What wants an answer brings the way back.
enum Request {
    Deposit(u64),
    Withdraw(u64, Sender<Result<u64, String>>),
    Balance(Sender<u64>),
}

/// The actor: the only one that sees the balance. It ends when nobody can ask it any more.
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
                // Whoever asked may have gone meanwhile; that is not our concern.
                let _ = answer.send(result);
            }
            Request::Balance(answer) => drop(answer.send(balance)),
        }
    }
    balance
}

/// Asks and waits for the answer.
fn ask<T>(account: &Sender<Request>, request: impl FnOnce(Sender<T>) -> Request) -> T {
    let (answer, answered) = channel::bounded(1);
    account.send(request(answer)).unwrap_or_else(|_| panic!("the account is open"));
    answered.recv().expect("every request is answered")
}

fn main() {
    let (ask_it, requests) = channel::bounded(16);
    let actor = spawn(|| account(requests));
    let clients: Vec<_> = ["Ann", "Bob", "Cid"]
        .into_iter()
        .map(|name| {
            let account = ask_it.clone();
            spawn(move || {
                account.send(Request::Deposit(10)).unwrap_or_else(|_| panic!("the account is open"));
                thread::yield_now();
                match ask(&account, |answer| Request::Withdraw(15, answer)) {
                    Ok(amount) => println!("{name} got {amount}"),
                    Err(why) => println!("{name} got nothing: {why}"),
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("it does not panic");
    }
    println!("balance: {}", ask(&ask_it, Request::Balance));
    drop(ask_it);
    println!("closed with {}", actor.join().expect("it does not panic"));
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
