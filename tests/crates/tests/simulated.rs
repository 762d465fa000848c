//! An HTTP client and a client of a database, unmodified, in a simulation: their runs replay, a race between them is
//! found, their time limits take no time, and they see the faults of the simulated network.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use greenling::sim::{self, Config, FailureKind};
use greenling_crates::{child, patched, stdout};
use redis::Commands;

/// How long the clients wait.
const LIMIT: Duration = Duration::from_secs(3600);

/// What the database holds.
type Values = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// Returns a configuration in which servers may be left at the end.
fn config() -> Config {
    Config::new().allow_leaks(true)
}

/// Takes a lock that is never held while anything waits.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a server of std on a host, with a thread for each connection, and returns when it listens.
fn serve(name: &str, port: u16, answer: impl Fn(TcpStream) + Clone + 'static) {
    let listening = std::rc::Rc::new(greenling::sync::Event::new());
    let tell = std::rc::Rc::clone(&listening);
    drop(sim::host(name, move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        tell.set();
        while let Ok((stream, _)) = listener.accept() {
            let answer = answer.clone();
            greenling::spawn(move || answer(stream));
        }
    }));
    listening.wait();
}

/// Answers HTTP requests by their path and the number of the request on this server.
fn http(stream: TcpStream) {
    let mut lines = BufReader::new(&stream);
    let mut first = String::new();
    if lines.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|len| len > 2) {
        line.clear();
    }
    let body = format!("you asked for {}", first.split(' ').nth(1).unwrap_or("nothing"));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = (&stream).write_all((head + &body).as_bytes());
}

/// Reads a command of the Redis protocol: a list of texts.
fn command(input: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let number = |input: &mut dyn BufRead| {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse::<usize>().ok()
    };
    let count = number(input)?;
    (0..count)
        .map(|_| {
            let mut text = vec![0; number(input)? + 2];
            input.read_exact(&mut text).ok()?;
            text.truncate(text.len() - 2);
            Some(text)
        })
        .collect()
}

/// Answers commands of the Redis protocol: GET, SET, and OK to what clients say of themselves.
fn database(values: &Values, stream: TcpStream) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    while let Some(words) = command(&mut input) {
        let text = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
        let answer = match text(0).to_uppercase().as_str() {
            "GET" if text(1) == "silence" => continue,
            "GET" => lock(values).get(&text(1)).map_or(b"$-1\r\n".to_vec(), |value| {
                [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
            }),
            "SET" => {
                lock(values).insert(text(1), words.get(2).cloned().unwrap_or_default());
                b"+OK\r\n".to_vec()
            }
            _ => b"+OK\r\n".to_vec(),
        };
        if (&stream).write_all(&answer).is_err() {
            return;
        }
    }
}

/// Starts the database on the host `db`.
fn start_database() {
    let values = Values::default();
    serve("db", 6379, move |stream| database(&values, stream));
}

/// Connects to the database.
fn connect() -> redis::RedisResult<redis::Connection> {
    redis::Client::open("redis://db:6379")?.get_connection()
}

