//! A disk in memory: a tree of names, files with contents, and what a loss of power leaves of both.
//!
//! A state machine without a kernel and without a clock: calls are told what time it is, and the order and the errors
//! are those of Linux for a user that may do everything. Each file and each directory is there twice, as programs see
//! it and as it would be after a crash:
//!
//! ```text
//!   write, set_len  -->  bytes     programs read these
//!                        pending   changes since the last sync, in order
//!   sync            -->  durable   bytes that a crash leaves, with some pages of `pending`
//!
//!   create, rename  -->  entries   programs see these
//!                        journal   changes of names since the last sync of their directory, in order
//!   sync of the directory -> durable   names that a crash leaves, with the first of the `journal`
//! ```
//!
//! So a file that was synced is lost, name and all, unless its directory was synced, too, as fsync(2) says. A sync of a
//! directory makes durable what came before it in the journal as well, so that a rename from one directory into another
//! is there in whole or not at all. A sync that has failed leaves its changes behind for ever: programs read them, no
//! later sync takes them along, and a crash loses them; this is what Linux does with pages that could not be written.
//!
//! * Invariant disk-1: what is durable changes in a sync and in a crash only.
#![forbid(unsafe_code)]

mod file;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::network::errno::{Errno, Result};
pub(crate) use file::{Lock, Options, Whence};

/// The number of a node.
pub(crate) type Ino = u64;

/// The number of an open file. None is given out twice.
pub(crate) type OpenId = u64;

/// A name in a directory.
type Name = Vec<u8>;

/// The node of the directory that all paths begin at.
const ROOT: Ino = 1;

/// The bytes that reach the disk in one piece, or not.
const PAGE: u64 = 4096;

/// How many bytes the contents of all files may have, unless told otherwise.
const CAPACITY: u64 = 1 << 30;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with contents.
    File,
    /// A table of names.
    Dir,
    /// A path that stands in for another one.
    Link,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Whether it has contents, names or a path.
    pub(crate) kind: Kind,
    /// The number of the node.
    pub(crate) ino: Ino,
    /// The bytes of the contents.
    pub(crate) len: u64,
    /// The rights, without the kind.
    pub(crate) mode: u32,
    /// When it was modified, in nanoseconds.
    pub(crate) modified: u64,
    /// When it was read, in nanoseconds: when it was made, or as a program has set it.
    pub(crate) accessed: u64,
}

/// A change of contents that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    /// Bytes at an offset.
    Write(u64, Vec<u8>),
    /// A length that cuts the file off, or extends it with zeros.
    Len(u64),
}

/// The contents of a file.
#[derive(Clone, Debug, Default)]
struct Contents {
    /// What a program reads now.
    bytes: Vec<u8>,
    /// What was there at the last sync.
    durable: Vec<u8>,
    /// The changes since the last sync, in order.
    pending: Vec<Change>,
}

/// The names in a directory.
#[derive(Clone, Debug)]
struct Dir {
    /// The directory that has this one; the root has itself.
    parent: Ino,
    /// What a program finds now.
    entries: BTreeMap<Name, Ino>,
    /// What a crash leaves, without the journal.
    durable: BTreeMap<Name, Ino>,
}

/// What a node has.
#[derive(Clone, Debug)]
enum Body {
    /// Bytes, now and after a crash.
    File(Contents),
    /// Where names lead, now and after a crash.
    Dir(Dir),
    /// The path that a symbolic link stands for.
    Link(Vec<u8>),
}

/// A file, a directory or a symbolic link.
#[derive(Clone, Debug)]
struct Node {
    /// Its contents, its names or its path.
    body: Body,
    /// The rights, without the kind of node.
    mode: u32,
    /// When it was modified, in nanoseconds.
    modified: u64,
    /// When it was read, in nanoseconds.
    accessed: u64,
    /// How many names it has.
    names: u32,
    /// How many open files it has.
    opens: u32,
    /// The open file that has locked it for itself.
    exclusive: Option<OpenId>,
    /// The open files that have locked it together.
    shared: BTreeSet<OpenId>,
}

/// What is known of an open file.
#[derive(Clone, Debug)]
struct Open {
    /// The node that it is of.
    ino: Ino,
    /// Where the next read or write begins.
    position: u64,
    /// How it was opened.
    options: Options,
    /// The number of handles of the program.
    handles: u32,
}

/// One change of names: which name in which directory leads where from now on. All of it is durable, or nothing.
type Renaming = Vec<(Ino, Name, Option<Ino>)>;

