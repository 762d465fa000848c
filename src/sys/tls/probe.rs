//! A fresh OS thread, photographed: what the C library puts into `struct pthread` and its own thread-locals when a
//! thread begins, and which words of them a few calls change.
//!
//! A green thread must begin as such a thread does. A copy of the caller's would not do: buffers of `strerror` and
//! `dlerror` and the resolver's state would be freed twice, and a list of offsets would be right for one version of the
//! library. So one OS thread is started, once, and takes a photograph before it has called anything; then it calls one
//! function after another, with a photograph after each:
//!
//! | step | words that differ from the step before |
//! |---|---|
//! | [`FRESH`] | |
//! | [`MALLOC`] | which cache and arena of malloc the thread uses |
//! | [`KEY`] | a value of a pthread key, and the flag that there is one |
//! | [`LOCALE`] | which locale the thread uses |
//! | [`TEXTS`] | the buffers of `strerror` and `strsignal` |
//! | [`FAILED`], [`TAKEN`] | what `dlerror` is to say; it was asked twice and has freed that |
//! | [`RANDOM`] | where the kernel's random numbers are made in user space, if they are |
//!
//! * Invariant tls-probe-1: until the last photograph the probe allocates nothing but by the step in question, and uses
//!   no thread-local of Rust; the buffers were made before by the thread that waits for it. Upheld by [`photograph`].

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;

use super::memory::copy_out;
use super::pointer::thread_pointer;
use super::symbols::Library;
use super::unsupported::Unsupported;

/// Before anything was called.
pub(super) const FRESH: usize = 0;
/// After a first `malloc`.
pub(super) const MALLOC: usize = 1;
/// After a first value of a pthread key.
pub(super) const KEY: usize = 2;
/// After the thread was given a locale of its own.
pub(super) const LOCALE: usize = 3;
/// After texts that need a buffer.
pub(super) const TEXTS: usize = 4;
/// After a `dlsym` that failed.
pub(super) const FAILED: usize = 5;
/// After `dlerror` was asked.
pub(super) const TAKEN: usize = 6;
/// After a first random number.
pub(super) const RANDOM: usize = 7;
/// How many there are.
const STEPS: usize = 8;

/// A number that is neither an error's nor a signal's.
const UNKNOWN: c_int = 987_654;

/// Where the words are that a photograph has.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// From `struct pthread` up to the thread pointer, in bytes.
    pub(super) below: usize,
    /// Words of `struct pthread`.
    pub(super) pthread_words: usize,
    /// From the thread pointer to the C library's thread-locals, in bytes.
    pub(super) libc_at: isize,
    /// Words of the C library's thread-locals.
    pub(super) libc_words: usize,
    /// Words that others than the thread write at any time, from the start of `struct pthread` and of the C library's
    /// thread-locals: neighbours in the list of all threads, and the kernel's rseq area. They are 0 in a photograph.
    pub(super) foreign: [(Range<usize>, Range<usize>); 2],
}

impl Frame {
    /// Returns where the bytes `range`, which begin at the thread pointer, lie in the two parts of a photograph.
    pub(super) fn foreign(below: usize, libc_at: isize, range: &Range<isize>) -> (Range<usize>, Range<usize>) {
        const WORD: usize = size_of::<usize>();
        // What lies before a part begins at the part's start; what lies behind it is cut off when it is blanked.
        let word = |bytes: isize| usize::try_from(bytes).unwrap_or(0).div_ceil(WORD);
        let part = |start: isize| usize::try_from(range.start - start).unwrap_or(0) / WORD..word(range.end - start);
        (part(-(below as isize)), part(libc_at))
    }
}

/// The words at one moment.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) pthread: Vec<usize>,
    pub(super) libc: Vec<usize>,
}

/// What the probe brought home.
#[derive(Debug)]
pub(super) struct Roll {
    /// The thread pointer that the probe had.
    pub(super) pointer: usize,
    /// The photographs, by step.
    pub(super) shots: [Shot; STEPS],
    /// The locale of the step [`LOCALE`].
    pub(super) locale: usize,
    /// The probe's stack: lowest address, the one behind the last, and the reported size of the guard below.
    pub(super) stack: (usize, usize, usize),
    /// From the thread pointer to the thread's tables of character classes, lower and upper case.
    pub(super) ctype: [isize; 3],
    /// The texts of the step [`TEXTS`].
    pub(super) texts: [usize; 2],
    /// From the thread pointer to the thread's state of the resolver.
    pub(super) resolver: isize,
}

