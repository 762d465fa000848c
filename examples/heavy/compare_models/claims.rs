//! What the documents claim of the models, and what was measured here: each claim with a verdict and a figure. The
//! verdict is computed; the rule is the comment of the function.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;

use crate::measure::{Figures, Refusal};
use crate::{Row, small};

/// Growth below this factor counts as none: two runs of the same thing differ by less.
const NO_GROWTH: f64 = 1.3;

/// Growth above this factor is growth, whatever else the machine does. Every scan of a list grows by far more.
const GROWTH: f64 = 2.0;

/// The numbers that count as "about 100 000".
const ABOUT_100_000: std::ops::Range<f64> = 70_000.0..150_000.0;

/// Bytes of an entry in the array of poll(2): a descriptor, what is asked, what is answered.
const POLLFD: usize = 8;

/// What the figures say of a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Holds,
    /// True as said, but for another reason, or not for all.
    Partly,
    Refuted,
    /// Neither: other programs may have made the difference.
    Unclear,
    /// The necessary points were left out, or could not be measured.
    Open,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Holds => "holds",
            Verdict::Partly => "holds in part",
            Verdict::Refuted => "refuted",
            Verdict::Unclear => "unclear",
            Verdict::Open => "not measured",
        })
    }
}

/// A claim, and whether the claim holds.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The words of the documents.
    pub(crate) says: &'static str,
    pub(crate) verdict: Verdict,
    /// The figures that the verdict rests on.
    pub(crate) figure: String,
}

/// Judges all claims. `kernel_kib` is the kernel's memory for an end of a connection, measured more than once.
pub(crate) fn judge(rows: &[Row], kernel_kib: &[f64]) -> Vec<Claim> {
    let claim = |says, judged: Option<(Verdict, String)>| {
        let (verdict, figure) = judged.unwrap_or((Verdict::Open, String::from("it takes other points than these")));
        Claim { says, verdict, figure }
    };
    vec![
        claim("select scans linearly: all sockets, whichever is active", scans(rows)),
        claim("poll copies the whole array between user and kernel space, useful or not", copies(rows)),
        claim("epoll only cares about the active connections, however many there are", only_active(rows)),
        claim("select ends at 1024 descriptors, poll and epoll do not", ends(rows)),
        claim("epoll can watch about 100 000 ports with 1 GB of memory", ports(rows, kernel_kib)),
        claim("coroutines switch a million times a second and more", Some(switches())),
    ]
}

/// Returns what a request of a single client costs a model, against idle connections.
fn waits(rows: &[Row], model: &str) -> Vec<(usize, f64)> {
    let of_model = rows.iter().filter(|row| row.model.name == model);
    of_model.filter_map(|row| Some((row.idle, row.outcome.as_ref().ok()?.cpu_us_alone?))).collect()
}

/// Returns the first and the last point, if they are far enough apart for a comparison.
fn ends_of(points: &[(usize, f64)]) -> Option<[(usize, f64); 2]> {
    let (&first, &last) = (points.first()?, points.last()?);
    (last.0 >= first.0 + 500 && first.1 > 0.0).then_some([first, last])
}

/// Returns what each idle connection adds between two points that are far enough apart, in nanoseconds.
fn slopes(points: &[(usize, f64)]) -> String {
    let pairs = points.windows(2).filter(|pair| pair[1].0 >= pair[0].0 + 500);
    let slope = |pair: &[(usize, f64)]| {
        let ns = (pair[1].1 - pair[0].1) * 1e3 / (pair[1].0 - pair[0].0) as f64;
        format!("{ns:.0} ns from {} to {}", pair[0].0, pair[1].0)
    };
    pairs.map(slope).collect::<Vec<_>>().join(", ")
}

/// Holds if a request costs more when there are more idle connections.
fn scans(rows: &[Row]) -> Option<(Verdict, String)> {
    let points = waits(rows, "select");
    let [first, last] = ends_of(&points)?;
    let verdict = if last.1 > first.1 * NO_GROWTH { Verdict::Holds } else { Verdict::Refuted };
    let figure = format!(
        "a request of one client costs {:.1} us of CPU beside {} idle connections and {:.1} us beside {}; each adds {}",
        first.1,
        first.0,
        last.1,
        last.0,
        slopes(&points)
    );
    Some((verdict, figure))
}

/// Holds in part if a request costs more when there are more idle connections, but copying is less than half of the
/// difference.
fn copies(rows: &[Row]) -> Option<(Verdict, String)> {
    let points = waits(rows, "poll");
    let [first, last] = ends_of(&points)?;
    let bytes = last.0 * POLLFD;
    // In, and out again.
    let copy = 2.0 * small::copy_us(bytes);
    let grown = last.1 - first.1;
    let share = copy / grown.max(f64::MIN_POSITIVE);
    let verdict = match last.1 > first.1 * NO_GROWTH {
        true if share > 0.5 => Verdict::Holds,
        true => Verdict::Partly,
        false => Verdict::Refuted,
    };
    let figure = format!(
        "a request of one client costs {:.1} us of CPU beside {} idle connections and {:.1} us beside {} ({}); copying its \
         array, {bytes} bytes there and back, takes {copy:.1} us, {:.2} % of what was added: the rest is to ask each \
         descriptor, and to walk through the array",
        first.1,
        first.0,
        last.1,
        last.0,
        slopes(&points),
        share * 100.0
    );
    Some((verdict, figure))
}

