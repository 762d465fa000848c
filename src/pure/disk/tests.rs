//! What a crash leaves, and what is forgotten; that the calls say what Linux says, `tests/sim/files.rs` compares.
#![forbid(unsafe_code)]

use super::*;

/// For reading and writing, made if it is missing.
const BOTH: Options =
    Options { read: true, write: true, append: false, truncate: false, create: true, create_new: false, mode: 0o644 };

/// Opens a file, and writes `bytes` at its begin.
fn write(disk: &mut Disk, path: &str, bytes: &[u8]) -> OpenId {
    let id = disk.open(path.as_bytes(), BOTH).unwrap();
    assert_eq!(disk.write(id, None, bytes), Ok(bytes.len()));
    id
}

/// Makes the names in a directory durable.
fn sync_dir(disk: &mut Disk, path: &str) {
    let id = disk.open(path.as_bytes(), Options { read: true, ..Options::default() }).unwrap();
    disk.sync(id).unwrap();
    disk.close(id);
}

/// Loses the power, with `choices` of what is left; 0 when there are no more.
fn crash(disk: &mut Disk, choices: &[usize]) {
    let mut choices = choices.iter();
    disk.crash(&mut |of| choices.next().copied().unwrap_or(0).min(of - 1));
    disk.restart();
}

/// Returns the contents of a file; none if it is not there.
fn contents(disk: &mut Disk, path: &str) -> Option<Vec<u8>> {
    let id = disk.open(path.as_bytes(), Options { read: true, ..Options::default() }).ok()?;
    let mut bytes = vec![0; 100_000];
    let count = disk.read(id, None, &mut bytes).unwrap();
    bytes.truncate(count);
    disk.close(id);
    Some(bytes)
}

#[test]
fn what_was_synced_is_there_after_a_crash_and_the_rest_as_far_as_chosen() {
    for (choices, left) in [(&[][..], &b"aaaa"[..]), (&[0, 1], b"bbaa"), (&[0, 2], b"bbcc")] {
        let mut disk = Disk::new(0);
        let id = write(&mut disk, "/f", b"aaaa");
        disk.sync(id).unwrap();
        sync_dir(&mut disk, "/");
        disk.write(id, Some(0), b"bb").unwrap();
        disk.write(id, Some(2), b"cc").unwrap();
        crash(&mut disk, choices);
        assert_eq!(contents(&mut disk, "/f").unwrap(), left);
        assert_eq!(disk.read(id, None, &mut [0]), Err(Errno::EBADF), "what was open is gone");
    }
}

#[test]
fn a_write_is_torn_at_pages_and_one_of_them_may_be_missing() {
    let page = PAGE as usize;
    for (choices, expected) in [
        (&[0, 1][..], vec![1; 96]),
        (&[0, 2], vec![1; 96 + page]),
        (&[0, 3, 1], {
            let mut bytes = vec![1; 200 + page];
            bytes[..96].fill(0);
            bytes
        }),
    ] {
        let mut disk = Disk::new(0);
        let id = disk.open(b"/f", BOTH).unwrap();
        sync_dir(&mut disk, "/");
        // From shortly before the end of a page.
        disk.set_len(id, PAGE - 96).unwrap();
        disk.sync(id).unwrap();
        disk.write(id, Some(PAGE - 96), &vec![1; 200 + page]).unwrap();
        crash(&mut disk, choices);
        assert_eq!(contents(&mut disk, "/f").unwrap()[page - 96..], expected);
    }
}

#[test]
fn names_are_durable_with_their_directory_and_what_came_before() {
    let mut disk = Disk::new(0);
    disk.make_dir(b"/d", 0o755).unwrap();
    sync_dir(&mut disk, "/");
    let id = write(&mut disk, "/d/a", b"x");
    disk.sync(id).unwrap();
    disk.rename(b"/d/a", b"/b").unwrap();
    let mut other = Disk { journal: disk.journal.clone(), nodes: disk.nodes.clone(), ..Disk::new(0) };
    crash(&mut disk, &[]);
    assert_eq!((contents(&mut disk, "/d/a"), contents(&mut disk, "/b")), (None, None));
    // The file was made before it got its other name.
    sync_dir(&mut other, "/");
    crash(&mut other, &[]);
    assert_eq!((contents(&mut other, "/d/a"), contents(&mut other, "/b")), (None, Some(b"x".to_vec())));
    // What was removed comes back, too.
    other.remove_file(b"/b").unwrap();
    crash(&mut other, &[]);
    assert_eq!(contents(&mut other, "/b"), Some(b"x".to_vec()));
}

#[test]
fn a_failed_sync_leaves_what_it_was_for_behind() {
    let mut disk = Disk::new(0);
    let id = write(&mut disk, "/f", b"aaaa");
    sync_dir(&mut disk, "/");
    assert_eq!(disk.fail_sync(id), Err(Errno::EIO));
    disk.write(id, Some(2), b"b").unwrap();
    disk.sync(id).unwrap();
    assert_eq!(contents(&mut disk, "/f").unwrap(), b"aaba");
    crash(&mut disk, &[]);
    assert_eq!(contents(&mut disk, "/f").unwrap(), b"\0\0b");
}

#[test]
fn what_nothing_leads_to_is_forgotten() {
    let mut disk = Disk::new(0);
    let nodes = disk.nodes.len();
    for _ in 0..3 {
        let id = write(&mut disk, "/tmp/f", &[1; 1000]);
        disk.remove_file(b"/tmp/f").unwrap();
        assert_eq!(disk.used, 1000);
        sync_dir(&mut disk, "/tmp");
        disk.close(id);
        assert_eq!((disk.nodes.len(), disk.used, disk.journal.len()), (nodes, 0, 0));
    }
    // After a crash, too.
    write(&mut disk, "/tmp/f", &[1; 1000]);
    crash(&mut disk, &[]);
    assert_eq!((disk.nodes.len(), disk.used), (nodes, 0));
}

#[test]
fn a_host_that_is_down_reaches_nothing() {
    let mut disk = Disk::new(0);
    disk.crash(&mut |_| 0);
    assert_eq!(disk.open(b"/tmp/f", BOTH), Err(Errno::EIO));
    assert_eq!(disk.stat(b"/", true).err(), Some(Errno::EIO));
    disk.restart();
    assert!(disk.open(b"/tmp/f", BOTH).is_ok());
}

#[test]
fn a_file_that_was_removed_since_comes_back_with_its_name() {
    let mut disk = Disk::new(0);
    disk.make_dir(b"/d", 0o755).unwrap();
    let id = write(&mut disk, "/tmp/f", b"x");
    disk.sync(id).unwrap();
    disk.close(id);
    disk.remove_file(b"/tmp/f").unwrap();
    sync_dir(&mut disk, "/");
    // Of the two changes below /tmp, the first one is left.
    crash(&mut disk, &[1]);
    assert_eq!(contents(&mut disk, "/tmp/f").unwrap(), b"x");
}
