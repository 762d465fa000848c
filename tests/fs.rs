//! Files: the same program over `std::fs` and `greenling::fs`, with the same results and errors; kill, timeout,
//! unwinding.
#![forbid(unsafe_code)]

mod common;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::OnDrop;
use greenling::fs::{self, File, OpenOptions};
use greenling::{TimeoutError, no_switch, spawn, timeout, yield_now};

/// A folder of the test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    /// A fresh one.
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fs-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A path in it.
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The same program over one of the two modules. Returns what happened, a line for each step.
macro_rules! program {
    ($name:ident, $fs:path) => {
        fn $name(folder: &Path) -> Vec<String> {
            use std::io::{Read, Seek, SeekFrom, Write};
            use std::os::unix::fs::{DirEntryExt, FileExt, OpenOptionsExt, PermissionsExt};
            use $fs as fs;
            let at = |name: &str| folder.join(name);
            let mut log = Vec::new();
            /// What a step gave, or its error.
            fn say<T: std::fmt::Debug>(log: &mut Vec<String>, step: &str, result: std::io::Result<T>) {
                log.push(match result {
                    Ok(value) => format!("{step}: {value:?}"),
                    Err(error) => format!("{step}: {:?} {:?} {error}", error.kind(), error.raw_os_error()),
                });
            }
            macro_rules! step {
                ($call:expr) => {
                    say(&mut log, stringify!($call), $call)
                };
            }
            // Whole files and names.
            step!(fs::read(at("none")));
            step!(fs::read_to_string(at("none")));
            step!(fs::write(at("a"), "one two"));
            step!(fs::read(at("a")));
            step!(fs::read_to_string(at("a")));
            step!(fs::write(at("bytes"), [0xff, 0xfe]));
            step!(fs::read_to_string(at("bytes")));
            let mut text = String::from("kept");
            step!(fs::File::open(at("bytes")).and_then(|mut file| file.read_to_string(&mut text)));
            log.push(text);
            step!(fs::write(folder, "a directory"));
            step!(fs::copy(at("a"), at("b")));
            step!(fs::copy(at("none"), at("b")));
            step!(fs::rename(at("b"), at("c")));
            step!(fs::rename(at("none"), at("c")));
            step!(fs::exists(at("b")));
            step!(fs::exists(at("c")));
            step!(fs::hard_link(at("c"), at("d")));
            step!(fs::hard_link(at("c"), at("d")));
            step!(fs::read_link(at("c")));
            std::os::unix::fs::symlink("c", at("link")).unwrap();
            step!(fs::read_link(at("link")));
            step!(fs::metadata(at("link")).map(|meta| (meta.is_file(), meta.len(), meta.is_symlink())));
            step!(fs::symlink_metadata(at("link")).map(|meta| (meta.is_file(), meta.is_symlink())));
            step!(fs::metadata(at("none")).map(|meta| meta.len()));
            step!(fs::canonicalize(at("link")).map(|path| path.file_name().map(|name| name.to_owned())));
            step!(fs::canonicalize(at("none")));
            step!(fs::read("zero\0byte"));
            step!(fs::metadata("").map(|meta| meta.len()));
            // Permissions.
            let mode = fs::metadata(at("a")).unwrap().permissions().mode() & 0o777;
            step!(fs::set_permissions(at("a"), fs::Permissions::from_mode(0o600)));
            step!(fs::metadata(at("a")).map(|meta| meta.permissions().mode() & 0o777));
            step!(fs::set_permissions(at("a"), fs::Permissions::from_mode(mode)));
            step!(fs::set_permissions(at("none"), fs::Permissions::from_mode(mode)));
            // Directories.
            step!(fs::create_dir(at("dir")));
            step!(fs::create_dir(at("dir")));
            step!(fs::create_dir(at("x/y/z")));
            step!(fs::create_dir_all(at("x/y/z")));
            step!(fs::create_dir_all(at("x/y/z")));
            step!(fs::create_dir_all(at("a/b")));
            step!(fs::remove_dir(at("x")));
            step!(fs::read_dir(at("none")).map(|_| ()));
            step!(fs::read_dir(at("a")).map(|_| ()));
            for n in 0..300 {
                fs::write(at("dir").join(n.to_string()), "").unwrap();
            }
            let mut names: Vec<_> = fs::read_dir(at("dir"))
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    assert!(entry.ino() > 0);
                    assert_eq!(entry.path(), at("dir").join(entry.file_name()));
                    (entry.file_name(), entry.file_type().unwrap().is_file(), entry.metadata().unwrap().len())
                })
                .collect();
            names.sort();
            log.push(format!("{names:?}"));
            step!(fs::read_dir(at("x/y/z")).map(|entries| entries.count()));
            step!(fs::remove_dir(at("dir")));
            step!(fs::remove_dir_all(at("dir")));
            step!(fs::remove_dir_all(at("dir")));
            step!(fs::remove_file(at("x")));
            step!(fs::remove_file(at("none")));
            step!(fs::remove_file(at("d")));
            // Open files.
            step!(fs::File::open(at("none")).map(|_| ()));
            step!(fs::File::create(at("none/x")).map(|_| ()));
            step!(fs::File::create_new(at("a")).map(|_| ()));
            step!(fs::File::open(&folder).and_then(|mut file| file.read(&mut [0; 4])));
            let mut file = fs::File::create_new(at("file")).unwrap();
            step!(file.write(b"0123456789"));
            step!(file.flush());
            step!(file.seek(SeekFrom::Start(3)));
            let mut buf = [0; 4];
            step!(file.read(&mut buf).map(|n| (n, buf)));
            step!(file.stream_position());
            step!(file.seek(SeekFrom::End(-2)));
            step!(file.seek(SeekFrom::Current(-100)));
            let mut bytes = b"before ".to_vec();
            step!(file.read_to_end(&mut bytes).map(|n| (n, bytes.clone())));
            step!(file.rewind());
            let mut text = String::from("before ");
            step!(file.read_to_string(&mut text).map(|n| (n, text.clone())));
            step!(file.read(&mut buf));
            step!(file.rewind().and_then(|()| file.read_exact(&mut [0; 11])));
            step!(file.read_at(&mut buf, 8).map(|n| (n, buf)));
            step!(file.write_at(b"AB", 1));
            step!((&file).read(&mut []));
            step!((&file).write(&[]));
            step!(file.set_len(4));
            step!(file.metadata().map(|meta| meta.len()));
            step!(file.sync_all());
            step!(file.sync_data());
            step!(file.set_permissions(fs::Permissions::from_mode(0o640)));
            step!(file.metadata().map(|meta| meta.permissions().mode() & 0o777));
            let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            step!(file.set_modified(then));
            step!(file.set_times(fs::FileTimes::new().set_accessed(then)));
            step!(file.metadata().map(|meta| (meta.modified().unwrap() == then, meta.accessed().unwrap() == then)));
            let mut clone = file.try_clone().unwrap();
            step!(file.rewind());
            step!(clone.read(&mut buf).map(|n| (n, buf)));
            step!(file.stream_position());
            // How files are opened.
            let mut read_only = fs::File::open(at("file")).unwrap();
            step!(read_only.write(b"x"));
            step!(read_only.set_len(1));
            step!(fs::OpenOptions::new().open(at("file")).map(|_| ()));
            step!(fs::OpenOptions::new().read(true).truncate(true).open(at("file")).map(|_| ()));
            let mut append = fs::OpenOptions::new().append(true).create(true).open(at("file")).unwrap();
            step!(append.write_all(b"end"));
            step!(fs::read_to_string(at("file")));
            step!(append.read(&mut buf));
            step!(fs::File::options().write(true).create_new(true).mode(0o600).open(at("mode")).map(|_| ()));
            step!(fs::metadata(at("mode")).map(|meta| meta.permissions().mode() & 0o777));
            step!(fs::File::options().write(true).custom_flags(libc::O_DIRECTORY).open(at("mode")).map(|_| ()));
            step!(fs::File::options().write(true).truncate(true).open(at("file")).map(|_| ()));
            step!(fs::metadata(at("file")).map(|meta| meta.len()));
            log
        }
    };
}

