//! The values of the key-value service, and how a runtime shares them between connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// Keys and their values.
#[derive(Debug, Default)]
pub struct Store {
    values: HashMap<Vec<u8>, Vec<u8>>,
}

impl Store {
    /// Returns the value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// Gives a key a value.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        match self.values.get_mut(key) {
            Some(old) => {
                // The memory of the old value is used again.
                old.clear();
                old.extend_from_slice(value);
            }
            None => drop(self.values.insert(key.to_vec(), value.to_vec())),
        }
    }

    /// Adds one to a value; none if that is no number or the sum too large. A key without a value has 0.
    pub fn increment(&mut self, key: &[u8]) -> Option<i64> {
        let old = self.get(key).map_or(Some(0), integer)?;
        let new = old.checked_add(1)?;
        self.set(key, new.to_string().as_bytes());
        Some(new)
    }

    /// Takes a key away; reports whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.values.remove(key).is_some()
    }
}

/// An integer as Redis has it: no sign but a minus, no zeros in front.
fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// A store that connections share.
pub trait Shared {
    /// Calls a function with the store, which nothing else uses meanwhile.
    fn with<R>(&self, f: impl FnOnce(&mut Store) -> R) -> R;
}

impl Shared for Rc<RefCell<Store>> {
    fn with<R>(&self, f: impl FnOnce(&mut Store) -> R) -> R {
        f(&mut self.borrow_mut())
    }
}

impl Shared for Arc<Mutex<Store>> {
    fn with<R>(&self, f: impl FnOnce(&mut Store) -> R) -> R {
        f(&mut self.lock().expect("no holder panics"))
    }
}
