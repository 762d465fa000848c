//! Files that change, progress bars, signals: `notify`, `indicatif`, `signal-hook`, `ctrlc`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};

use greenling_crates::{MANY, Meeting, Threads, child, patched_with_locks, stderr, stdout};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use notify::Watcher;

/// All wait for a file of their own, which is written when all wait.
fn noticed(threads: Threads) -> Vec<PathBuf> {
    let folder = tempfile::tempdir().unwrap();
    let senders = Arc::new(Mutex::new(HashMap::<PathBuf, mpsc::Sender<PathBuf>>::new()));
    let for_watcher = Arc::clone(&senders);
    let tell = move |event: notify::Result<notify::Event>| {
        for path in event.unwrap().paths {
            if let Some(sender) = for_watcher.lock().unwrap().remove(&path) {
                sender.send(path).unwrap();
            }
        }
    };
    let mut watcher = notify::recommended_watcher(tell).unwrap();
    watcher.watch(folder.path(), notify::RecursiveMode::NonRecursive).unwrap();
    let meeting = Arc::new(Meeting::default());
    let path_of = {
        let folder = folder.path().to_owned();
        move |number: usize| folder.join(number.to_string())
    };
    let writer = {
        let (meeting, path_of) = (Arc::clone(&meeting), path_of.clone());
        threads.spawn(move || {
            meeting.await_all();
            (0..MANY).for_each(|number| std::fs::write(path_of(number), "here").unwrap());
        })
    };
    let paths = threads.many(move |number| {
        let (sender, receiver) = mpsc::channel();
        senders.lock().unwrap().insert(path_of(number), sender);
        meeting.come();
        receiver.recv().unwrap()
    });
    writer.join();
    paths.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_owned()).collect()
}

#[test]
fn notify_tells_those_that_wait_for_files() {
    let _guard = patched_with_locks();
    let paths = noticed(Threads::Own);
    assert!(paths.iter().enumerate().all(|(number, path)| path.to_str().unwrap() == number.to_string()), "{paths:?}");
    assert_eq!(paths, noticed(Threads::Os));
}

/// All move bars of one display, which draws from an OS thread of its own as well.
fn bars(threads: Threads) -> Vec<(u64, bool)> {
    let all = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let meeting = Arc::new(Meeting::default());
    threads.many(move |number| {
        let bar = all.add(ProgressBar::new(number as u64));
        bar.enable_steady_tick(greenling_crates::PAUSE);
        (0..number / 2).for_each(|_| bar.inc(1));
        meeting.wait();
        (number / 2..number).for_each(|_| bar.inc(1));
        bar.finish();
        (bar.position(), bar.is_finished())
    })
}

#[test]
fn indicatif_bars_move_at_once() {
    let _guard = patched_with_locks();
    let moved = bars(Threads::Own);
    assert!(moved.iter().copied().eq((0..MANY as u64).map(|n| (n, true))), "{moved:?}");
    assert_eq!(moved, bars(Threads::Os));
}

/// Sends a signal to this process.
fn signal_me(name: &str) {
    let id = std::process::id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

#[test]
fn signal_hook_iterators_wait_at_once() {
    let out = child("system::signal_hook_iterators_wait_at_once", || {
        let _guard = patched_with_locks();
        for threads in [Threads::Own, Threads::Os] {
            let meeting = Arc::new(Meeting::default());
            let sender = {
                let meeting = Arc::clone(&meeting);
                threads.spawn(move || {
                    meeting.await_all();
                    signal_me("USR1");
                })
            };
            let got = threads.many(move |_| {
                let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGUSR1]).unwrap();
                meeting.come();
                signals.forever().next().unwrap()
            });
            sender.join();
            assert!(got.iter().all(|&signal| signal == signal_hook::consts::SIGUSR1));
        }
        println!("all were told");
    });
    assert!(stdout(&out).contains("all were told"), "{}", stderr(&out));
}

#[test]
fn ctrlc_tells_all_that_wait() {
    let out = child("system::ctrlc_tells_all_that_wait", || {
        let _guard = patched_with_locks();
        let senders = Arc::new(Mutex::new(Vec::<mpsc::Sender<()>>::new()));
        let for_handler = Arc::clone(&senders);
        let tell = move || for_handler.lock().unwrap().drain(..).for_each(|sender| sender.send(()).unwrap());
        ctrlc::set_handler(tell).unwrap();
        for threads in [Threads::Own, Threads::Os] {
            let (meeting, senders) = (Arc::new(Meeting::default()), Arc::clone(&senders));
            let sender = {
                let meeting = Arc::clone(&meeting);
                threads.spawn(move || {
                    meeting.await_all();
                    signal_me("INT");
                })
            };
            threads.many(move |_| {
                let (sender, receiver) = mpsc::channel();
                senders.lock().unwrap().push(sender);
                meeting.come();
                receiver.recv().unwrap();
            });
            sender.join();
        }
        println!("all were told");
    });
    assert!(stdout(&out).contains("all were told"), "{}", stderr(&out));
}
