//! `select!`: waits for the first of several things, in the frame of the caller.
//!
//! The macro makes one value, an arm, of each line, hands them to `runtime::choose`, and runs the body of the line that
//! won when all arms are gone. It spawns nothing and allocates nothing.
#![forbid(unsafe_code)]

/// What the macro's expansion names.
pub mod pieces {
    use std::time::{Duration, Instant};

    pub use crate::runtime::choose::{Order, select};

    use crate::runtime::choose::TimerArm;
    use crate::runtime::source::after as monotonic_after;

    /// The arm `after(limit)`.
    pub fn after(limit: Duration) -> TimerArm {
        TimerArm::new(monotonic_after(limit))
    }

    /// The arm `at(instant)`. One that has passed is over at once.
    pub fn at(instant: Instant) -> TimerArm {
        after(instant.saturating_duration_since(Instant::now()))
    }
}

/// Waits until one of several things can go on, does that one and no other, and runs its body.
///
/// ```
/// use std::time::Duration;
/// use greenling::{channel, select, sleep, spawn, sync::Event};
///
/// let (send, receive) = channel::bounded(1);
/// let stop = Event::new();
/// spawn(move || {
///     sleep(Duration::from_millis(2));
///     send.send("news")
/// });
/// let got = select! {
///     recv(receive) -> value => value.unwrap(),
///     wait(stop) => "stopped",
///     after(Duration::from_secs(60)) => "nothing came",
/// };
/// assert_eq!(got, "news");
/// ```
///
/// # Arms
///
/// | arm | goes on when | yields |
/// |---|---|---|
/// | `recv(receiver) -> result` | a value is there, or the channel has ended | what `recv` returns |
/// | `send(sender, value) -> result` | the value was taken, or the channel is closed | what `send` returns |
/// | `send_from(sender, slot) -> result` | the same with the value in `slot`, an `Option`; never if it is `None` | likewise |
/// | `join(handle) -> result` | the thread has ended; `handle` is a variable, and is consumed if this arm wins | what `join` returns |
/// | `end(handle)` | the thread has ended | |
/// | `wait(event)` | the [`Event`](crate::sync::Event) is set | |
/// | `wait(result) -> value` | the [`AsyncResult`](crate::sync::AsyncResult) is there | what its `wait` returns |
/// | `wait(group)` | the [`WaitGroup`](crate::sync::WaitGroup) is done | |
/// | `wait(semaphore) -> permit` | a permit of the [`Semaphore`](crate::sync::Semaphore) was to be had | the permit |
/// | `wait(child) -> status` | the [`Child`](crate::process::Child) has ended; its standard input stays open | `io::Result<ExitStatus>` |
/// | `after(duration)`, `at(instant)` | the time is over | |
/// | `tick(interval) -> due` | the next tick of the [`Interval`](crate::time::Interval) is due; `interval` is a variable | what `tick` returns |
/// | `readable(stream) -> result` | a read would not wait | `io::Result<()>` |
/// | `writable(stream) -> result` | a write would not wait | `io::Result<()>` |
/// | `accept(listener) -> result` | a connection came | what `accept` returns |
/// | `default` | none of the others can go on at once | |
///
/// Each arm is followed by `=> body`, and a comma unless the body is a block. `-> pattern` may be left out. There may be 16
/// arms. `recv` takes receivers of [`channel`](crate::channel), of broadcasts, of [`sync::mpsc`](crate::sync::mpsc) and of
/// [`hub::channel`](crate::hub::channel), and [`Signals`](crate::signal::Signals); `send` and `send_from` take senders of the
/// same channels. `join` and `end` take handles of all kinds. `readable` and `writable` take every socket and pipe and
/// [`io::Registered`](crate::io::Registered); `readable` listeners and a locked [`Stdin`](crate::io::Stdin), too. An `accept` and a
/// `recv` of signals count as IO: now and then they let others run first.
///
/// # What is promised
///
/// * If several can go on, the choice is *fair*: it is drawn by lot, from a sequence that is the same in every run. Begin with
///   `biased;` to take the first that is written.
/// * While it waits, the order is that of events. It stands in every line as any other waiter, with a place of its own in
///   each: first come, first served holds for it and for those behind it.
/// * All arms but the one that won have done nothing: no value was taken, and it is in no line any more when the body runs.
///   A `value` of a `send` that did not win is dropped; with `send_from` it is in its slot again.
/// * If a kill or an expired [`timeout`](crate::timeout) comes together with what was waited for, that goes to the next who
///   waits for it.
/// * The expressions in all arms are evaluated first, in their order. The bodies run after the wait, outside of everything,
///   so `break`, `return`, `?` and borrows of what other arms use are fine.
///
/// ```
/// use greenling::{channel, select};
///
/// let (send, receive) = channel::bounded::<i32>(1);
/// let mut next = Some(1);
/// let mut got = Vec::new();
/// while got.len() < 3 {
///     select! {
///         biased;
///         recv(receive) -> value => got.push(value.unwrap()),
///         send_from(send, next) -> sent => {
///             sent.unwrap();
///             next = Some(got.len() as i32 + 2);
///         }
///     }
/// }
/// assert_eq!(got, [1, 2, 3]);
/// let idle = select! {
///     recv(receive) -> _ => false,
///     default => true,
/// };
/// assert!(!idle || receive.is_empty());
/// ```
///
/// # Panics
/// If it has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch), and in main on a deadlock. While the caller unwinds it cannot wait: a timer goes off at
/// once, and without a timer that is a panic. If a thread waits for its own end.
///
/// May switch: yes, unless an arm can go on at once or there is a `default`.
#[macro_export]
macro_rules! select {
    // ---- one arm ----------------------------------------------------------------------------------------------------
    (@arm recv($receiver:expr)) => { $receiver.select_recv() };
    (@arm send($sender:expr, $value:expr $(,)?)) => { $sender.select_send($value) };
    (@arm send_from($sender:expr, $slot:expr $(,)?)) => { $sender.select_send_from(&mut $slot) };
    (@arm join($handle:ident)) => { $handle.select_end() };
    (@arm end($handle:expr)) => { $handle.select_end() };
    (@arm wait($event:expr)) => { $event.select_wait() };
    (@arm after($limit:expr)) => { $crate::__select::after($limit) };
    (@arm at($instant:expr)) => { $crate::__select::at($instant) };
    (@arm tick($interval:ident)) => { $crate::__select::at($interval.next_tick()) };
    (@arm readable($source:expr)) => { $source.select_readable() };
    (@arm writable($source:expr)) => { $source.select_writable() };
    (@arm accept($listener:expr)) => { $listener.select_accept() };
    (@arm $kind:ident($($args:tt)*)) => {
        compile_error!(concat!(
            "select! has no arm `", stringify!($kind($($args)*)),
            "`; there are recv, send, send_from, join, end, wait, after, at, tick, readable, writable, accept and default",
        ))
    };

    // ---- what it yields ---------------------------------------------------------------------------------------------
    (@value join($handle:ident) $result:expr) => { { let () = $result; $handle.join() } };
    (@value tick($interval:ident) $result:expr) => { { let () = $result; $interval.tick() } };
    (@value $kind:ident($($args:tt)*) $result:expr) => { $result };

    // ---- what reports say ---------------------------------------------------------------------------------------------
    (@names $kind:ident($($args:tt)*) $($more:ident($($more_args:tt)*))*) => {
        ::core::concat!(
            "the first of ", ::core::stringify!($kind), "(", ::core::stringify!($($args)*), ")"
            $(, ", ", ::core::stringify!($more), "(", ::core::stringify!($($more_args)*), ")")*
        )
    };

    // ---- all arms were read -----------------------------------------------------------------------------------------
    (@read $order:ident [$($rest:ident)*] [] [$($default:expr)?]) => {
        compile_error!("select! needs an arm to wait for")
    };
    (@read $order:ident [$($rest:ident)*]
        [$({ $name:ident $kind:ident ($($args:tt)*) ($pattern:pat) ($body:expr) })+] []
    ) => {
        $crate::select!(@expand $order true (unreachable!("it waits until an arm has won"))
            $({ $name $kind ($($args)*) ($pattern) ($body) })+)
    };
    (@read $order:ident [$($rest:ident)*]
        [$({ $name:ident $kind:ident ($($args:tt)*) ($pattern:pat) ($body:expr) })+] [$default:expr]
    ) => {
        $crate::select!(@expand $order false ($default) $({ $name $kind ($($args)*) ($pattern) ($body) })+)
    };
    (@expand $order:ident $wait:ident ($default:expr)
        $({ $name:ident $kind:ident ($($args:tt)*) ($pattern:pat) ($body:expr) })+
    ) => {{
        // Which arm won, and what it yields.
        #[allow(non_camel_case_types, dead_code, clippy::large_enum_variant)]
        enum Won<$($name),+> {
            $($name($name),)+
            Nobody,
        }
        let won = {
            $(
                #[allow(non_snake_case)]
                let $name = $crate::select!(@arm $kind($($args)*));
            )+
            let number = $crate::__select::select(
                [$($name.erase()),+],
                $crate::__select::Order::$order,
                $wait,
                $crate::select!(@names $($kind($($args)*))+),
            );
            'won: {
                #[allow(unused_mut, unused_assignments)]
                {
                    let mut at = 0_usize;
                    $(
                        if number == ::core::option::Option::Some(at) {
                            break 'won Won::$name($name.finish());
                        }
                        at += 1;
                    )+
                }
                Won::Nobody
            }
        };
        match won {
            $(
                Won::$name(result) => {
                    #[allow(clippy::let_unit_value)]
                    let $pattern = $crate::select!(@value $kind($($args)*) result);
                    $body
                }
            )+
            Won::Nobody => $default,
        }
    }};

    // ---- reading arm after arm --------------------------------------------------------------------------------------
    (@read $order:ident [$($names:ident)*] [$($done:tt)*] [] default => $body:expr, $($rest:tt)*) => {
        $crate::select!(@read $order [$($names)*] [$($done)*] [$body] $($rest)*)
    };
    (@read $order:ident [$($names:ident)*] [$($done:tt)*] [] default => $body:expr) => {
        $crate::select!(@read $order [$($names)*] [$($done)*] [$body])
    };
    (@read $order:ident [$($names:ident)*] [$($done:tt)*] [] default => $body:block $($rest:tt)*) => {
        $crate::select!(@read $order [$($names)*] [$($done)*] [$body] $($rest)*)
    };
    (@read $order:ident [$($names:ident)*] [$($done:tt)*] [$default:expr] default => $($rest:tt)*) => {
        compile_error!("select! takes one `default`")
    };
    (@read $order:ident [] [$($done:tt)*] [$($default:expr)?] $($rest:tt)+) => {
        compile_error!("select! takes 16 arms at most")
    };
    (@read $order:ident [$name:ident $($names:ident)*] [$($done:tt)*] [$($default:expr)?]
        $kind:ident($($args:tt)*) -> $pattern:pat => $body:expr, $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($names)*]
            [$($done)* { $name $kind ($($args)*) ($pattern) ($body) }] [$($default)?] $($rest)*)
    };
    (@read $order:ident [$name:ident $($names:ident)*] [$($done:tt)*] [$($default:expr)?]
        $kind:ident($($args:tt)*) -> $pattern:pat => $body:expr
    ) => {
        $crate::select!(@read $order [$($names)*]
            [$($done)* { $name $kind ($($args)*) ($pattern) ($body) }] [$($default)?])
    };
    (@read $order:ident [$name:ident $($names:ident)*] [$($done:tt)*] [$($default:expr)?]
        $kind:ident($($args:tt)*) -> $pattern:pat => $body:block $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($names)*]
            [$($done)* { $name $kind ($($args)*) ($pattern) ($body) }] [$($default)?] $($rest)*)
    };
    (@read $order:ident [$($names:ident)*] [$($done:tt)*] [$($default:expr)?]
        $kind:ident($($args:tt)*) => $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($names)*] [$($done)*] [$($default)?] $kind($($args)*) -> _ => $($rest)*)
    };
    (@read $($rest:tt)*) => {
        compile_error!("an arm of select! looks like `recv(receiver) -> result => expression,`")
    };

    // ---- the call ---------------------------------------------------------------------------------------------------
    (biased; $($arms:tt)*) => {
        $crate::select!(@read Biased
            [arm_0 arm_1 arm_2 arm_3 arm_4 arm_5 arm_6 arm_7 arm_8 arm_9 arm_10 arm_11 arm_12 arm_13 arm_14 arm_15]
            [] [] $($arms)*)
    };
    ($($arms:tt)*) => {
        $crate::select!(@read Fair
            [arm_0 arm_1 arm_2 arm_3 arm_4 arm_5 arm_6 arm_7 arm_8 arm_9 arm_10 arm_11 arm_12 arm_13 arm_14 arm_15]
            [] [] $($arms)*)
    };
}