/// Asks an HTTP server and a database from several threads, over links with jitter and loss, and returns what each of
/// them saw, and when.
fn conversation() -> Vec<String> {
    sim::network().latency(Duration::from_millis(5)).jitter(Duration::from_millis(50)).loss(0.1);
    serve("web", 80, http);
    start_database();
    let clients: Vec<_> = (0..4)
        .map(|number| {
            greenling::spawn(move || {
                let began = Instant::now();
                let answer = minreq::get(format!("http://web/{number}")).send().unwrap();
                let mut database = connect().unwrap();
                let () = database.set(number, answer.as_str().unwrap()).unwrap();
                std::thread::sleep(Duration::from_millis(sim::random() % 1000));
                let value: String = database.get((number + 1) % 4).unwrap_or_default();
                format!("{number}: {value:?} after {:?}", began.elapsed())
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

/// Returns a line for each of some seeds: a number made of the whole trace, and what the clients saw.
fn digests() -> String {
    let digest = |seed| {
        let seen = config().seed(seed).run(conversation);
        let trace = config().seed(seed).trace(|| drop(conversation()));
        let mut hasher = DefaultHasher::new();
        format!("{trace:?}").hash(&mut hasher);
        format!("<seed {seed}: {} steps, {:016x}, {seen:?}>\n", trace.len(), hasher.finish())
    };
    (0..5).map(digest).collect()
}

#[test]
fn clients_of_http_and_of_a_database_replay_byte_for_byte_in_any_process() {
    let output = child("clients_of_http_and_of_a_database_replay_byte_for_byte_in_any_process", || {
        let _guard = patched();
        print!("{}", digests());
    });
    let _guard = patched();
    let expected = digests();
    println!("{expected}");
    assert_eq!(digests(), expected, "twice in this process");
    assert!(stdout(&output).contains(&expected), "{}", stdout(&output));
    let mut lines: Vec<_> = expected.lines().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 5, "each seed is another run");
}

/// Counts up in the database, as a program must not: another client may come between the two commands.
fn count_up() {
    let mut database = connect().unwrap();
    let count: u64 = database.get("count").unwrap_or(0);
    let () = database.set("count", count + 1).unwrap();
}

/// Counts up twice, by two clients.
fn race() {
    start_database();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            greenling::spawn(|| {
                // As a rule the other one is done by then.
                std::thread::sleep(Duration::from_millis(sim::random() % 100));
                count_up();
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let count: u64 = connect().unwrap().get("count").unwrap();
    assert_eq!(count, 2, "an update is lost");
}

#[test]
fn a_race_of_two_database_clients_is_found_and_its_line_replays_it() {
    let _guard = patched();
    let failure = config().schedules(1000).check(race).unwrap_err();
    println!("{failure}");
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().contains("an update is lost"), "{failure}");
    // The line names the schedule, by which another process runs it again.
    let line = failure.replay();
    assert!(line.starts_with(&format!("GREENLING_SEED={} ", failure.schedule())), "{line}");
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "the_race", "--nocapture"]);
    command.env("GREENLING_SEED", failure.schedule().to_string());
    let output = greenling_crates::output_of(command);
    assert!(!output.status.success());
    let text = greenling_crates::stderr(&output) + &stdout(&output);
    assert!(text.contains("an update is lost") && text.contains(&failure.schedule().to_string()), "{text}");
}

#[test]
#[ignore = "the part of a child, which fails"]
fn the_race() {
    let _guard = patched();
    sim::explore(config().schedules(1), race);
}

#[test]
fn time_limits_of_clients_on_a_silent_host_take_virtual_time_only() {
    let _guard = patched();
    let began = Instant::now();
    config().seed(1).run(|| {
        for (name, port) in [("web", 80), ("db", 6379)] {
            serve(name, port, |mut stream| drop(stream.read_to_end(&mut Vec::new())));
        }
        let asked = Instant::now();
        minreq::get("http://web/").with_timeout(LIMIT.as_secs()).send().unwrap_err();
        assert_eq!(asked.elapsed(), LIMIT);
    });
    config().seed(2).run(|| {
        start_database();
        let mut database = connect().unwrap();
        database.set_read_timeout(Some(LIMIT)).unwrap();
        let asked = Instant::now();
        let error = database.get::<_, String>("silence").unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(asked.elapsed(), LIMIT);
    });
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn clients_see_the_faults_of_the_simulated_network() {
    let _guard = patched();
    config().seed(1).run(|| {
        serve("web", 80, http);
        start_database();
        let mut database = connect().unwrap();
        let () = database.set("key", "value").unwrap();
        // A name of no host, and a port at which nothing listens.
        minreq::get("http://nowhere/").send().unwrap_err();
        let refused = redis::Client::open("redis://web:6379").unwrap().get_connection().err().unwrap();
        assert!(refused.is_connection_refusal(), "{refused}");
        // The connection is reset in the middle of an answer.
        sim::network().reset_after(60);
        let error = minreq::get("http://web/").send().unwrap_err();
        assert!(error.to_string().contains("reset"), "{error}");
        sim::network().reset_after(None);
        assert_eq!(minreq::get("http://web/").send().unwrap().status_code, 200);
        // The host of the database loses power, and comes back: it knows nothing of the connection.
        sim::network().crash("db").restart("db");
        let error = database.get::<_, String>("key").unwrap_err();
        assert!(error.is_connection_dropped(), "{error}");
        start_database();
        assert_eq!(connect().unwrap().get::<_, Option<String>>("key").unwrap(), None);
        // Nothing arrives any more: the client gives up when Linux does.
        let mut database = connect().unwrap();
        sim::network().partition("localhost", "db");
        let asked = Instant::now();
        let error = database.get::<_, String>("key").unwrap_err();
        assert!(error.is_io_error(), "{error}");
        assert!(asked.elapsed() > Duration::from_secs(600), "after {:?}", asked.elapsed());
    });
}