/// Holds if a request costs the same beside any number of idle connections, by both kinds of epoll; refuted if a
/// request clearly costs more.
fn only_active(rows: &[Row]) -> Option<(Verdict, String)> {
    let mut verdict = Verdict::Holds;
    let mut words = Vec::new();
    for model in ["epoll-lt", "epoll-et"] {
        let points = waits(rows, model);
        let Some([first, last]) = ends_of(&points) else { continue };
        if last.1 > first.1 * GROWTH {
            verdict = Verdict::Refuted;
        } else if last.1 > first.1 * NO_GROWTH && verdict == Verdict::Holds {
            verdict = Verdict::Unclear;
        }
        words.push(format!("{model} {:.1} us at {} and {:.1} us at {}", first.1, first.0, last.1, last.0));
    }
    let words = (!words.is_empty()).then(|| words.join(", "))?;
    Some((verdict, format!("a request of one client beside idle connections: {words}")))
}

/// Holds if select stopped short of 1024 connections and both others went beyond.
fn ends(rows: &[Row]) -> Option<(Verdict, String)> {
    let select = refusal(rows, "select")?.served?;
    let most = |model| done(rows, model).map(|(idle, figures)| idle + figures.active).max();
    let (poll, epoll) = (most("poll")?, most("epoll-lt")?);
    let holds = (1000..1024).contains(&select) && poll > 1024 && epoll > 1024;
    let figure = format!(
        "select served {select} connections and no more, with FD_SETSIZE {}: the listener and the standard streams are \
         descriptors, too; poll served {poll} and epoll {epoll}",
        libc::FD_SETSIZE
    );
    Some((if holds { Verdict::Holds } else { Verdict::Refuted }, figure))
}

/// Holds if as many sockets as fit into 1 GiB are about that many.
fn ports(rows: &[Row], kernel_kib: &[f64]) -> Option<(Verdict, String)> {
    const GIB: f64 = 1024.0 * 1024.0;
    // The kernel's part is the median of all steps, the server's the slope from the first point to the last.
    let mut kernel: Vec<f64> = kernel_kib.iter().copied().filter(|&kib| kib > 0.0).collect();
    kernel.sort_by(f64::total_cmp);
    let &kernel = kernel.get(kernel.len() / 2)?;
    let mut points = done(rows, "epoll-lt").map(|(idle, figures)| (idle, figures.proportional_kib as f64));
    let first = points.next()?;
    let last = points.last()?;
    let user = ((last.1 - first.1) / (last.0 - first.0) as f64).max(0.0);
    let fit = GIB / (kernel + user);
    let verdict = if ABOUT_100_000.contains(&fit) { Verdict::Holds } else { Verdict::Refuted };
    let mut figure = format!(
        "a watched connection takes {kernel:.1} KiB of the kernel (median of {} steps; half of what both ends take) and \
         {user:.2} KiB of the server by epoll-lt: {fit:.0} fit into 1 GiB",
        kernel_kib.len()
    );
    // The kernel's own limit, which may be the origin of the claim.
    let number = |path: &str, key: &str| {
        let text = fs::read_to_string(path).ok()?;
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    if let (Some(files), Some(memory)) = (number("/proc/sys/fs/file-max", ""), number("/proc/meminfo", "MemTotal:"))
        && files < 1e12
    {
        let each = files / (memory / GIB);
        figure += &format!(
            "; what comes close to that number is a default of the kernel, one open file for each 10 KiB of \
             memory: file-max is {each:.0} for each GiB here"
        );
    }
    Some((verdict, figure))
}

/// Holds if greenlets and green threads switch that often.
fn switches() -> (Verdict, String) {
    let (switches, yields) = (small::switches_per_s(), small::yields_per_s());
    let verdict = if switches.min(yields) >= 1e6 { Verdict::Holds } else { Verdict::Refuted };
    let million = |rate: f64| format!("{:.1} million", rate / 1e6);
    let kind = if cfg!(debug_assertions) { ", in a debug build" } else { "" };
    let figure = format!(
        "{} switches a second between two greenlets, {} between two green threads that yield{kind}",
        million(switches),
        million(yields)
    );
    (verdict, figure)
}

/// Returns the points that a model did.
fn done<'a>(rows: &'a [Row], model: &str) -> impl Iterator<Item = (usize, &'a Figures)> {
    rows.iter()
        .filter(move |row| row.model.name == model)
        .filter_map(|row| Some((row.idle, row.outcome.as_ref().ok()?)))
}

/// Returns why a model could not do a point, for the first such point.
fn refusal<'a>(rows: &'a [Row], model: &str) -> Option<&'a Refusal> {
    rows.iter().filter(|row| row.model.name == model).find_map(|row| row.outcome.as_ref().err())
}
