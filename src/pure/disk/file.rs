//! Open files: reads and writes at a position, lengths, locks.
#![forbid(unsafe_code)]

use super::{Body, Change, Contents, Disk, Errno, Ino, Node, Open, OpenId, Result, Stat};

/// How a file is opened; the words of std's `OpenOptions`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Whether it can be read.
    pub(crate) read: bool,
    /// Whether it can be written.
    pub(crate) write: bool,
    /// Whether each write goes to the end.
    pub(crate) append: bool,
    /// Whether it is made empty.
    pub(crate) truncate: bool,
    /// Whether it is made if it is missing.
    pub(crate) create: bool,
    /// Whether it is made, and must not be there.
    pub(crate) create_new: bool,
    /// The rights of a file that is made.
    pub(crate) mode: u32,
}

impl Options {
    /// Reports whether something can be written.
    pub(super) fn writes(self) -> bool {
        self.write || self.append
    }

    /// Fails if the options contradict each other, as std says it.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(super) fn check(self) -> Result<()> {
        let makes = self.truncate || self.create || self.create_new;
        let is_wrong =
            !self.read && !self.writes() || !self.writes() && makes || self.append && self.truncate && !self.create_new;
        if is_wrong { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// What a position is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whence {
    /// The first byte of the file.
    Start(u64),
    /// The byte behind the last one.
    End(i64),
    /// Where the file stands.
    Current(i64),
}

/// What a lock of a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// For one open file alone.
    Exclusive,
    /// For all that lock it so.
    Shared,
    /// What an open file has locked is free again.
    None,
}

impl Disk {
    /// Returns an open file.
    pub(super) fn open_file(&self, id: OpenId) -> Result<&Open> {
        self.opens.get(&id).ok_or(Errno::EBADF)
    }

    /// Notes that a node is open.
    pub(super) fn enter_open(&mut self, ino: Ino, options: Options) -> Result<OpenId> {
        self.node_mut(ino)?.opens += 1;
        let id = self.next_open;
        self.next_open += 1;
        self.opens.insert(id, Open { ino, position: 0, options, handles: 1 });
        Ok(id)
    }

    /// Counts another handle of an open file.
    pub(crate) fn duplicate(&mut self, id: OpenId) -> Result<()> {
        self.opens.get_mut(&id).ok_or(Errno::EBADF)?.handles += 1;
        Ok(())
    }

