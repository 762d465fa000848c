//! may with one worker thread, a coroutine for each connection. A file is read and written: may has nothing for sendfile.
//!
//! A spawn is `unsafe` in may, since a coroutine may move to another OS thread and run out of the stack. With one
//! worker no coroutine moves, and nothing here uses much stack.
// The one reason is may's spawn.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use greenling_servers::files::Files;
use greenling_servers::hello::Hello;
use greenling_servers::resp::KeyValue;
use greenling_servers::store::Store;
use greenling_servers::{BUFFER, Conversation, Fed, Next, Service};
use may::coroutine::{self, JoinHandle};
use may::net::{TcpListener, TcpStream};

fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    // SAFETY: there is one worker, so no thread-local changes under the coroutine; the frames fit into the stack.
    unsafe { coroutine::spawn(f) }
}

fn main() -> io::Result<()> {
    may::config().set_workers(1);
    match Service::asked() {
        Service::Hello => listen(Hello::default),
        Service::KeyValue => {
            let store = Arc::new(Mutex::new(Store::default()));
            listen(move || KeyValue::new(Arc::clone(&store)))
        }
        Service::Files(folder) => listen(move || Files::new(folder.clone())),
    }
}

fn listen<C: Conversation + Send + 'static>(begin: impl Fn() -> C + Send + 'static) -> io::Result<()> {
    // The acceptor is a coroutine, so that no other OS thread takes part in what is measured.
    let acceptor = spawn(move || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("listening on {}", listener.local_addr()?);
        for stream in listener.incoming() {
            let (stream, conversation) = (stream?, begin());
            // What ends a connection is no concern of the others.
            drop(spawn(move || serve(stream, conversation)));
        }
        Ok(())
    });
    acceptor.join().expect("no panic")
}

fn serve(mut stream: TcpStream, conversation: impl Conversation) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut fed, mut buffer, mut answers) = (Fed::new(conversation), vec![0; BUFFER], Vec::new());
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut next = fed.feed(&buffer[..length], &mut answers);
        loop {
            stream.write_all(&answers)?;
            answers.clear();
            match next {
                Next::Read => break,
                Next::Again => {}
                // The buffer is there, and larger than that of `io::copy`.
                Next::Send(mut file, mut left) => {
                    while left > 0 {
                        let length = file.read(&mut buffer)?;
                        if length == 0 || length as u64 > left {
                            // The file has changed meanwhile, and has another length than was promised.
                            return Ok(());
                        }
                        stream.write_all(&buffer[..length])?;
                        left -= length as u64;
                    }
                }
                Next::End => return Ok(()),
            }
            next = fed.feed(&[], &mut answers);
        }
    }
}
