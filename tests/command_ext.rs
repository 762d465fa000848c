//! What Unix adds to a command, and Linux to a connection.
#![forbid(unsafe_code)]

mod common;

use std::fs::read_to_string;
use std::io::ErrorKind;

use greenling::net::{TcpListener, TcpStream};
use greenling::os::linux::net::TcpStreamExt;
use greenling::os::unix::process::CommandExt;
use greenling::process::Command;
use greenling::signal::{SIGTERM, SIGUSR1, Signals};
use greenling::{spawn, yield_now};

/// A shell that runs `script`.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// What a command prints, without the line break.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The fields of /proc/PID/stat from the state on: state, parent, process group, session.
const OWN_GROUP: &str = "read -r line </proc/$$/stat; set -- ${line##*) }; echo $$ $3";

#[test]
fn a_child_gets_the_name_the_group_and_the_user_that_were_asked_for() {
    let _guard = common::guard();
    assert_eq!(printed(shell("echo $0").arg0("ignored by sh -c")), "ignored by sh -c");
    let told = printed(shell(OWN_GROUP).process_group(0));
    let (id, group) = told.split_once(' ').unwrap();
    assert_eq!(id, group, "a group of its own");
    let told = printed(&mut shell(OWN_GROUP));
    let (id, group) = told.split_once(' ').unwrap();
    assert_ne!(id, group, "that of its parent");
    let (uid, gid) = (printed(&mut shell("id -u")), printed(&mut shell("id -g")));
    let mut as_ourselves = shell("echo $(id -u) $(id -g)");
    as_ourselves.gid(gid.parse().unwrap()).uid(uid.parse().unwrap());
    // Without the right to change its groups std's `uid` does nothing more than set the same user.
    assert_eq!(printed(&mut as_ourselves), format!("{uid} {gid}"));
}

#[test]
fn exec_becomes_the_program_with_nothing_blocked() {
    let _guard = common::guard();
    let output = common::child("exec_becomes_the_program_with_nothing_blocked", || {
        // Blocked here, as long as it is there; and a green thread that the program must not be held up by.
        let _signals = Signals::new([SIGUSR1, SIGTERM]).unwrap();
        drop(spawn(|| greenling::sleep(std::time::Duration::from_secs(3600))));
        yield_now();
        let error = shell("echo $0 $1; grep SigBlk /proc/self/status").args(["became", "it"]).exec();
        panic!("it returned: {error}");
    });
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("became it\nSigBlk:\t0000000000000000\n"), "{text}");
}

#[test]
fn an_exec_that_fails_says_why_and_leaves_blocked_what_was() {
    let _guard = common::guard();
    let output = common::child("an_exec_that_fails_says_why_and_leaves_blocked_what_was", || {
        let blocked = || {
            let status = read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
        };
        let _signals = Signals::new([SIGUSR1]).unwrap();
        let before = blocked();
        for _ in 0..2 {
            assert_eq!(Command::new("/no/such/program").exec().kind(), ErrorKind::NotFound);
            assert_eq!(blocked(), before);
        }
    });
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn quickack_is_set_and_read_and_refused_after_a_close() {
    let _guard = common::guard();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for on in [true, false] {
        stream.set_quickack(on).unwrap();
        assert_eq!(stream.quickack().unwrap(), on);
    }
    stream.close();
    assert_eq!(stream.quickack().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(stream.set_quickack(true).unwrap_err().kind(), ErrorKind::NotConnected);
}
