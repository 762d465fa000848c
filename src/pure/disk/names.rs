//! Names: paths, and the calls that make, move and remove what is behind them.
//!
//! A path that does not begin with `/` begins at the root as well.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::{Body, Change, Contents, Disk, Errno, Ino, Name, OpenId, Options, ROOT, Result, Stat};

/// The most bytes of a name.
const LONGEST_NAME: usize = 255;

/// The most bytes of a path.
const LONGEST_PATH: usize = 4095;

/// The most symbolic links on the way of one path.
const MOST_LINKS: u32 = 40;

/// Where a path leads.
struct Place {
    /// The directory that the last name is looked for in.
    dir: Ino,
    /// The name there; none for the directory itself.
    name: Option<Name>,
    /// What the name leads to, if it leads anywhere.
    node: Option<Ino>,
    /// Whether the path says, by a slash at its end, that it is a directory.
    is_dir: bool,
}

/// What to do with a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The path that it stands for is meant.
    Follow,
    /// It is meant itself, unless a slash follows.
    Stay,
    /// It is meant itself: the name matters.
    Name,
}

/// Divides a path at its slashes.
fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = Name> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec)
}

impl Disk {
    /// Finds where a path leads.
    fn walk(&self, path: &[u8], end: End) -> Result<Place> {
        self.check()?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() > LONGEST_PATH {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut rest: VecDeque<Name> = split(path).collect();
        let (mut at, mut links, mut is_dir) = (ROOT, 0, path.ends_with(b"/"));
        while let Some(name) = rest.pop_front() {
            let dir = self.dir(at)?;
            match &name[..] {
                b"." => continue,
                b".." => {
                    at = dir.parent;
                    continue;
                }
                name if name.len() > LONGEST_NAME => return Err(Errno::ENAMETOOLONG),
                _ => {}
            }
            let node = dir.entries.get(&name).copied();
            let is_last = rest.is_empty();
            if let Some(Body::Link(target)) = node.and_then(|node| self.nodes.get(&node)).map(|node| &node.body)
                && (!is_last || end == End::Follow || is_dir && end == End::Stay)
            {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP);
                }
                at = if target.starts_with(b"/") { ROOT } else { at };
                is_dir |= is_last && target.ends_with(b"/");
                split(target).rev().for_each(|name| rest.push_front(name));
                continue;
            }
            if is_last {
                if is_dir && end != End::Name && node.is_some_and(|node| self.dir(node).is_err()) {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(Place { dir: at, name: Some(name), node, is_dir });
            }
            at = node.ok_or(Errno::ENOENT)?;
        }
        self.dir(at)?;
        Ok(Place { dir: at, name: None, node: Some(at), is_dir })
    }

    /// Returns the node at a path; with `follow`, what a symbolic link there leads to.
    fn find(&self, path: &[u8], follow: bool) -> Result<Ino> {
        self.walk(path, if follow { End::Follow } else { End::Stay })?.node.ok_or(Errno::ENOENT)
    }

    /// Returns where a new name goes that must not be there.
    fn new_place(&self, path: &[u8], is_dir: bool) -> Result<(Ino, Name)> {
        let place = self.walk(path, End::Name)?;
        match place.name {
            Some(name) if place.node.is_none() => {
                if place.is_dir && !is_dir {
                    Err(Errno::ENOENT)
                } else {
                    Ok((place.dir, name))
                }
            }
            _ => Err(Errno::EEXIST),
        }
    }

    /// Returns what is known of the node at a path.
    pub(crate) fn stat(&self, path: &[u8], follow: bool) -> Result<Stat> {
        self.stat_of(self.find(path, follow)?)
    }

    /// Opens the file at a path.
    pub(crate) fn open(&mut self, path: &[u8], options: Options) -> Result<OpenId> {
        options.check()?;
        if (options.create || options.create_new) && self.walk(path, End::Name)?.is_dir {
            return Err(Errno::EISDIR);
        }
        let place = self.walk(path, if options.create_new { End::Stay } else { End::Follow })?;
        let Some(ino) = place.node else {
            let name = place.name.filter(|_| options.create || options.create_new).ok_or(Errno::ENOENT)?;
            if place.is_dir {
                return Err(Errno::EISDIR);
            }
            let ino = self.make(Body::File(Contents::default()), options.mode & 0o7777);
            self.enter(vec![(place.dir, name, Some(ino))]);
            return self.enter_open(ino, options);
        };
        if options.create_new {
            return Err(Errno::EEXIST);
        }
        if self.dir(ino).is_ok() {
            return if options.writes() { Err(Errno::EISDIR) } else { self.enter_open(ino, options) };
        }
        if options.truncate {
            self.change(ino, Change::Len(0))?;
        }
        self.enter_open(ino, options)
    }