/// The disk of one host.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The nodes that a name leads to, now or after a crash, and those that are open.
    nodes: BTreeMap<Ino, Node>,
    /// The number of the next node.
    next_ino: Ino,
    /// What programs have open.
    opens: BTreeMap<OpenId, Open>,
    /// The number of the next open file.
    next_open: OpenId,
    /// The changes of names that are not durable.
    journal: Vec<Renaming>,
    /// The bytes of all contents.
    used: u64,
    /// How many they may be.
    capacity: u64,
    /// Whether the host is down: no call reaches the disk.
    is_down: bool,
    /// The time, in nanoseconds.
    now: u64,
}

impl Disk {
    /// Makes a disk that has an empty directory `/tmp`, at a time in nanoseconds.
    pub(crate) fn new(now: u64) -> Disk {
        let mut disk = Disk {
            nodes: BTreeMap::new(),
            next_ino: ROOT,
            opens: BTreeMap::new(),
            next_open: 1,
            journal: Vec::new(),
            used: 0,
            capacity: CAPACITY,
            is_down: false,
            now,
        };
        let (root, tmp) = (disk.make(Disk::empty_dir(), 0o755), disk.make(Disk::empty_dir(), 0o777));
        disk.enter(vec![(root, b"tmp".to_vec(), Some(tmp))]);
        disk.commit(root);
        disk
    }

    /// Returns a directory without names, directly below the root.
    fn empty_dir() -> Body {
        Body::Dir(Dir { parent: ROOT, entries: BTreeMap::new(), durable: BTreeMap::new() })
    }

    /// Tells the time, in nanoseconds.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Sets how many bytes the contents of all files may have.
    pub(crate) fn set_capacity(&mut self, capacity: Option<u64>) {
        self.capacity = capacity.unwrap_or(CAPACITY);
    }

