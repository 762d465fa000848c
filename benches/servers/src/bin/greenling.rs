//! greenling: a green thread for each connection, which is lent the hub's buffer (`read_with`) and owns none.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use greenling::io::copy;
use greenling::net::{TcpListener, TcpStream};
use greenling::spawn;
use greenling_servers::files::Files;
use greenling_servers::hello::Hello;
use greenling_servers::resp::KeyValue;
use greenling_servers::store::Store;
use greenling_servers::{Conversation, Fed, Next, Service};

fn main() -> io::Result<()> {
    match Service::asked() {
        Service::Hello => listen(Hello::default),
        Service::KeyValue => {
            let store = Rc::new(RefCell::new(Store::default()));
            listen(move || KeyValue::new(Rc::clone(&store)))
        }
        Service::Files(folder) => listen(move || Files::new(folder.clone())),
    }
}

fn listen<C: Conversation + 'static>(begin: impl Fn() -> C) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, conversation) = (stream?, begin());
        // What ends a connection is no concern of the others.
        drop(spawn(move || serve(stream, conversation)));
    }
    Ok(())
}

fn serve(mut stream: TcpStream, conversation: impl Conversation) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut fed, mut answers) = (Fed::new(conversation), Vec::new());
    loop {
        let read = stream.read_with(|bytes| (!bytes.is_empty()).then(|| fed.feed(bytes, &mut answers)))?;
        let Some(mut next) = read else { return Ok(()) };
        loop {
            stream.write_all(&answers)?;
            answers.clear();
            match next {
                Next::Read => break,
                Next::Again => {}
                // A file that has changed meanwhile has another length than was promised.
                Next::Send(file, length) if copy(&mut &file, &mut stream)? == length => {}
                Next::Send(..) | Next::End => return Ok(()),
            }
            next = fed.feed(&[], &mut answers);
        }
    }
}