    /// Makes an empty directory.
    pub(crate) fn make_dir(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let (dir, name) = self.new_place(path, true)?;
        let made = self.make(Disk::empty_dir(), mode & 0o7777);
        self.enter(vec![(dir, name, Some(made))]);
        Ok(())
    }

    /// Makes a symbolic link to a path, which need not lead anywhere.
    pub(crate) fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        let (dir, name) = self.new_place(path, false)?;
        let made = self.make(Body::Link(target.to_vec()), 0o777);
        self.enter(vec![(dir, name, Some(made))]);
        Ok(())
    }

    /// Returns the path that a symbolic link stands for.
    pub(crate) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        match &self.node(self.find(path, false)?)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Gives a file another name.
    pub(crate) fn link(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let ino = self.find(from, false)?;
        let (dir, name) = self.new_place(to, false)?;
        if self.dir(ino).is_ok() {
            return Err(Errno::EPERM);
        }
        self.enter(vec![(dir, name, Some(ino))]);
        Ok(())
    }

    /// Removes a name of a file or of a symbolic link.
    pub(crate) fn remove_file(&mut self, path: &[u8]) -> Result<()> {
        let place = self.walk(path, End::Name)?;
        let ino = place.node.ok_or(Errno::ENOENT)?;
        match place.name {
            Some(_) if place.is_dir && self.dir(ino).is_err() => Err(Errno::ENOTDIR),
            Some(name) if self.dir(ino).is_err() => {
                self.enter(vec![(place.dir, name, None)]);
                self.count();
                Ok(())
            }
            _ => Err(Errno::EISDIR),
        }
    }

    /// Removes a directory without names in it.
    pub(crate) fn remove_dir(&mut self, path: &[u8]) -> Result<()> {
        let place = self.walk(path, End::Name)?;
        let Some(name) = place.name else {
            return Err(match split(path).next_back().as_deref() {
                None => Errno::EBUSY,
                Some(b"..") => Errno::ENOTEMPTY,
                Some(_) => Errno::EINVAL,
            });
        };
        if !self.dir(place.node.ok_or(Errno::ENOENT)?)?.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.enter(vec![(place.dir, name, None)]);
        Ok(())
    }

    /// Gives what is at a path another one, in place of what is there.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let (old, new) = (self.walk(from, End::Name)?, self.walk(to, End::Name)?);
        let (Some(name), Some(new_name)) = (old.name, new.name) else { return Err(Errno::EBUSY) };
        let ino = old.node.ok_or(Errno::ENOENT)?;
        let is_dir = self.dir(ino).is_ok();
        if !is_dir && (old.is_dir || new.is_dir) {
            return Err(Errno::ENOTDIR);
        }
        if is_dir && self.is_within(new.dir, ino) {
            return Err(Errno::EINVAL);
        }
        if let Some(there) = new.node {
            if self.is_within(old.dir, there) {
                return Err(Errno::ENOTEMPTY);
            }
            if there == ino {
                return Ok(());
            }
            match (is_dir, self.dir(there)) {
                (true, Err(_)) => return Err(Errno::ENOTDIR),
                (false, Ok(_)) => return Err(Errno::EISDIR),
                (true, Ok(dir)) if !dir.entries.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.enter(vec![(old.dir, name, None), (new.dir, new_name, Some(ino))]);
        self.count();
        Ok(())
    }

    /// Reports whether a directory is another one, or below it.
    fn is_within(&self, mut dir: Ino, other: Ino) -> bool {
        loop {
            match self.dir(dir) {
                _ if dir == other => return true,
                Ok(there) if there.parent != dir => dir = there.parent,
                _ => return false,
            }
        }
    }

    /// Returns the names in a directory, in alphabetical order, and what is known of each.
    pub(crate) fn read_dir(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Stat)>> {
        let dir = self.dir(self.find(path, true)?)?;
        dir.entries.iter().map(|(name, ino)| Ok((name.clone(), self.stat_of(*ino)?))).collect()
    }

    /// Returns the path without symbolic links.
    pub(crate) fn canonicalize(&self, path: &[u8]) -> Result<Vec<u8>> {
        let place = self.walk(path, End::Follow)?;
        place.node.ok_or(Errno::ENOENT)?;
        let mut names: Vec<Name> = place.name.into_iter().collect();
        let mut at = place.dir;
        while at != ROOT {
            let above = self.dir(at)?.parent;
            let (name, _) = self.dir(above)?.entries.iter().find(|(_, ino)| **ino == at).ok_or(Errno::ENOENT)?;
            names.push(name.clone());
            at = above;
        }
        let path: Vec<u8> = names.iter().rev().flat_map(|name| [&b"/"[..], name].concat()).collect();
        Ok(if path.is_empty() { b"/".to_vec() } else { path })
    }

    /// Changes the rights of what is at a path.
    pub(crate) fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let ino = self.find(path, true)?;
        self.node_mut(ino)?.mode = mode & 0o7777;
        Ok(())
    }
}
