//! tokio with its current-thread runtime, a task for each connection. A file is sent by `tokio::fs` and `tokio::io::copy`,
//! which read it on the pool of blocking threads, as tokio's users do.
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};

use greenling_servers::files::Files;
use greenling_servers::hello::Hello;
use greenling_servers::resp::KeyValue;
use greenling_servers::store::Store;
use greenling_servers::{BUFFER, Conversation, Fed, Next, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

fn main() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    match Service::asked() {
        Service::Hello => runtime.block_on(listen(Hello::default)),
        Service::KeyValue => {
            let store = Arc::new(Mutex::new(Store::default()));
            runtime.block_on(listen(move || KeyValue::new(Arc::clone(&store))))
        }
        Service::Files(folder) => runtime.block_on(listen(move || Files::new(folder.clone()))),
    }
}

async fn listen<C: Conversation + Send + 'static>(begin: impl Fn() -> C) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // What ends a connection is no concern of the others.
        drop(tokio::spawn(serve(stream, begin())));
    }
}

async fn serve(mut stream: TcpStream, conversation: impl Conversation) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut fed, mut buffer, mut answers) = (Fed::new(conversation), vec![0; BUFFER], Vec::new());
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let mut next = fed.feed(&buffer[..length], &mut answers);
        loop {
            stream.write_all(&answers).await?;
            answers.clear();
            match next {
                Next::Read => break,
                Next::Again => {}
                Next::Send(file, length) => {
                    // A file that has changed meanwhile has another length than was promised.
                    if copy(&mut tokio::fs::File::from_std(file), &mut stream).await? != length {
                        return Ok(());
                    }
                }
                Next::End => return Ok(()),
            }
            next = fed.feed(&[], &mut answers);
        }
    }
}