    /// Closes a handle; with the last one the file is closed.
    pub(crate) fn close(&mut self, id: OpenId) {
        let Some(open) = self.opens.get_mut(&id) else { return };
        open.handles -= 1;
        if open.handles > 0 {
            return;
        }
        let ino = open.ino;
        self.opens.remove(&id);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.opens -= 1;
            node.exclusive.take_if(|holder| *holder == id);
            node.shared.remove(&id);
            if node.opens == 0 && node.names == 0 {
                self.free();
            }
        }
    }

    /// Returns the contents that an open file can read.
    fn readable(&self, id: OpenId) -> Result<(&Open, &Contents)> {
        let open = self.open_file(id)?;
        match &self.node(open.ino)?.body {
            _ if !open.options.read => Err(Errno::EBADF),
            Body::File(contents) => Ok((open, contents)),
            _ => Err(Errno::EISDIR),
        }
    }

    /// Returns how many bytes a read of at most `len` gets, at the position or at an offset.
    pub(crate) fn readable_len(&self, id: OpenId, at: Option<u64>, len: usize) -> usize {
        self.readable(id).map_or(0, |(open, contents)| {
            let from = at.unwrap_or(open.position).min(contents.bytes.len() as u64);
            len.min(contents.bytes.len() - from as usize)
        })
    }

    /// Reads, at the position or at an offset. Returns how many bytes there were; 0 is the end.
    pub(crate) fn read(&mut self, id: OpenId, at: Option<u64>, buf: &mut [u8]) -> Result<usize> {
        let count = self.readable_len(id, at, buf.len());
        let (open, contents) = self.readable(id)?;
        let from = at.unwrap_or(open.position) as usize;
        if count > 0 {
            buf[..count].copy_from_slice(&contents.bytes[from..from + count]);
        }
        if let Some(open) = self.opens.get_mut(&id).filter(|_| at.is_none()) {
            open.position += count as u64;
        }
        Ok(count)
    }

    /// Writes, at the position or at an offset; at the end of a file that was opened so, wherever else. Returns for how
    /// many bytes there was room.
    pub(crate) fn write(&mut self, id: OpenId, at: Option<u64>, buf: &[u8]) -> Result<usize> {
        let open = self.open_file(id)?;
        let (ino, options, position) = (open.ino, open.options, open.position);
        if !options.writes() {
            return Err(Errno::EBADF);
        }
        let len = self.stat_of(ino)?.len;
        let from = if options.append { len } else { at.unwrap_or(position) };
        if buf.is_empty() {
            return Ok(0);
        }
        let room = self.capacity.saturating_sub(self.used) + len.saturating_sub(from);
        let room = room.saturating_sub(from.saturating_sub(len));
        let count = usize::try_from(room).unwrap_or(usize::MAX).min(buf.len());
        if count == 0 {
            return Err(Errno::ENOSPC);
        }
        self.change(ino, Change::Write(from, buf[..count].to_vec()))?;
        if let Some(open) = self.opens.get_mut(&id).filter(|_| at.is_none()) {
            open.position = from + count as u64;
        }
        Ok(count)
    }

    /// Changes the contents of a file.
    pub(super) fn change(&mut self, ino: Ino, change: Change) -> Result<()> {
        let now = self.now;
        let Node { body: Body::File(contents), modified, .. } = self.node_mut(ino)? else { return Err(Errno::EINVAL) };
        *modified = now;
        let before = contents.bytes.len() as u64;
        change.clone().apply(&mut contents.bytes);
        let after = contents.bytes.len() as u64;
        contents.pending.push(change);
        self.used = self.used + after - before;
        Ok(())
    }

    /// Moves the position, and returns it.
    pub(crate) fn seek(&mut self, id: OpenId, to: Whence) -> Result<u64> {
        let open = self.open_file(id)?;
        let len = self.stat_of(open.ino)?.len;
        let (base, by) = match to {
            Whence::Start(at) => (at, 0),
            Whence::End(by) => (len, by),
            Whence::Current(by) => (open.position, by),
        };
        let at = base.checked_add_signed(by).filter(|at| i64::try_from(*at).is_ok()).ok_or(Errno::EINVAL)?;
        if let Some(open) = self.opens.get_mut(&id) {
            open.position = at;
        }
        Ok(at)
    }

    /// Cuts a file off, or extends it with zeros.
    pub(crate) fn set_len(&mut self, id: OpenId, len: u64) -> Result<()> {
        let open = self.open_file(id)?;
        let ino = open.ino;
        if !open.options.writes() || i64::try_from(len).is_err() {
            return Err(Errno::EINVAL);
        }
        let more = len.saturating_sub(self.stat_of(ino)?.len);
        if more > self.capacity.saturating_sub(self.used) {
            return Err(Errno::ENOSPC);
        }
        self.change(ino, Change::Len(len))
    }

    /// Returns what is known of an open file.
    pub(crate) fn stat_open(&self, id: OpenId) -> Result<Stat> {
        self.stat_of(self.open_file(id)?.ino)
    }

    /// Changes the rights of an open file.
    pub(crate) fn set_mode_open(&mut self, id: OpenId, mode: u32) -> Result<()> {
        let ino = self.open_file(id)?.ino;
        self.node_mut(ino)?.mode = mode & 0o7777;
        Ok(())
    }

    /// Changes the times of an open file, in nanoseconds.
    pub(crate) fn set_times(&mut self, id: OpenId, modified: u64, accessed: u64) -> Result<()> {
        let ino = self.open_file(id)?.ino;
        let node = self.node_mut(ino)?;
        (node.modified, node.accessed) = (modified, accessed);
        Ok(())
    }

    /// Locks a file for an open file, or unlocks it, without waiting.
    pub(crate) fn lock(&mut self, id: OpenId, lock: Lock) -> Result<()> {
        let ino = self.open_file(id)?.ino;
        let node = self.node_mut(ino)?;
        // As in Linux, what the open file had is gone also if it does not get the other.
        node.exclusive.take_if(|holder| *holder == id);
        node.shared.remove(&id);
        match lock {
            Lock::None => {}
            _ if node.exclusive.is_some() => return Err(Errno::EAGAIN),
            Lock::Exclusive if !node.shared.is_empty() => return Err(Errno::EAGAIN),
            Lock::Exclusive => node.exclusive = Some(id),
            Lock::Shared => {
                node.shared.insert(id);
            }
        }
        Ok(())
    }
}
