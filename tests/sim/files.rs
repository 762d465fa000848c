//! Files on simulated disks: as std's on a real one, and what a crash, a full disk and a failing one leave.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use greenling::fs::{self, File, OpenOptions};
use greenling::os::unix::fs::symlink;
use greenling::sim::{self, Config, FailureKind, FaultKind, Faults, Strategy};
use greenling::{sleep, spawn, timeout};

/// All schedules.
const ALL: Strategy = Strategy::Exhaustive { choices: usize::MAX };

/// Makes a directory durable.
fn sync_dir(path: &str) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    /// Returns a number below `count`.
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % count
    }

    /// Returns one of `all`.
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Writes a result as text: what it is of an error that must be the same.
fn text<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(done) => format!("{done:?}"),
        // std has words of its own for arguments that contradict each other.
        Err(error) if error.kind() == ErrorKind::InvalidInput => String::from("InvalidInput"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

/// The paths of the random calls.
const PATHS: &[&str] =
    &["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "d/l", "d/", "./a", "d/../b", "l/a", "no/x"];

/// Makes a function that makes the calls of `seed` below `root`, with one crate's files, and returns what they said.
macro_rules! calls_of {
    ($name:ident, $fs:ident, $symlink:path) => {
        fn $name(root: &Path, seed: u64) -> Vec<String> {
            let (mut numbers, mut said) = (Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1), Vec::new());
            let mut files: Vec<$fs::File> = Vec::new();
            for step in 0..80_u8 {
                let (one, two) = (root.join(numbers.one_of(PATHS)), root.join(numbers.one_of(PATHS)));
                let (call, bits, at) = (numbers.below(24), numbers.below(64), numbers.below(30));
                let is = |bit: u64| bits & bit != 0;
                let file = files.get_mut(at as usize % 4);
                said.push(match (call, file) {
                    (0..4, _) => {
                        let mut options = $fs::OpenOptions::new();
                        options.read(is(1)).write(is(2)).append(bits % 5 == 0).truncate(is(4)).create(is(8));
                        let opened = options.create_new(bits > 55).open(one);
                        let said = text(opened.as_ref().map(|_| ()).map_err(|error| match error.raw_os_error() {
                            Some(number) => io::Error::from_raw_os_error(number),
                            None => error.kind().into(),
                        }));
                        files.extend(opened.ok().filter(|_| at > 5));
                        if files.len() > 4 {
                            files.remove(0);
                        }
                        said
                    }
                    (4, Some(file)) => {
                        let mut buf = [0; 9];
                        text(file.read(&mut buf[..at as usize % 10])) + &format!("{buf:?}")
                    }
                    (5, Some(file)) => {
                        let mut buf = [0; 9];
                        text(file.read_at(&mut buf, at)) + &format!("{buf:?}")
                    }
                    (6 | 7, Some(file)) => text(file.write(&vec![step; bits as usize])),
                    (8, Some(file)) => text(file.write_at(&vec![step; bits as usize], at)),
                    (9, Some(file)) if file.metadata().unwrap().is_file() => {
                        let by = at as i64 - 15;
                        text(
                            file.seek(
                                [SeekFrom::Start(at), SeekFrom::End(by), SeekFrom::Current(by)][bits as usize % 3],
                            ),
                        )
                    }
                    (10, Some(file)) => text(file.set_len(bits)),
                    (11, Some(file)) => {
                        let clone = file.try_clone().unwrap();
                        text(file.metadata().map(|metadata| (metadata.is_dir(), metadata.is_file())))
                            + &text(clone.sync_all())
                    }
                    (12, _) => text($fs::create_dir(one)),
                    (13, _) => text($fs::create_dir_all(one)),
                    (14, _) => text($fs::remove_dir(one)),
                    (15, _) => text(if is(1) { $fs::remove_dir_all(one) } else { $fs::remove_file(one) }),
                    (16, _) => text($fs::rename(one, two)),
                    (17, _) => text(if is(1) {
                        $fs::hard_link(one, two)
                    } else {
                        $symlink(["a", "d/e"][at as usize % 2], two)
                    }),
                    (18, _) => text($fs::read_link(&one)) + &text($fs::exists(one)),
                    (19, _) => text($fs::read_dir(one).map(|entries| {
                        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
                        names.sort();
                        names
                    })),
                    (20, _) => {
                        let metadata = if is(1) { $fs::metadata(one) } else { $fs::symlink_metadata(one) };
                        text(metadata.map(|found| {
                            let len = if found.is_file() { found.len() } else { 0 };
                            (found.is_dir(), found.is_file(), found.is_symlink(), len)
                        }))
                    }
                    (21, _) => text($fs::canonicalize(one).map(|path| path.strip_prefix(root).unwrap().to_owned())),
                    (22, _) => text($fs::write(&one, vec![step; 3])) + &text($fs::read(two)),
                    // A file that is copied to itself is emptied first, or not: std asks the kernel to do it.
                    (23, _) if one != two => text($fs::read_to_string(&one)) + &text($fs::copy(one, two)),
                    _ => String::new(),
                });
            }
            said
        }
    };
}

use std::fs as std_fs;
calls_of!(calls_in_life, std_fs, std::os::unix::fs::symlink);
calls_of!(calls_simulated, fs, symlink);

#[test]
fn random_calls_say_what_they_say_on_a_real_disk() {
    let mut count = 0;
    for seed in 0..400 {
        let root = std::env::temp_dir().join(format!("greenling-sim-{}-{seed}", std::process::id()));
        std_fs::create_dir(&root).unwrap();
        let life = calls_in_life(&root.canonicalize().unwrap(), seed);
        std_fs::remove_dir_all(root).unwrap();
        let simulated = sim::run(seed, || {
            fs::create_dir("/tmp/root").unwrap();
            calls_simulated(Path::new("/tmp/root"), seed)
        });
        count += life.iter().filter(|said| !said.is_empty()).count();
        for (step, (life, simulated)) in life.iter().zip(&simulated).enumerate() {
            assert_eq!(life, simulated, "seed {seed}, call {step}");
        }
    }
    println!("{count} calls");
    assert!(count > 15_000);
}

#[test]
fn a_file_is_what_std_says_and_its_times_are_virtual() {
    sim::run(1, || {
        let mut file = File::options().read(true).write(true).create(true).open("note").unwrap();
        file.write_all(b"hello").unwrap();
        let made = file.metadata().unwrap().modified().unwrap();
        sleep(Duration::from_secs(3600));
        (&file).write_all(b", world").unwrap();
        let later = fs::metadata("/note").unwrap();
        assert_eq!(later.modified().unwrap().duration_since(made).unwrap().as_secs(), 3600);
        assert_eq!((later.len(), later.is_file(), later.permissions().mode() & 0o777), (12, true, 0o644));
        file.set_modified(made).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), made);
        fs::set_permissions("note", std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // One position for a clone, one file for all names, and a file that lives as long as it is open.
        let mut clone = file.try_clone().unwrap();
        clone.seek(SeekFrom::Start(7)).unwrap();
        fs::remove_file("note").unwrap();
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), fs::exists("note").unwrap()), ("world", false));
        // The descriptor is none to the kernel, and finds its way back.
        let mut outside = file.try_into_std().unwrap();
        assert!(outside.read(&mut [0]).is_err());
        let mut back = File::from(outside);
        back.rewind().unwrap();
        assert_eq!(greenling::io::copy(&mut back, &mut File::create("copy").unwrap()).unwrap(), 12);
        assert_eq!(fs::read_to_string("copy").unwrap(), "hello, world");
        let names: Vec<_> = fs::read_dir("/").unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(names.iter().map(|entry| entry.path()).collect::<Vec<_>>(), [Path::new("/copy"), Path::new("/tmp")]);
        assert!(names[0].file_type().unwrap().is_file() && names[1].metadata().unwrap().is_dir());
    });
}

