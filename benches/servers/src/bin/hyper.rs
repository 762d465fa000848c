//! hyper on tokio's current-thread runtime, hello alone: a whole HTTP server, where the others have what hello needs.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::{io, process};

use greenling_servers::{Service, hello::HELLO};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

fn main() -> io::Result<()> {
    let Service::Hello = Service::asked() else {
        eprintln!("hyper says hello only");
        process::exit(2);
    };
    runtime::Builder::new_current_thread().enable_io().build()?.block_on(listen())
}

async fn listen() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // What ends a connection is no concern of the others.
        drop(tokio::spawn(serve(stream)));
    }
}

async fn serve(stream: TcpStream) {
    if stream.set_nodelay(true).is_ok() {
        // No clock is asked for the date, as the others ask none.
        let _ = http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service_fn(hello))
            .await;
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(HELLO.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
