//! Files: the same program over `std::fs` and `greenling::fs`, with the same results and errors; kill, timeout, unwinding.
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
    // A FIFO is a file whose open waits for as long as one likes.
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
fn a_file_of_a_call_that_was_given_up_stays_open_for_it() {
    let _guard = common::guard();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(reader));
    let result = timeout(Duration::from_millis(300), || (&file).read(&mut [0; 4]).map(drop));
    assert!(result.is_err(), "nobody writes");
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