#[test]
fn each_host_has_a_disk_and_a_file_lock_is_waited_for() {
    sim::run(1, || {
        fs::write("name", "main").unwrap();
        let other = sim::host("db", || fs::read("name").unwrap_err().kind());
        assert_eq!(other.join().unwrap(), ErrorKind::NotFound);
        let (ours, theirs) = (File::open("name").unwrap(), File::open("name").unwrap());
        ours.lock().unwrap();
        assert!(matches!(theirs.try_lock_shared(), Err(fs::TryLockError::WouldBlock)));
        let waiter = spawn(move || theirs.lock_shared());
        sleep(Duration::from_secs(1));
        assert!(!waiter.is_finished());
        drop(ours);
        waiter.join().unwrap().unwrap();
        // A kill and a time limit reach a call, which then has not happened.
        assert!(timeout(Duration::ZERO, || fs::write("late", "")).is_err());
        assert!(!fs::exists("late").unwrap());
    });
}

#[test]
fn a_disk_that_is_full_takes_what_fits_and_then_nothing() {
    sim::run(1, || {
        sim::network().disk_space("localhost", 10);
        let mut file = File::create("a").unwrap();
        assert_eq!((file.write(&[1; 8]).unwrap(), file.write(&[2; 8]).unwrap()), (8, 2));
        assert_eq!(file.write(&[3]).unwrap_err().kind(), ErrorKind::StorageFull);
        file.rewind().unwrap();
        assert_eq!(file.write(&[4; 10]).unwrap(), 10, "what is there already needs no room");
        assert_eq!(file.set_len(11).unwrap_err().kind(), ErrorKind::StorageFull);
        fs::remove_file("a").unwrap();
        assert!(fs::write("b", [5]).is_err(), "the file is still open");
        drop(file);
        fs::write("b", [5; 10]).unwrap();
    });
}

