//! The blocking server, a thread for each connection. Where `io`, `net` and `thread` come from says the file that has this
//! one as a module: that is all the difference between OS threads and green ones.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use greenling_servers::files::Files;
use greenling_servers::hello::Hello;
use greenling_servers::resp::KeyValue;
use greenling_servers::store::Store;
use greenling_servers::{BUFFER, Conversation, Fed, Next, Service};

use super::{io, net, thread};

pub(crate) fn main() -> io::Result<()> {
    match Service::asked() {
        Service::Hello => listen(Hello::default),
        Service::KeyValue => {
            let store = Arc::new(Mutex::new(Store::default()));
            listen(move || KeyValue::new(Arc::clone(&store)))
        }
        Service::Files(folder) => listen(move || Files::new(folder.clone())),
    }
}

fn listen<C: Conversation + Send + 'static>(begin: impl Fn() -> C) -> io::Result<()> {
    let listener = net::TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, conversation) = (stream?, begin());
        // What ends a connection is no concern of the others.
        drop(thread::spawn(move || serve(stream, conversation)));
    }
    Ok(())
}

fn serve(mut stream: net::TcpStream, conversation: impl Conversation) -> io::Result<()> {
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
                // A file that has changed meanwhile has another length than was promised.
                Next::Send(file, length) if io::copy(&mut &file, &mut stream)? == length => {}
                Next::Send(..) | Next::End => return Ok(()),
            }
            next = fed.feed(&[], &mut answers);
        }
    }
}
