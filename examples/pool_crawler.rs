//! You will see how many pages a crawler found, and that never more than five connections were open at a time.
//!
//! The site is a server of this program, on loopback: a tree of pages in which page `n` links to `2n` and `2n + 1`, and
//! to page 1, where the crawler has been already.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use greenling::group::{Group, Pool};
use greenling::net::{Shutdown, TcpListener, TcpStream};
use greenling::{sleep, spawn};

#[path = "common/cli.rs"]
mod cli;

const NAME: &str = "pool_crawler";

const HELP: &str = "\
Crawls a site that it serves itself, with a limit on the connections that are
open at a time.

usage: pool_crawler [--pages N] [--limit N] [--delay TIME]

  --pages N     how many pages the site has; 63 by default
  --limit N     connections at a time; 5 by default
  --delay TIME  how long a page takes: 0, 0.5 (seconds), 20ms; 20ms by default
";

struct Options {
    pages: u32,
    limit: u16,
    delay: Duration,
}

/// Gets one page and returns the numbers of the linked pages.
fn fetch(site: SocketAddr, page: u32) -> io::Result<Vec<u32>> {
    let mut stream = TcpStream::connect(site)?;
    // One write: `write!` would send a packet for each piece.
    stream.write_all(format!("GET /{page} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(body.lines().filter_map(|link| link.strip_prefix('/')?.parse().ok()).collect())
}

/// Follows all links from page 1. Returns how many pages and links there were.
fn crawl(site: SocketAddr, limit: u16) -> io::Result<(usize, usize)> {
    let pool = Pool::new(limit.into());
    let fetches = Group::new();
    let mut seen = HashSet::from([1]);
    let mut links = 0;
    fetches.add(pool.spawn(move || fetch(site, 1)));
    // In the order in which the pages come.
    while let Some(fetched) = fetches.wait_any(1).pop() {
        let found = fetched.join().expect("fetching does not panic")?;
        links += found.len();
        for page in found {
            if seen.insert(page) {
                fetches.add(pool.spawn(move || fetch(site, page))); // waits when the pool is full
            }
        }
    }
    Ok((seen.len(), links))
}

/// Serves the site. `most` counts the most connections that were open at a time.
fn serve(listener: TcpListener, pages: u32, delay: Duration, most: Rc<Cell<usize>>) {
    let open = Rc::new(()); // counted by its clones: one for each connection
    while let Ok((mut stream, _)) = listener.accept() {
        let one = Rc::clone(&open);
        most.set(most.get().max(Rc::strong_count(&open) - 1));
        drop(spawn(move || -> io::Result<()> {
            let mut request = [0; 1024];
            let length = stream.read(&mut request)?;
            let request = String::from_utf8_lossy(&request[..length]);
            let page = request.strip_prefix("GET /").and_then(|rest| rest.split(' ').next());
            let page: u32 = page.and_then(|page| page.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
            // The page: links to 1, 2n and 2n + 1, as far as the site goes.
            sleep(delay);
            let links = [1, 2 * page, 2 * page + 1].into_iter().filter(|link| *link <= pages);
            let links: String = links.map(|link| format!("/{link}\n")).collect();
            drop(one); // counted no more: the crawler may come again as soon as the page is read
            stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{links}").as_bytes())?;
            stream.shutdown(Shutdown::Write)
        }));
    }
}

/// Starts the site, crawls the pages, and prints what was found.
fn run(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let site = listener.local_addr()?;
    let most = Rc::new(Cell::new(0));
    let (pages, delay, counted) = (options.pages, options.delay, Rc::clone(&most));
    drop(spawn(move || serve(listener, pages, delay, counted)));
    let (pages, links) = crawl(site, options.limit)?;
    cli::say(NAME, format_args!("{pages} pages with {links} links"));
    cli::say(NAME, format_args!("at most {} connections at a time", most.get()));
    Ok(())
}

fn main() {
    let options = parse().unwrap_or_else(|what| cli::misused(NAME, what));
    cli::make_hub(NAME);
    // The standard streams and the hub's two, the listener, both ends of each connection.
    cli::take_descriptors(NAME, 6 + 2 * u64::from(options.limit));
    if let Err(error) = run(&options) {
        cli::fail(1, NAME, error);
    }
}

fn parse() -> Result<Options, String> {
    use lexopt::prelude::*;
    let mut options = Options { pages: 63, limit: 5, delay: Duration::from_millis(20) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Long("pages") => options.pages = cli::count("--pages", &mut parser)?,
            Long("limit") => options.limit = cli::count("--limit", &mut parser)?,
            Long("delay") => options.delay = cli::duration("--delay", &mut parser)?,
            Long("help") | Short('h') => cli::help(NAME, HELP),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

// Output:
//
//     63 pages with 125 links
//     at most 5 connections at a time
//
// Read next: src/group/pool.rs, how the limit works without a queue of jobs.