    /// Fails while the host is down.
    ///
    /// # Errors
    /// `EIO`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_down { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Makes a node without a name.
    fn make(&mut self, body: Body, mode: u32) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        let (modified, accessed) = (self.now, self.now);
        let (names, opens, exclusive, shared) = (0, 0, None, BTreeSet::new());
        self.nodes.insert(ino, Node { body, mode, modified, accessed, names, opens, exclusive, shared });
        ino
    }

    /// Returns the node with this number.
    fn node(&self, ino: Ino) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    /// Returns a node, to change it.
    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    /// Returns the names in the node with this number.
    fn dir(&self, ino: Ino) -> Result<&Dir> {
        match &self.node(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Returns what is known of a node.
    fn stat_of(&self, ino: Ino) -> Result<Stat> {
        let node = self.node(ino)?;
        let (kind, len) = match &node.body {
            Body::File(contents) => (Kind::File, contents.bytes.len() as u64),
            Body::Dir(_) => (Kind::Dir, 0),
            Body::Link(target) => (Kind::Link, target.len() as u64),
        };
        Ok(Stat { kind, ino, len, mode: node.mode, modified: node.modified, accessed: node.accessed })
    }

    /// Changes names, and writes that into the journal.
    fn enter(&mut self, renaming: Renaming) {
        for (dir, name, to) in &renaming {
            let now = self.now;
            let Some(Node { body: Body::Dir(entries), modified, .. }) = self.nodes.get_mut(dir) else { continue };
            *modified = now;
            let before = match to {
                Some(to) => entries.entries.insert(name.clone(), *to),
                None => entries.entries.remove(name),
            };
            if let Some(node) = to.and_then(|to| self.nodes.get_mut(&to)) {
                node.names += 1;
                if let Body::Dir(moved) = &mut node.body {
                    moved.parent = *dir;
                }
            }
            if let Some(node) = before.and_then(|before| self.nodes.get_mut(&before)) {
                node.names -= 1;
            }
        }
        self.journal.push(renaming);
    }

    /// Makes durable what the journal has up to the latest change in a directory.
    fn commit(&mut self, dir: Ino) {
        let touches = |renaming: &Renaming| renaming.iter().any(|(touched, ..)| *touched == dir);
        if let Some(last) = self.journal.iter().rposition(touches) {
            self.commit_first(last + 1);
        }
    }

    /// Makes durable the first `count` changes of the journal.
    fn commit_first(&mut self, count: usize) {
        for (dir, name, to) in self.journal.drain(..count).flatten() {
            let Some(Node { body: Body::Dir(entries), .. }) = self.nodes.get_mut(&dir) else { continue };
            match to {
                Some(to) => entries.durable.insert(name, to),
                None => entries.durable.remove(&name),
            };
        }
        self.free();
    }

    /// Frees the nodes that no name leads to, now or after a crash, and that are not open.
    fn free(&mut self) {
        let journalled: BTreeSet<Ino> = self.journal.iter().flatten().filter_map(|(_, _, to)| *to).collect();
        let mut durable = BTreeSet::new();
        for node in self.nodes.values() {
            if let Body::Dir(dir) = &node.body {
                durable.extend(dir.durable.values().copied());
            }
        }
        let is_free = |ino: &Ino, node: &Node| {
            *ino != ROOT && node.names == 0 && node.opens == 0 && !durable.contains(ino) && !journalled.contains(ino)
        };
        self.nodes.retain(|ino, node| !is_free(ino, node));
        self.count();
    }

    /// Counts the bytes of all contents.
    fn count(&mut self) {
        let is_there = |node: &&Node| node.names > 0 || node.opens > 0;
        let len = |node: &Node| if let Body::File(contents) = &node.body { contents.bytes.len() as u64 } else { 0 };
        self.used = self.nodes.values().filter(is_there).map(len).sum();
    }

    /// Makes an open file durable: its contents, or the names in it.
    pub(crate) fn sync(&mut self, id: OpenId) -> Result<()> {
        let ino = self.open_file(id)?.ino;
        if let Body::File(contents) = &mut self.node_mut(ino)?.body {
            let (durable, pending) = (&mut contents.durable, std::mem::take(&mut contents.pending));
            pending.into_iter().for_each(|change| change.apply(durable));
        } else {
            self.commit(ino);
        }
        Ok(())
    }

    /// Fails to make an open file durable: what was written since the last sync never will be.
    pub(crate) fn fail_sync(&mut self, id: OpenId) -> Result<()> {
        let ino = self.open_file(id)?.ino;
        if let Body::File(contents) = &mut self.node_mut(ino)?.body {
            contents.pending.clear();
        }
        Err(Errno::EIO)
    }

    /// Loses the power. `choose` is asked for a number below its argument: how much of what was not synced is there
    /// all the same. 0 is nothing.
    pub(crate) fn crash(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        self.is_down = true;
        self.opens.clear();
        let kept = choose(self.journal.len() + 1);
        for node in self.nodes.values_mut() {
            (node.opens, node.exclusive) = (0, None);
            node.shared.clear();
        }
        self.commit_first(kept);
        self.journal.clear();
        self.reload();
        for node in self.nodes.values_mut() {
            if let Body::File(contents) = &mut node.body {
                contents.crash(choose);
            }
        }
        self.count();
    }

    /// Makes the disk usable again after a crash.
    pub(crate) fn restart(&mut self) {
        self.is_down = false;
    }

    /// Makes the durable names those that programs see, and forgets what they do not lead to.
    fn reload(&mut self) {
        let (mut found, mut next) = (BTreeMap::from([(ROOT, 1)]), vec![ROOT]);
        while let Some(ino) = next.pop() {
            let Some(Node { body: Body::Dir(dir), .. }) = self.nodes.get_mut(&ino) else { continue };
            dir.entries = dir.durable.clone();
            for child in dir.entries.values().copied().collect::<Vec<_>>() {
                let names = found.entry(child).or_insert(0);
                *names += 1;
                if *names == 1 {
                    next.push(child);
                }
                if let Some(Node { body: Body::Dir(below), .. }) = self.nodes.get_mut(&child) {
                    below.parent = ino;
                }
            }
        }
        self.nodes.retain(|ino, _| found.contains_key(ino));
        for (ino, node) in &mut self.nodes {
            node.names = found.get(ino).copied().unwrap_or(0);
        }
    }
}

impl Change {
    /// Makes the change in `bytes`.
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Change::Len(len) => bytes.resize(len as usize, 0),
            Change::Write(at, new) => {
                let (at, end) = (at as usize, at as usize + new.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(&new);
            }
        }
    }

    /// Divides the change into the pieces that reach the disk in whole or not at all.
    fn pieces(self) -> Vec<Change> {
        let Change::Write(mut at, mut bytes) = self else { return vec![self] };
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let len = bytes.len().min((PAGE - at % PAGE) as usize);
            let rest = bytes.split_off(len);
            pieces.push(Change::Write(at, bytes));
            (at, bytes) = (at + len as u64, rest);
        }
        pieces
    }
}

impl Contents {
    /// Loses the power: the first pieces of what was not synced may be there, but for one of them.
    fn crash(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut pieces: Vec<Change> = std::mem::take(&mut self.pending).into_iter().flat_map(Change::pieces).collect();
        let kept = if pieces.is_empty() { 0 } else { choose(pieces.len() + 1) };
        pieces.truncate(kept);
        // A disk writes in any order: a piece before the last one may be missing.
        let missing = if kept > 1 { choose(kept) } else { 0 };
        if missing > 0 {
            pieces.remove(missing - 1);
        }
        pieces.into_iter().for_each(|piece| piece.apply(&mut self.durable));
        self.bytes.clone_from(&self.durable);
    }
}