/// A store on the host "db", which writes records to a log, and acknowledges each; the host crashes at some time. What
/// was acknowledged must be in the log.
fn store(log: fn(&mut File, u8) -> io::Result<()>, sync_name: bool) {
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let theirs = Rc::clone(&acknowledged);
    let server = sim::host("db", move || {
        let mut file = OpenOptions::new().append(true).create(true).open("/log")?;
        if sync_name {
            sync_dir("/")?;
        }
        for record in 1..4 {
            log(&mut file, record)?;
            theirs.borrow_mut().push(record);
        }
        io::Result::Ok(())
    });
    sleep(Duration::from_micros(500 + 1_000 * sim::choose(5) as u64));
    sim::network().crash("db").restart("db");
    drop(server.join());
    let there = sim::host("db", || {
        loop {
            match fs::read("/log") {
                Err(error) if error.kind() == ErrorKind::NotFound => break Vec::new(),
                // The disk fails for a moment.
                Err(_) => {}
                Ok(there) => break there,
            }
        }
    });
    let there = there.join().unwrap();
    let records: Vec<u8> = there.chunks_exact(5000).map(|record| record[0]).collect();
    assert!(records.starts_with(&acknowledged.borrow()), "acknowledged {acknowledged:?}, and there are {records:?}");
}

/// Writes a record of more than a page.
fn write_record(file: &mut File, record: u8) -> io::Result<()> {
    file.write_all(&[record; 5000])
}

/// Writes a record, and makes it durable.
fn write_durable(file: &mut File, record: u8) -> io::Result<()> {
    write_record(file, record)?;
    file.sync_data()
}

/// Writes a record, and tries again to make it durable after an error.
fn write_insistent(file: &mut File, record: u8) -> io::Result<()> {
    write_record(file, record)?;
    file.sync_data().or_else(|_| file.sync_data())
}

#[test]
fn a_log_without_a_sync_loses_what_was_acknowledged_and_one_with_a_sync_does_not() {
    let failure = Config::new().check(|| store(write_record, true)).unwrap_err();
    println!("{failure}");
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().contains("acknowledged "), "{failure}");
    assert!(failure.schedule().deviations() <= 1, "{failure}");
    // Nor does it help to sync the file, if its name is not there.
    let failure = Config::new().check(|| store(write_durable, false)).unwrap_err();
    assert!(failure.message().contains("there are []"), "{failure}");
    let explored = Config::new().strategy(ALL).check(|| store(write_durable, true)).unwrap();
    println!("{explored}");
    assert!(explored.is_complete());
    Config::new().check(|| store(write_durable, true)).unwrap();
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_the_next_one() {
    let disk_error = || Config::new().faults(Faults::new().only(&[FaultKind::DiskError]));
    // The error is told, and nothing is acknowledged.
    disk_error().check(|| store(write_durable, true)).unwrap();
    for failure in [
        disk_error().check_faults(|| store(write_insistent, true)),
        disk_error().check(|| store(write_insistent, true)),
    ] {
        let failure = failure.expect_err("the second sync says that all is well");
        assert!(failure.message().contains("acknowledged "), "{failure}");
        assert!(failure.trace().to_string().contains("fault: EIO"), "{}", failure.trace());
    }
}

