//! The processors that the calling OS thread may run on.
//!
//! Invariant affinity-1: a processor mask goes to the kernel with the size of the mask, so the kernel neither reads nor
//! writes beside it. Upheld by [`Mask`].

#![allow(unsafe_code)]

use std::io;

use super::cvt;

/// The number of words in a mask: room for 8192 processors, the most that Linux can be built for.
const WORDS: usize = 8192 / u64::BITS as usize;

/// A set of processors, one bit each, in the kernel's layout: an array of longs.
struct Mask([u64; WORDS]);

/// Returns the processors that the calling OS thread may run on, in ascending order.
///
/// # Errors
///
/// None on a Linux with at most 8192 processors.
pub(crate) fn allowed_processors() -> io::Result<Vec<usize>> {
    let mut mask = Mask([0; WORDS]);
    // SAFETY: Invariant affinity-1: the kernel writes at most `size_of` bytes into the mask, which is as long
    // (sched_getaffinity(2)).
    cvt(unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), (&raw mut mask).cast()) })?;
    let is_set = |processor: &usize| mask.0[processor / 64] >> (processor % 64) & 1 == 1;
    Ok((0..WORDS * 64).filter(is_set).collect())
}

/// Lets the calling OS thread run on one processor only.
///
/// # Errors
///
/// `EINVAL` if there is no such processor, or the thread may not use it.
pub(crate) fn pin_to(processor: usize) -> io::Result<()> {
    let mut mask = Mask([0; WORDS]);
    let Some(word) = mask.0.get_mut(processor / 64) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    *word = 1 << (processor % 64);
    // SAFETY: Invariant affinity-1: the kernel reads `size_of` bytes of the mask (sched_setaffinity(2)).
    cvt(unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), (&raw const mask).cast()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_one_processor_and_others_keep_theirs() {
        let before = allowed_processors().unwrap();
        assert!(!before.is_empty());
        let last = before[before.len() - 1];
        let after = std::thread::spawn(move || {
            pin_to(last).unwrap();
            allowed_processors().unwrap()
        });
        assert_eq!(after.join().unwrap(), [last]);
        assert_eq!(allowed_processors().unwrap(), before);
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused() {
        for processor in [8191, 8192, usize::MAX] {
            assert_eq!(pin_to(processor).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}