type Destructor = unsafe extern "C" fn(*mut c_void);
type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;
type Join = unsafe extern "C" fn(libc::pthread_t, *mut *mut c_void) -> c_int;
type KeyCreate = unsafe extern "C" fn(*mut libc::pthread_key_t, Option<Destructor>) -> c_int;
type KeyDelete = unsafe extern "C" fn(libc::pthread_key_t) -> c_int;
type SetSpecific = unsafe extern "C" fn(libc::pthread_key_t, *const c_void) -> c_int;
type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Place = unsafe extern "C" fn() -> *mut c_void;
type Text = unsafe extern "C" fn(c_int) -> *mut libc::c_char;
type Random = unsafe extern "C" fn(*mut c_void, usize, std::ffi::c_uint) -> isize;

/// The C library's own functions, whatever the program has in front of them.
struct Functions {
    create: Create,
    join: Join,
    key_create: KeyCreate,
    key_delete: KeyDelete,
    set_specific: SetSpecific,
    malloc: Malloc,
    free: Free,
    ctype: [Place; 3],
    texts: [Text; 2],
    dlerror: Place,
    random: Random,
    resolver: Place,
}

/// What the probe works on.
struct Task {
    library: Library,
    functions: Functions,
    frame: Frame,
    key: libc::pthread_key_t,
    roll: Roll,
    failed: Option<&'static str>,
}

impl Functions {
    fn find(library: Library) -> Result<Self, Unsupported> {
        macro_rules! function {
            ($name:literal, $type:ty) => {{
                let address = library.address($name)?.as_ptr();
                // SAFETY: Invariant tls-symbols-1: it is the C library's function, of this type (its public headers).
                unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
            }};
        }
        Ok(Self {
            create: function!(c"pthread_create", Create),
            join: function!(c"pthread_join", Join),
            key_create: function!(c"pthread_key_create", KeyCreate),
            key_delete: function!(c"pthread_key_delete", KeyDelete),
            set_specific: function!(c"pthread_setspecific", SetSpecific),
            malloc: function!(c"malloc", Malloc),
            free: function!(c"free", Free),
            ctype: [
                function!(c"__ctype_b_loc", Place),
                function!(c"__ctype_tolower_loc", Place),
                function!(c"__ctype_toupper_loc", Place),
            ],
            texts: [function!(c"strerror", Text), function!(c"strsignal", Text)],
            dlerror: function!(c"dlerror", Place),
            random: function!(c"getrandom", Random),
            resolver: function!(c"__res_state", Place),
        })
    }
}

/// Starts the probe and returns its photographs.
pub(super) fn photograph(library: Library, frame: &Frame) -> Result<Roll, Unsupported> {
    let functions = Functions::find(library)?;
    let shot = || Shot { pthread: vec![0; frame.pthread_words], libc: vec![0; frame.libc_words] };
    // SAFETY: `newlocale` takes a mask, a C string and no base (newlocale(3)).
    let locale = unsafe { libc::newlocale(libc::LC_CTYPE_MASK, c"C".as_ptr(), ptr::null_mut()) };
    let mut key = 0;
    // SAFETY: `key` is a place for the key (pthread_key_create(3)).
    if locale.is_null() || unsafe { (functions.key_create)(&raw mut key, None) } != 0 {
        return Err(Unsupported::Probe("no locale or key is to be had"));
    }
    let roll = Roll {
        pointer: 0,
        shots: std::array::from_fn(|_| shot()),
        locale: locale.expose_provenance(),
        stack: (0, 0, 0),
        ctype: [0; 3],
        texts: [0; 2],
        resolver: 0,
    };
    let mut task = Box::new(Task { library, functions, frame: frame.clone(), key, roll, failed: None });
    let mut thread = std::mem::MaybeUninit::<libc::pthread_t>::uninit();
    let argument: *mut Task = &raw mut *task;
    // SAFETY: the task lives until the probe was joined, and nothing else uses the task meanwhile.
    let error = unsafe { (task.functions.create)(thread.as_mut_ptr(), ptr::null(), probe, argument.cast()) };
    if error == 0 {
        // SAFETY: filled when the thread was started.
        let thread = unsafe { thread.assume_init() };
        // SAFETY: the thread was started above and is joined once.
        unsafe { (task.functions.join)(thread, ptr::null_mut()) };
    }
    // SAFETY: the key was made above, and no thread has a value for it any more.
    unsafe { (task.functions.key_delete)(key) };
    // SAFETY: the probe, the only thread that used the locale, has ended.
    unsafe { libc::freelocale(locale) };
    match task.failed {
        _ if error != 0 => Err(Unsupported::Probe("no OS thread can be started")),
        Some(what) => Err(Unsupported::Probe(what)),
        None => Ok(task.roll),
    }
}