/// Replaces a file while the power is lost. It must be the old one or the new one, in whole.
fn replace(replace: fn() -> io::Result<()>) {
    let server = sim::host("db", move || {
        fs::write("/config", [1; 9000])?;
        File::open("/config")?.sync_all()?;
        sync_dir("/")?;
        replace()
    });
    sleep(Duration::from_micros(2_500 + 500 * sim::choose(6) as u64));
    sim::network().crash("db").restart("db");
    drop(server.join());
    let there = sim::host("db", || fs::read("/config").unwrap()).join().unwrap();
    assert!(there == [1; 9000] || there == [2; 9000], "a file of {} bytes is torn", there.len());
}

#[test]
fn a_file_that_is_overwritten_is_torn_and_one_that_is_replaced_is_not() {
    let by_rename = || {
        fs::write("/new", [2; 9000])?;
        File::open("/new")?.sync_all()?;
        fs::rename("/new", "/config")?;
        sync_dir("/")
    };
    let explored = Config::new().strategy(ALL).schedules(100_000).check(|| replace(by_rename)).unwrap();
    println!("{explored}");
    assert!(explored.is_complete());
    let careless: [fn() -> io::Result<()>; 2] = [
        || fs::write("/config", [2; 9000]),
        // The name is durable before the contents are.
        || fs::write("/new", [2; 9000]).and_then(|()| fs::rename("/new", "/config")).and_then(|()| sync_dir("/")),
    ];
    for program in careless {
        let failure = Config::new().strategy(ALL).check(|| replace(program)).unwrap_err();
        assert!(failure.message().contains("is torn"), "{failure}");
    }
}

#[test]
fn a_dead_host_writes_nothing_and_its_files_are_gone() {
    /// Writes when it is dropped, as a buffer does.
    struct AtEnd(File);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            assert_eq!(self.0.write(b"late").unwrap_err().raw_os_error(), Some(libc::EBADF));
            assert_eq!(fs::write("/tmp/late", "late").unwrap_err().raw_os_error(), Some(libc::EIO));
        }
    }
    Config::new().strategy(Strategy::Fifo).run(|| {
        let server = sim::host("db", || {
            let _end = AtEnd(File::create("/tmp/a").unwrap());
            greenling::thread::park();
        });
        sleep(Duration::from_secs(1));
        sim::network().crash("db");
        assert!(server.join().unwrap_err().is_killed());
        sim::network().restart("db");
        let there = sim::host("db", || fs::read_dir("/tmp").unwrap().count());
        assert_eq!(there.join().unwrap(), 0, "no name was made durable");
    });
}

#[test]
fn faults_of_the_disk_strike_each_call_that_can_fail() {
    let kinds = [FaultKind::Short, FaultKind::NoSpace, FaultKind::DiskError, FaultKind::NoDescriptors];
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let swept = Config::new().strategy(Strategy::Fifo).faults(Faults::new().only(&kinds)).check_faults(|| {
        let program = || {
            fs::create_dir("/d")?;
            fs::write("/d/a", b"some text")?;
            let mut file = File::open("/d/a")?;
            file.sync_all()?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            assert_eq!(text, "some text");
            io::Result::Ok(())
        };
        if let Err(error) = program() {
            seen.lock().unwrap().insert(error.raw_os_error());
        }
    });
    assert!(swept.unwrap().is_complete());
    let seen = seen.into_inner().unwrap();
    assert!(seen.into_iter().eq([libc::EIO, libc::ENFILE, libc::EMFILE, libc::ENOSPC].map(Some)));
}
