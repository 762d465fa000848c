//! What the terminal shows, and what keys do, without a terminal and without a program.

use greenling_top::agent::Greeting;
use greenling_top::app::{Action, App, Tab};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

/// Makes the state at the begin.
fn app() -> App {
    App::new(Greeting { pid: 4711, program: "server".into(), version: "0.1.0".into() })
}

/// Presses a key.
fn press(app: &mut App, code: KeyCode) -> Action {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// Returns what is on a screen of 100 columns.
fn screen(app: &mut App, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, lines)).unwrap();
    terminal.draw(|frame| app.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..100).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..lines).map(line).collect::<Vec<_>>().join("\n")
}

/// An answer about groups.
fn groups() -> Value {
    json!({"groups": [
        {"key": "a", "count": 8990, "state": "waiting", "most": 812.5, "text": "8990 wait until a connection can be read"},
        {"key": "b", "count": 1, "state": "running", "text": "main is running"},
    ], "silent": [], "total": 2, "threads": 8991})
}

#[test]
fn groups_are_shown_first_and_lead_to_threads_and_stacks() {
    let mut app = app();
    assert_eq!(app.tab(), Tab::Groups);
    app.take(Tab::Groups, Ok(groups()));
    let expected = " server  process 4711, greenling 0.1.0, 8991 threads
 1 hubs  2 groups  3 threads  4 stacks  5 metrics  6 trace
 1 to 2 of 2 · by count ────────────────────────────────────────────────────────────────────────────
   COUNT    LONGEST  WHAT THEY DO
    8990   13.5 min  wait until a connection can be read
       1             main is running

 q quit  ←→ page  ↑↓ row  Enter its threads  / filter  s sort  r reverse  space pause";
    assert_eq!(screen(&mut app, 8), expected);
    assert_eq!(press(&mut app, KeyCode::Enter), Action::Ask);
    let request = app.request();
    assert_eq!((&request["get"], &request["group"]), (&json!("threads"), &json!("a")));
    let row = |id: u64| json!({"hub": 1, "id": id, "kind": "green thread", "state": "waiting", "does": "waits", "waited": 0.5});
    app.take(Tab::Threads, Ok(json!({"threads": [row(7), row(8)], "total": 8990, "silent": []})));
    let shown = screen(&mut app, 8);
    assert!(shown.contains("1 to 2 of 8990 in: 8990 wait until a connection can be read · by waited"), "{shown}");
    press(&mut app, KeyCode::Down);
    let Action::AskSheet(title, request) = press(&mut app, KeyCode::Enter) else { panic!("no stack") };
    assert_eq!(request, json!({"get": "stack", "hub": 1, "id": 8}));
    app.take_sheet(title, Ok(json!({"text": "   0: server::read\n             at main.rs:7\n"})));
    let shown = screen(&mut app, 8);
    assert!(shown.contains("the stack of #8 of hub 1") && shown.contains("server::read"), "{shown}");
    assert!(!app.refreshes());
    // Back to the threads, then to the groups.
    press(&mut app, KeyCode::Esc);
    assert!(app.refreshes());
    assert_eq!(press(&mut app, KeyCode::Esc), Action::Ask);
    assert_eq!(app.tab(), Tab::Groups);
}

#[test]
fn rows_beyond_the_screen_are_asked_for_page_by_page() {
    let mut app = app();
    press(&mut app, KeyCode::Char('3'));
    screen(&mut app, 15);
    assert_eq!(app.request()["limit"], 10);
    let row = |id: u64| json!({"hub": 1, "id": id, "does": "waits"});
    let page =
        |from: u64| json!({"threads": (from..from + 10).map(row).collect::<Vec<_>>(), "total": 100_000, "silent": []});
    app.take(Tab::Threads, Ok(page(1)));
    for _ in 0..9 {
        assert_eq!(press(&mut app, KeyCode::Down), Action::Nothing);
    }
    assert_eq!(press(&mut app, KeyCode::Down), Action::Ask);
    assert_eq!(app.request()["offset"], 10);
    assert_eq!(press(&mut app, KeyCode::PageDown), Action::Ask);
    assert_eq!(app.request()["offset"], 20);
    assert_eq!(press(&mut app, KeyCode::Home), Action::Ask);
    assert_eq!(app.request()["offset"], 0);
    // The threads have become fewer than the page is far.
    press(&mut app, KeyCode::PageDown);
    app.take(Tab::Threads, Ok(json!({"threads": [], "total": 3, "silent": []})));
    assert_eq!(app.request()["offset"], 0);
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let mut app = app();
    press(&mut app, KeyCode::Char('/'));
    "q1".chars().for_each(|c| assert_eq!(press(&mut app, KeyCode::Char(c)), Action::Nothing));
    assert!(screen(&mut app, 8).ends_with(" show those with: q1_"));
    assert_eq!(press(&mut app, KeyCode::Enter), Action::Ask);
    assert_eq!(app.request()["filter"], "q1");
    assert_eq!(press(&mut app, KeyCode::Char('s')), Action::Ask);
    assert_eq!(app.request()["sort"], "waited");
    assert_eq!(press(&mut app, KeyCode::Char('r')), Action::Ask);
    assert_eq!(app.request()["reverse"], true);
    assert_eq!(press(&mut app, KeyCode::Esc), Action::Ask);
    assert_eq!(app.request()["filter"], "");
    assert_eq!(press(&mut app, KeyCode::Char('q')), Action::Quit);
}

#[test]
fn a_busy_hub_and_an_error_are_seen() {
    let mut app = app();
    press(&mut app, KeyCode::Char('1'));
    let hubs = json!({"hubs": [{"hub": 1, "os_thread": 4711, "name": "main", "answered": false, "live": 7,
        "held": "green thread #4 \"hog\" has it\n  OS thread 4711 \"main\" runs\n"}], "silent": [1]});
    app.take(Tab::Hubs, Ok(hubs));
    let shown = screen(&mut app, 12);
    for part in [
        "4711 \"main\"",
        "busy ",
        "hub 1 has not answered: green thread #4 \"hog\" has it",
        "busy, and not in here: hub 1",
    ] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    app.take(Tab::Hubs, Err("the program has ended".into()));
    assert!(screen(&mut app, 12).ends_with(" the program has ended"));
}

#[test]
fn no_answer_and_no_size_makes_a_panic() {
    for lines in [1, 4, 12] {
        for answer in [json!(null), json!({}), json!({"groups": 7}), groups()] {
            for digit in '1'..='6' {
                let mut app = app();
                press(&mut app, KeyCode::Char(digit));
                app.take(app.tab(), Ok(answer.clone()));
                screen(&mut app, lines);
                for code in [KeyCode::Enter, KeyCode::Up, KeyCode::PageDown, KeyCode::Esc, KeyCode::Char('t')] {
                    press(&mut app, code);
                    screen(&mut app, lines);
                }
            }
        }
    }
}