program!(with_std, std::fs);
program!(with_greenling, greenling::fs);

#[test]
fn every_call_gives_what_std_gives() {
    let _guard = common::guard();
    let (theirs, ours) = (Folder::new(), Folder::new());
    let expected = with_std(&theirs.0);
    let got = with_greenling(&ours.0);
    for (expected, got) in expected.iter().zip(&got) {
        assert_eq!(expected, got);
    }
    assert_eq!(expected.len(), got.len());
    assert!(expected.len() > 80 && expected.iter().any(|line| line.contains("NotFound")), "{}", expected.len());
}

#[test]
fn others_run_while_a_file_is_read() {
    let _guard = common::guard();
    let folder = Folder::new();
    // To open a FIFO takes as long as the test likes.
    let fifo = folder.at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let path = fifo.clone();
    let reader = spawn(move || {
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        text
    });
    let turns = Rc::new(Cell::new(0));
    let seen = Rc::clone(&turns);
    let other = spawn(move || {
        for _ in 0..100 {
            seen.set(seen.get() + 1);
            yield_now();
        }
    });
    other.join().unwrap();
    assert!(!reader.is_finished());
    let mut writer = OpenOptions::new().write(true).open(&fifo).unwrap();
    writer.write_all(b"through the pipe").unwrap();
    drop(writer);
    assert_eq!(reader.join().unwrap(), "through the pipe");
    assert_eq!(turns.get(), 100);
}