/// What the probe does.
extern "C" fn probe(argument: *mut c_void) -> *mut c_void {
    // SAFETY: the argument is the task, and the thread that made it waits.
    let task = unsafe { &mut *argument.cast::<Task>() };
    task.roll.pointer = thread_pointer();
    task.shoot(FRESH);
    // SAFETY: any size may be asked for (malloc(3)).
    let memory = unsafe { (task.functions.malloc)(24) };
    // SAFETY: `malloc` returned it (free(3)).
    unsafe { (task.functions.free)(memory) };
    task.shoot(MALLOC);
    // SAFETY: the key was made by the starter, without a destructor; any value will do, but null.
    let error = unsafe { (task.functions.set_specific)(task.key, argument) };
    task.shoot(KEY);
    // SAFETY: the same.
    unsafe { (task.functions.set_specific)(task.key, ptr::null()) };
    // SAFETY: the starter made the locale and frees it after this thread (uselocale(3)).
    let before = unsafe { libc::uselocale(ptr::with_exposed_provenance_mut(task.roll.locale)) };
    task.shoot(LOCALE);
    // SAFETY: it was this thread's locale.
    unsafe { libc::uselocale(before) };
    if error != 0 {
        task.failed = Some("a pthread key takes no value");
    }
    task.use_buffers();
    for index in 0..3 {
        // SAFETY: the functions take nothing and return places of the calling thread (ctype.h).
        let place = unsafe { (task.functions.ctype[index])() };
        task.roll.ctype[index] = place.addr().wrapping_sub(task.roll.pointer) as isize;
    }
    // SAFETY: the same (resolv.h).
    let resolver = unsafe { (task.functions.resolver)() };
    task.roll.resolver = resolver.addr().wrapping_sub(task.roll.pointer) as isize;
    match own_stack() {
        Some(stack) => task.roll.stack = stack,
        None => task.failed = Some("the bounds of its stack are not to be had"),
    }
    ptr::null_mut()
}

impl Task {
    /// Calls what allocates a buffer for the thread, each with its photograph.
    fn use_buffers(&mut self) {
        for index in 0..2 {
            // SAFETY: any number may be asked for (strerror(3), strsignal(3)).
            let text = unsafe { (self.functions.texts[index])(UNKNOWN) };
            self.roll.texts[index] = text.addr();
        }
        self.shoot(TEXTS);
        // SAFETY: the handle is open, and the name a C string; there is no such symbol (dlsym(3)).
        unsafe { libc::dlsym(self.library.handle(), c"greenling's probe looks for nothing".as_ptr()) };
        self.shoot(FAILED);
        for _ in 0..2 {
            // SAFETY: the function takes nothing (dlerror(3)).
            unsafe { (self.functions.dlerror)() };
        }
        self.shoot(TAKEN);
        let mut byte = 0_u8;
        // SAFETY: a place of one byte (getrandom(2)).
        unsafe { (self.functions.random)((&raw mut byte).cast(), 1, 0) };
        self.shoot(RANDOM);
    }

    /// Takes the photograph of a step.
    fn shoot(&mut self, step: usize) {
        let shot = &mut self.roll.shots[step];
        // SAFETY: Invariant tls-memory-1: the calling thread's own `struct pthread`, as long as the library says.
        unsafe { copy_out(self.roll.pointer - self.frame.below, &mut shot.pthread) };
        // SAFETY: Invariant tls-memory-1: the calling thread's own copy of the C library's thread-locals.
        unsafe { copy_out(self.roll.pointer.wrapping_add_signed(self.frame.libc_at), &mut shot.libc) };
        for (in_pthread, in_libc) in &self.frame.foreign {
            blank(&mut shot.pthread, in_pthread);
            blank(&mut shot.libc, in_libc);
        }
    }
}

/// Sets the words of a photograph that are in the range to 0.
fn blank(words: &mut [usize], range: &Range<usize>) {
    let end = range.end.min(words.len());
    if let Some(words) = words.get_mut(range.start..end) {
        words.fill(0);
    }
}

/// Returns the bounds of the calling OS thread's stack, and the size of its guard. Not for the first thread.
fn own_stack() -> Option<(usize, usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: the function takes nothing.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: a thread asks about itself; the place is initialised on success (pthread_getattr_np(3)).
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut size, mut guard) = (ptr::null_mut(), 0, 0);
    // SAFETY: the attributes were initialised above; the results go to places of the right types.
    let stack = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size) };
    // SAFETY: the same.
    let guarded = unsafe { libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard) };
    // SAFETY: the attributes were initialised and are not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (stack == 0 && guarded == 0).then(|| (low.addr(), low.addr() + size, guard))
}
