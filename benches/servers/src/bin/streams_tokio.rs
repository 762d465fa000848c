//! The servers of streams on tokio's current-thread runtime: `tokio-rustls`, `copy_bidirectional`, `tokio-tungstenite`.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use greenling_servers::streams::{BUFFER, QUEUE, Service, tls_config, web_socket_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;

fn main() -> io::Result<()> {
    let service = Service::asked();
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        match service {
            Service::Tls => {
                let acceptor = TlsAcceptor::from(tls_config());
                listen(move |stream| tls(stream, acceptor.clone())).await
            }
            Service::Proxy(to) => listen(move |stream| forward(stream, to)).await,
            Service::Chat => {
                let room = Room::default();
                listen(move |stream| attend(stream, room.clone())).await
            }
        }
    })
}

/// Serves each connection in a task of its own.
async fn listen<F: Future<Output = io::Result<()>> + Send + 'static>(serve: impl Fn(TcpStream) -> F) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // What ends a connection is no concern of the others.
        drop(tokio::spawn(serve(stream)));
    }
}

async fn tls(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let (mut stream, mut buffer) = (acceptor.accept(stream).await?, vec![0; BUFFER]);
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..length]).await?;
        stream.flush().await?;
    }
}

async fn forward(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.map(drop)
}

/// The room: its members by their numbers.
type Room = Arc<Mutex<Members>>;

#[derive(Default)]
struct Members {
    next: u64,
    inside: HashMap<u64, Member>,
}

/// A member: its queue, and the tasks that read and write.
struct Member {
    queue: mpsc::Sender<Message>,
    tasks: [AbortHandle; 2],
}

impl Member {
    /// Puts a message into the queue. False if that is full: then the member is thrown out.
    fn put(&self, message: Message) -> bool {
        let put = self.queue.try_send(message).is_ok();
        if !put {
            self.tasks.iter().for_each(AbortHandle::abort);
        }
        put
    }
}

/// Serves a member from the handshake to the end.
async fn attend(stream: TcpStream, room: Room) -> io::Result<()> {
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(web_socket_config())).await;
    let (mut sink, source) = socket.map_err(io::Error::other)?.split();
    let (queue, mut to_write) = mpsc::channel(QUEUE);
    // Writes what is in the queue, as much at once as there is.
    let writer = tokio::spawn(async move {
        let mut batch = Vec::new();
        while to_write.recv_many(&mut batch, QUEUE).await > 0 {
            for message in batch.drain(..) {
                sink.feed(message).await?;
            }
            sink.flush().await?;
        }
        Ok::<_, tungstenite::Error>(())
    });
    let mut members = room.lock().unwrap();
    members.next += 1;
    let number = members.next;
    let reader = tokio::spawn(read(source, Arc::clone(&room), number));
    let tasks = [writer.abort_handle(), reader.abort_handle()];
    members.inside.insert(number, Member { queue, tasks });
    Ok(())
}

/// Reads what a member says, until it leaves.
async fn read(mut source: SplitStream<WebSocketStream<TcpStream>>, room: Room, number: u64) {
    while let Some(Ok(message)) = source.next().await {
        if message.is_text() || message.is_binary() {
            // The room waits for no member: one of which the queue is full is thrown out.
            room.lock().unwrap().inside.retain(|_, member| member.put(message.clone()));
        }
    }
    room.lock().unwrap().inside.remove(&number);
}