#[test]
fn a_timeout_frees_the_caller_of_a_call_that_is_stuck() {
    let _guard = common::guard();
    let folder = Folder::new();
    let fifo = folder.at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let path = fifo.clone();
    let result = timeout(Duration::from_millis(50), || File::open(&path).map(|_| ()));
    assert_eq!(result.map_err(|error| error == TimeoutError::Elapsed).err(), Some(true));
    let path = fifo.clone();
    let victim = spawn(move || File::open(&path).map(|_| ()));
    yield_now();
    victim.kill();
    assert!(victim.join().map(drop).unwrap_err().is_killed());
    // Whatever of it has begun ends here: a writer lets all readers go.
    drop(OpenOptions::new().read(true).write(true).open(&fifo).unwrap());
}

#[test]
fn calls_that_are_stuck_and_given_up_leave_room_for_others_and_the_process_ends() {
    let _guard = common::guard();
    let output = common::child("calls_that_are_stuck_and_given_up_leave_room_for_others_and_the_process_ends", || {
        let folder = Folder::new();
        let fifo = folder.at("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let pool = greenling::offload::default_pool();
        for round in 1..=200 {
            let path = fifo.clone();
            let victim = spawn(move || File::open(&path).map(drop));
            yield_now();
            while pool.stats().running < round {
                greenling::sleep(Duration::from_micros(100));
            }
            victim.kill();
            assert!(victim.join().map(drop).unwrap_err().is_killed());
        }
        let stats = pool.stats();
        assert_eq!((stats.running_abandoned, stats.queued), (200, 0));
        assert!(!fs::read("/proc/self/stat").unwrap().is_empty());
        assert_eq!(greenling::blocking(|| 7), 7);
        // None of the 200 has ended.
        assert_eq!(pool.stats().running_abandoned, 200);
        println!("all well");
    });
    assert!(output.status.success(), "{output:?}");
    assert!(common::stdout(&output).contains("all well"));
}

#[test]
fn a_file_of_a_call_that_was_given_up_stays_open_for_it() {
    let _guard = common::guard();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(reader));
    let result = timeout(Duration::from_millis(300), || (&file).read(&mut [0; 4]).map(drop));
    assert!(result.is_err(), "no writer");
    // The read goes on, on its OS thread.
    let file = file.try_into_std().unwrap_err();
    writer.write_all(b"x").unwrap();
    let mut file = Some(file);
    while let Some(shared) = file.take() {
        match shared.try_into_std() {
            Ok(_) => break,
            Err(still) => file = Some(still),
        }
        greenling::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_thread_that_unwinds_still_has_its_files() {
    let _guard = common::guard();
    let folder = Folder::new();
    let (path, other) = (folder.at("a"), folder.at("b"));
    fs::write(&other, "temporary").unwrap();
    let (theirs, temporary) = (path.clone(), other.clone());
    let parks = Rc::new(Cell::new(false));
    let mark = Rc::clone(&parks);
    let writer = spawn(move || {
        // Flushes in its destructor.
        let mut buffered = std::io::BufWriter::new(File::create(&theirs).unwrap());
        buffered.write_all(b"not lost").unwrap();
        let _cleanup = OnDrop::new(|| no_switch(|| fs::remove_file(&temporary).unwrap()));
        mark.set(true);
        greenling::thread::park();
    });
    while !parks.get() {
        greenling::sleep(Duration::from_micros(100));
    }
    writer.kill();
    assert!(writer.join().unwrap_err().is_killed());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not lost");
    assert!(!other.exists());
}

#[test]
fn a_file_may_be_used_by_several_hubs_at_once() {
    let _guard = common::guard();
    let folder = Folder::new();
    let file =
        std::sync::Arc::new(File::options().read(true).write(true).create_new(true).open(folder.at("shared")).unwrap());
    let hubs: Vec<_> = (0..3_u8)
        .map(|hub| {
            let file = std::sync::Arc::clone(&file);
            std::thread::spawn(move || {
                let writers: Vec<_> = (0..10_u8)
                    .map(|n| {
                        let file = std::sync::Arc::clone(&file);
                        spawn(move || file.write_all_at(&[10 * hub + n], u64::from(10 * hub + n)).unwrap())
                    })
                    .collect();
                for writer in writers {
                    writer.join().unwrap();
                }
            })
        })
        .collect();
    for hub in hubs {
        hub.join().unwrap();
    }
    let mut bytes = Vec::new();
    (&*file).read_to_end(&mut bytes).unwrap();
    assert!(bytes.into_iter().eq(0..30));
}

#[test]
fn large_reads_and_writes_are_whole() {
    let _guard = common::guard();
    let folder = Folder::new();
    let bytes: Vec<u8> = (0..2 * fs::MOST + 5).map(|n| (n % 251) as u8).collect();
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(folder.at("large")).unwrap();
    assert_eq!(file.write(&bytes).unwrap(), fs::MOST, "one call");
    file.write_all(&bytes[fs::MOST..]).unwrap();
    assert_eq!(fs::read(folder.at("large")).unwrap(), bytes);
    let mut back = vec![0; bytes.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == bytes);
}

#[test]
fn a_killed_iteration_has_no_more_entries_and_no_error() {
    let _guard = common::guard();
    let folder = Folder::new();
    for n in 0..10 {
        std::fs::write(folder.at(&n.to_string()), "").unwrap();
    }
    let mut entries = fs::read_dir(&folder.0).unwrap();
    // Too late before it begins: the job may or may not be taken out in time, and either way nothing hangs.
    let result = timeout(Duration::ZERO, || entries.next().is_some());
    match result {
        Ok(_) => {}
        Err(_) => assert!(entries.next().is_none()),
    }
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 10);
}

#[test]
fn a_file_can_be_sent_and_shared() {
    fn sendable<T: Send + Sync>() {}
    sendable::<File>();
    sendable::<OpenOptions>();
    sendable::<fs::DirEntry>();
    let error = File::open("/no/such/file").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

// ---- locks ----------------------------------------------------------------------------------------------------------

/// Two openings of one file: to the kernel they are strangers.
fn two_openings(folder: &Folder) -> (File, File) {
    let path = folder.at("locked");
    let first = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    (first, File::open(&path).unwrap())
}

fn is_locked(result: Result<(), fs::TryLockError>) -> bool {
    match result {
        Ok(()) => false,
        Err(fs::TryLockError::WouldBlock) => true,
        Err(fs::TryLockError::Error(error)) => panic!("{error}"),
    }
}

#[test]
fn a_lock_excludes_others_and_shared_ones_only_the_exclusive() {
    let folder = Folder::new();
    let (one, other) = two_openings(&folder);
    one.lock().unwrap();
    assert!(is_locked(other.try_lock()) && is_locked(other.try_lock_shared()));
    assert_eq!(std::io::Error::from(other.try_lock().unwrap_err()).kind(), ErrorKind::WouldBlock);
    one.unlock().unwrap();
    one.lock_shared().unwrap();
    assert!(!is_locked(other.try_lock_shared()) && is_locked(other.try_lock()));
    one.unlock().unwrap();
    assert!(!is_locked(other.try_lock()), "its own shared lock becomes an exclusive one");
    let again = other.try_clone().unwrap();
    drop(other);
    assert!(is_locked(one.try_lock()), "a duplicate is the same open file");
    drop(again);
    assert!(!is_locked(one.try_lock()), "the last descriptor gave it back");
    one.unlock().unwrap();
    one.unlock().unwrap();
}

#[test]
fn others_run_while_a_lock_is_waited_for() {
    let _guard = common::guard();
    let folder = Folder::new();
    let (ours, theirs) = two_openings(&folder);
    ours.lock().unwrap();
    let waiting = spawn(move || {
        theirs.lock().unwrap();
        theirs
    });
    // Long enough for several tries; each must find it locked.
    for _ in 0..20 {
        greenling::sleep(Duration::from_millis(2));
        assert!(!waiting.is_finished());
    }
    ours.unlock().unwrap();
    let theirs = waiting.join().unwrap();
    assert!(is_locked(ours.try_lock()));
    drop(theirs);
    assert!(!is_locked(ours.try_lock()));
}

/// A job on an OS thread would get the lock later, and keep it for as long as the file is open.
#[test]
fn a_waiter_that_is_killed_or_times_out_never_gets_the_lock() {
    let _guard = common::guard();
    let folder = Folder::new();
    let (ours, theirs) = two_openings(&folder);
    let theirs = Rc::new(theirs);
    ours.lock().unwrap();
    let waiting = spawn({
        let theirs = Rc::clone(&theirs);
        move || theirs.lock()
    });
    yield_now();
    assert!(waiting.kill());
    assert!(waiting.join().unwrap_err().is_killed());
    let late = timeout(Duration::from_millis(5), || theirs.lock_shared());
    assert!(matches!(late, Err(TimeoutError::Elapsed)));
    ours.unlock().unwrap();
    // Far longer than the longest pause, with the file of those that gave up still open.
    greenling::sleep(Duration::from_millis(100));
    assert!(!is_locked(ours.try_lock()));
    assert!(is_locked(theirs.try_lock()));
}

#[test]
fn many_waiters_each_get_the_lock_once() {
    let _guard = common::guard();
    let folder = Folder::new();
    let inside = Rc::new(Cell::new(0));
    let path = folder.at("locked");
    std::fs::write(&path, "").unwrap();
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let (inside, path) = (Rc::clone(&inside), path.clone());
            spawn(move || {
                let file = File::open(path).unwrap();
                file.lock().unwrap();
                assert_eq!(inside.replace(1), 0, "two are inside");
                yield_now();
                inside.set(0);
                file.unlock().unwrap();
            })
        })
        .collect();
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

#[test]
fn where_waiting_is_refused_a_free_lock_is_taken_and_a_taken_one_refused() {
    let _guard = common::guard();
    let folder = Folder::new();
    let (ours, theirs) = two_openings(&folder);
    no_switch(|| ours.lock()).unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| no_switch(|| theirs.lock())));
    assert!(panic.is_err(), "it would have to wait");
    let seen = Rc::new(Cell::new(None));
    let unwinding = spawn({
        let seen = Rc::clone(&seen);
        move || {
            let _locks = OnDrop::new(|| {
                let refused = theirs.lock().is_err();
                ours.unlock().unwrap();
                seen.set(Some((refused, theirs.lock().is_ok())));
            });
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    });
    assert!(unwinding.join().unwrap_err().is_panic());
    assert_eq!(seen.get(), Some((true, true)));
}

