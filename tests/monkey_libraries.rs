//! Libraries that are loaded while threads with thread-locals of their own exist.
// `dlopen` and what it finds are unsafe to call.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

use greenling::thread::{Builder, JoinHandle, own_thread_locals_supported};
use greenling::{monkey, sleep, yield_now};

/// Spawns a thread with thread-locals of its own.
#[track_caller]
fn own<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().own_thread_locals().spawn(f).unwrap()
}

/// Loads a library, or says why not.
fn open(name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: a C string; the constructors of the tests' libraries count.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: takes nothing, and returns a C string after a failure (dlerror(3)).
    let text = unsafe { libc::dlerror() };
    assert!(!text.is_null(), "a failure has a text");
    // SAFETY: the text stays until the next call.
    Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Calls a function without arguments of a library.
fn call(handle: *mut c_void, name: &CStr) -> c_int {
    // SAFETY: the handle is open and the name a C string.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    assert!(!address.is_null());
    // SAFETY: the test compiled it, with this type.
    let function = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(address) };
    function()
}

/// Compiles a library into a folder of the test's own. None, with a message, without a C compiler.
fn compile(folder: &Path, name: &str, source: &str, arguments: &[&str]) -> Option<CString> {
    fs::create_dir_all(folder).unwrap();
    let (code, library) = (folder.join(format!("{name}.c")), folder.join(format!("lib{name}.so")));
    fs::write(&code, source).unwrap();
    let compiler = if cfg!(target_arch = "x86_64") { "cc" } else { "aarch64-linux-gnu-gcc" };
    let mut command = Command::new(compiler);
    let compiled = command.args(["-shared", "-fPIC"]).args(arguments).arg("-o").args([&library, &code]).status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no C compiler");
        return None;
    }
    Some(CString::new(library.to_str().unwrap()).unwrap())
}

#[test]
fn threads_that_exist_have_the_first_values_of_a_library_that_comes() {
    if let Err(error) = own_thread_locals_supported() {
        println!("SKIPPED: {error}");
        return;
    }
    let folder = std::env::temp_dir().join(format!("greenling-libraries-{}", std::process::id()));
    let source = "static __thread int counter __attribute__((tls_model(\"initial-exec\"))) = 4000;
        static int begun;
        __attribute__((constructor)) static void begin(void) { begun = ++counter; }
        int begun_at(void) { return begun; }
        int next(void) { return ++counter; }";
    let Some(name) = compile(&folder, "counter", source, &[]) else { return };
    static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    static WAITING: AtomicU32 = AtomicU32::new(0);
    // Two threads wait here, one in another hub.
    let wait = || {
        WAITING.fetch_add(1, Ordering::SeqCst);
        while HANDLE.load(Ordering::SeqCst).is_null() {
            sleep(Duration::from_millis(1));
        }
        let handle = HANDLE.load(Ordering::SeqCst);
        [call(handle, c"next"), call(handle, c"next")]
    };
    let here = own(wait);
    let other_hub = std::thread::spawn(move || own(wait).join().unwrap());
    while WAITING.load(Ordering::SeqCst) < 2 {
        sleep(Duration::from_millis(1));
    }
    let loader = own(move || {
        let failure = open(c"/nothing/here.so").unwrap_err();
        assert!(failure.contains("/nothing/here.so"), "{failure}");
        let handle = open(&name).unwrap();
        HANDLE.store(handle, Ordering::SeqCst);
        assert_eq!(call(handle, c"begun_at"), 4001, "the constructor had the first value");
        [call(handle, c"next"), call(handle, c"next")]
    });
    assert_eq!(loader.join().unwrap(), [4001, 4002]);
    assert_eq!(here.join().unwrap(), [4001, 4002]);
    assert_eq!(other_hub.join().unwrap(), [4001, 4002]);
    let later = own(|| call(HANDLE.load(Ordering::SeqCst), c"next"));
    assert_eq!(later.join().unwrap(), 4001);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_resolution_of_a_symbol_lets_nothing_else_run_and_libraries_may_go_meanwhile() {
    /// How many symbols each library has.
    const SYMBOLS: u32 = 300;
    /// The turns of a green thread that does nothing else.
    static TURNS: AtomicU32 = AtomicU32::new(0);
    static ENDED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = own_thread_locals_supported() {
        println!("SKIPPED: {error}");
        return;
    }
    // SAFETY: the code of the tests relies on nothing over a wait.
    unsafe { monkey::patch_all() }.unwrap();
    // SAFETY: as above.
    unsafe { monkey::patch_locks() }.unwrap();
    // Each function calls another one of the library, which is looked up at the first call.
    let functions = (0..SYMBOLS).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "int inner{n}(void) {{ return {n}; }} int outer{n}(void) {{ return inner{n}() + 1; }}");
        text
    });
    let folder = std::env::temp_dir().join(format!("greenling-lazy-{}", std::process::id()));
    let lazy = compile(&folder, "lazy", &functions, &["-O0", "-Wl,-z,lazy"]);
    let passing = compile(&folder, "passing", "int passing(void) { return 7; }", &["-Wl,-z,lazy"]);
    let (Some(lazy), Some(passing)) = (lazy, passing) else { return };
    let open_lazily = |name: &CStr, flags| {
        // SAFETY: a C string; the libraries have no constructors.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | flags) };
        assert!(!handle.is_null());
        handle
    };
    let handle = open_lazily(&lazy, 0).expose_provenance();
    let counter = own(|| {
        while !ENDED.load(Ordering::SeqCst) {
            TURNS.fetch_add(1, Ordering::SeqCst);
            yield_now();
        }
    });
    // Three threads look the symbols up, each its own, and let others run between two.
    let resolvers = [0, 1, 2].map(|first| {
        own(move || {
            let handle = std::ptr::with_exposed_provenance_mut(handle);
            for n in (first..SYMBOLS).step_by(3) {
                let name = CString::new(format!("outer{n}")).unwrap();
                let before = TURNS.load(Ordering::SeqCst);
                assert_eq!(call(handle, &name), n as c_int + 1);
                assert_eq!(TURNS.load(Ordering::SeqCst), before);
                yield_now();
            }
        })
    });
    // Meanwhile a library comes and goes, on the same OS thread, in the scope that all lookups search.
    while !resolvers.iter().all(JoinHandle::is_finished) {
        let passing = open_lazily(&passing, libc::RTLD_GLOBAL);
        yield_now();
        assert_eq!(call(passing, c"passing"), 7);
        // SAFETY: opened above, and nothing calls the library any more.
        assert_eq!(unsafe { libc::dlclose(passing) }, 0);
        yield_now();
    }
    ENDED.store(true, Ordering::SeqCst);
    resolvers.into_iter().for_each(|resolver| resolver.join().unwrap());
    counter.join().unwrap();
    assert!(TURNS.load(Ordering::SeqCst) >= SYMBOLS / 3);
    fs::remove_dir_all(&folder).unwrap();
}
