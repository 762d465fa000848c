//! The terminal: reads keys, asks the agent on another OS thread, so that keys work while an answer is due, and draws.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;

use crate::agent::Agent;
use crate::app::{Action, App, Tab};

/// How often the page is asked for.
const REFRESH: Duration = Duration::from_secs(1);

/// How long a key may wait for an answer that has come to be drawn.
const TICK: Duration = Duration::from_millis(50);

/// What an answer is for.
enum For {
    /// A page.
    Page(Tab),
    /// A sheet with this title.
    Sheet(String),
    /// A file.
    File,
}

/// A request, and what it is for.
type Job = (For, Value);

/// An answer, and what it is for.
type Done = (For, Result<Value, String>);

/// Asks the agent for what comes, until nothing more can come.
fn work(mut agent: Agent, jobs: &Receiver<Job>, done: &Sender<Done>) {
    for (what, request) in jobs {
        let answer = agent.ask(&request);
        if done.send((what, answer)).is_err() {
            return;
        }
    }
}

/// Shows the program until a key ends that.
///
/// # Errors
/// Those of the terminal.
pub fn run(agent: Agent) -> io::Result<()> {
    let mut app = App::new(agent.greeting.clone());
    let pid = agent.greeting.pid;
    let (ask, jobs) = channel();
    let (tell, answers) = channel();
    thread::spawn(move || work(agent, &jobs, &tell));
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut app, &mut terminal, &ask, &answers, pid);
    ratatui::restore();
    result
}

/// Draws, and does what keys and answers say.
fn show(
    app: &mut App,
    terminal: &mut ratatui::DefaultTerminal,
    ask: &Sender<Job>,
    answers: &Receiver<Done>,
    pid: u64,
) -> io::Result<()> {
    // The number of answers that are due, and when the page was last asked for.
    let (mut due, mut asked): (usize, Option<Instant>) = (0, None);
    loop {
        let mut jobs: Vec<(Job, &'static str)> = Vec::new();
        if due == 0 && app.refreshes() && asked.is_none_or(|asked| asked.elapsed() >= REFRESH) {
            jobs.push(((For::Page(app.tab()), app.request()), ""));
        }
        terminal.draw(|frame| app.draw(frame))?;
        if jobs.is_empty()
            && event::poll(TICK)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match app.key(key) {
                Action::Nothing => {}
                Action::Quit => return Ok(()),
                Action::Ask => {
                    let words = match app.tab() {
                        Tab::Trace => "tracing for a second",
                        Tab::Stacks => "looking up names",
                        _ => "",
                    };
                    jobs.push(((For::Page(app.tab()), app.request()), words));
                }
                Action::AskSheet(title, request) => jobs.push(((For::Sheet(title), request), "looking up names")),
                Action::SaveTrace(request) => jobs.push(((For::File, request), "tracing for a second")),
            }
        }
        for (job, words) in jobs {
            asked = Some(Instant::now());
            due += 1;
            app.waits_for((!words.is_empty()).then_some(words));
            // The other OS thread ends only with this channel.
            let _ = ask.send(job);
        }
        while let Ok((what, answer)) = answers.try_recv() {
            due -= 1;
            if due == 0 {
                app.waits_for(None);
            }
            match what {
                For::Page(tab) => app.take(tab, answer),
                For::Sheet(title) => app.take_sheet(title, answer),
                For::File => save(app, pid, answer),
            }
        }
    }
}

/// Saves a trace as a page.
fn save(app: &mut App, pid: u64, answer: Result<Value, String>) {
    let name = format!("greenling-trace-{pid}.html");
    let saved = answer.and_then(|answer| {
        let page = answer["file"].as_str().ok_or_else(|| String::from("the answer has no page"))?;
        fs::write(&name, page).map_err(|error| format!("{name}: {error}"))
    });
    match saved {
        Ok(()) => app.note(format!("saved as {name}"), false),
        Err(error) => app.note(error, true),
    }
}