#[test]
fn an_os_thread_ends_although_a_lock_is_waited_for() {
    let _guard = common::guard();
    let folder = Folder::new();
    let (ours, theirs) = two_openings(&folder);
    ours.lock().unwrap();
    std::thread::spawn(move || {
        drop(spawn(move || theirs.lock()));
        yield_now();
    })
    .join()
    .unwrap();
    ours.unlock().unwrap();
    assert!(!is_locked(ours.try_lock()));
}

// ---- directories, links, descriptors --------------------------------------------------------------------------------

#[test]
fn a_builder_of_directories_makes_what_std_s_makes() {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let _guard = common::guard();
    let folder = Folder::new();
    let shallow = fs::DirBuilder::new().create(folder.at("a/b")).unwrap_err();
    assert_eq!(shallow.kind(), ErrorKind::NotFound);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.at("a/b")).unwrap();
    for made in ["a", "a/b"] {
        assert_eq!(std::fs::metadata(folder.at(made)).unwrap().permissions().mode() & 0o777, 0o700, "{made}");
    }
    fs::DirBuilder::new().recursive(true).create(folder.at("a/b")).unwrap();
    assert_eq!(fs::DirBuilder::new().create(folder.at("a")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::DirBuilder::new().create(folder.at("plain")).unwrap();
    std::fs::DirBuilder::new().create(folder.at("of std")).unwrap();
    let mode = |name: &str| std::fs::metadata(folder.at(name)).unwrap().permissions().mode();
    assert_eq!(mode("plain"), mode("of std"));
}

#[test]
fn links_and_owners_are_changed_as_by_std() {
    use greenling::os::unix::fs::{chown, fchown, lchown, symlink};
    let _guard = common::guard();
    let folder = Folder::new();
    let (target, link) = (folder.at("target"), folder.at("link"));
    symlink(&target, &link).unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), target);
    assert_eq!(symlink(&target, &link).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(chown(&link, None, None).unwrap_err().kind(), ErrorKind::NotFound, "it follows the link");
    lchown(&link, None, None).unwrap();
    fchown(File::create(&target).unwrap(), None, None).unwrap();
    chown(&link, None, None).unwrap();
}

#[test]
fn a_file_becomes_a_descriptor_of_the_same_open_file() {
    use std::os::fd::{IntoRawFd, OwnedFd};
    let _guard = common::guard();
    let folder = Folder::new();
    let mut file = File::create(folder.at("file")).unwrap();
    file.write_all(b"green").unwrap();
    let fd = OwnedFd::from(file);
    let mut file = File::from(fd);
    file.write_all(b"ling").unwrap();
    let fd = file.into_raw_fd();
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    assert_eq!(std::fs::read(link).unwrap(), b"greenling", "the position went along");
}
