//! `select!`: a wait for the first of several things, in the frame of the caller.
//!
//! The macro turns each of its lines into one value, an arm, and hands the arms to `runtime::choose`. When all arms are
//! gone the body of the winning line runs. The macro spawns nothing and allocates nothing.
//!
//! ```text
//!   let won;
//!   match (arm of line 1) {              temporaries of the expression live as long as its match
//!       arm_0 => match (arm of line 2) {
//!           arm_1 => won = match select([arm_0, arm_1]) { 0 => what arm 0 yields, .. },
//!       }
//!   }
//!   match won { .. => body of the line }
//! ```
#![forbid(unsafe_code)]

pub mod pieces;
mod set;

pub use set::Select;

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
/// | `join(handle) -> result` | the thread has ended; a variable or field is consumed only if this arm wins | what `join` returns |
/// | `end(handle)` | the thread has ended | |
/// | `wait(event)` | the [`Event`](crate::sync::Event) is set | |
/// | `wait(result) -> value` | the [`AsyncResult`](crate::sync::AsyncResult) is there | what its `wait` returns |
/// | `wait(group)` | the [`WaitGroup`](crate::sync::WaitGroup) is done | |
/// | `wait(semaphore) -> permit` | a permit of the [`Semaphore`](crate::sync::Semaphore) was to be had | the permit |
/// | `wait(child) -> status` | the [`Child`](crate::process::Child) has ended; its standard input stays open | `io::Result<ExitStatus>` |
/// | `after(duration)`, `at(instant)` | the time is over | |
/// | `tick(interval) -> due` | the next tick of the [`Interval`](crate::time::Interval) is due | what `tick` returns |
/// | `readable(stream) -> result` | a read would not wait | `io::Result<()>` |
/// | `writable(stream) -> result` | a write would not wait | `io::Result<()>` |
/// | `accept(listener) -> result` | a connection came | what `accept` returns |
/// | `default` | none of the others can go on at once | |
/// | `default(after: duration)`, `default(at: instant)` | the time is over, and none of the others can go on | |
///
/// Each arm is followed by `=> body`, and a comma unless the body is a block. `-> pattern` may be left out. There may
/// be 16 arms; a [`Select`](crate::Select) takes any number, found at run time. `recv` takes receivers of
/// [`channel`](crate::channel), of broadcasts, of [`sync::mpsc`](crate::sync::mpsc) and of
/// [`hub::channel`](crate::hub::channel), and [`Signals`](crate::signal::Signals); `send` and `send_from` take senders
/// of the same channels. `join` and `end` take handles of all kinds. `readable` and `writable` take every socket and
/// pipe and [`io::Registered`](crate::io::Registered); `readable` takes listeners and a locked
/// [`Stdin`](crate::io::Stdin), too. An `accept` and a `recv` of signals count as IO: now and then they let other
/// threads run first.
///
/// # What is promised
///
/// * If several arms can go on, the choice is *uniform*: each of them has the same chance, wherever it is written and
///   however many other arms cannot go on. The choice is drawn from a sequence that is the same in every run. That
///   holds before the wait, after the wait, and for one channel in several arms. Begin with `biased;` to take the first
///   arm that is written.
/// * While the call waits, the order is that of events. The call stands in every queue as any other waiter, with a
///   place of its own in each: first come, first served holds for the call and for the waiters behind it. The first
///   event decides, since the sender of the value that the call gets was told that the value is taken. Of several arms
///   in one queue each has the same chance, or the first goes on if the call is `biased`. What came while the time was
///   not over goes before a timer.
/// * All arms but the one that won have done nothing: no value was taken, and none of them is in a queue any more when
///   the body runs. A `value` of a `send` that did not win is dropped; with `send_from` the value is in its slot again.
/// * If a kill or an expired [`timeout`](crate::timeout) comes together with what was waited for, the next waiter gets
///   that.
/// * Any expression may stand in an arm. All are evaluated first, once, in their order; a variable or field in `join`
///   or `tick` is used again by the arm that wins. The values of the expressions live until the wait is over: a
///   `recv(shared.borrow().rx)` keeps the borrow for as long, and what an arm yields cannot borrow from such a value.
/// * The bodies run after the wait, outside of everything, so `break`, `return`, `?` and borrows of what other arms use
///   are fine. What was received is dropped if a destructor, of a value that was not sent or of a temporary, unwinds
///   before that.
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
/// # Time limits
///
/// `default` does not wait. `default(after: duration)` and `default(at: instant)` wait no longer than that, and are no
/// arms like the others: something that can go on when the time is over wins, as with
/// [`recv_timeout`](crate::channel::Receiver::recv_timeout), and with no time at all the call behaves as with
/// `default`. An arm `after(duration)` has the same chance as all that can go on at once: right for a timer that is one
/// of the things to wait for, wrong for a limit, where data that is there should win. There is one `default` at most.
///
/// ```
/// use std::time::Duration;
/// use greenling::{channel, select};
///
/// let (send, receive) = channel::unbounded();
/// send.send("here").unwrap();
/// let mut limit = Duration::ZERO;
/// for expected in ["here", "late"] {
///     let got = select! {
///         recv(receive) -> value => value.unwrap(),
///         default(after: limit) => "late",
///     };
///     assert_eq!(got, expected);
///     limit = Duration::from_millis(2);
/// }
/// ```
///
/// # Panics
/// If the call has to wait: unwinds with a kill or an expired [`timeout`](crate::timeout); panics inside
/// [`no_switch`](crate::no_switch), and in main on a deadlock. A caller that unwinds cannot wait: a timer goes off at
/// once, and a time limit is over at once; without either that is a panic. If a thread waits for its own end.
///
/// May switch: yes, unless an arm can go on at once or there is a `default` without a time limit, or with one of zero.
#[macro_export]
macro_rules! select {
    // ---- one arm ----------------------------------------------------------------------------------------------------
    (@arm recv($receiver:expr $(,)?)) => { $receiver.select_recv() };
    (@arm send($sender:expr, $value:expr $(,)?)) => { $sender.select_send($value) };
    (@arm send_from($sender:expr, $slot:expr $(,)?)) => { $sender.select_send_from(&mut $slot) };
    (@arm join($($handle:tt)*)) => { $($handle)*.select_end() };
    (@arm end($handle:expr $(,)?)) => { $handle.select_end() };
    (@arm wait($event:expr $(,)?)) => { $event.select_wait() };
    (@arm after($limit:expr $(,)?)) => { $crate::__select::after($limit) };
    (@arm at($instant:expr $(,)?)) => { $crate::__select::at($instant) };
    (@arm tick($($interval:tt)*)) => { $crate::__select::at($($interval)*.next_tick()) };
    (@arm readable($source:expr $(,)?)) => { $source.select_readable() };
    (@arm writable($source:expr $(,)?)) => { $source.select_writable() };
    (@arm accept($listener:expr $(,)?)) => { $listener.select_accept() };
    (@arm send($($args:tt)*)) => {
        compile_error!("`send` in select! takes a sender and a value: `send(sender, value)`")
    };
    (@arm send_from($($args:tt)*)) => {
        compile_error!("`send_from` in select! takes a sender and an Option to send from: `send_from(sender, slot)`")
    };
    (@arm recv($($args:tt)*)) => { $crate::select!(@one recv) };
    (@arm end($($args:tt)*)) => { $crate::select!(@one end) };
    (@arm wait($($args:tt)*)) => { $crate::select!(@one wait) };
    (@arm after($($args:tt)*)) => { $crate::select!(@one after) };
    (@arm at($($args:tt)*)) => { $crate::select!(@one at) };
    (@arm readable($($args:tt)*)) => { $crate::select!(@one readable) };
    (@arm writable($($args:tt)*)) => { $crate::select!(@one writable) };
    (@arm accept($($args:tt)*)) => { $crate::select!(@one accept) };
    (@one $kind:ident) => {
        compile_error!(concat!(
            "`", stringify!($kind), "` in select! takes one expression: `", stringify!($kind), "(..)`",
        ))
    };
    (@arm $kind:ident($($args:tt)*)) => {
        compile_error!(concat!(
            "select! has no arm `", stringify!($kind($($args)*)),
            "`; there are recv, send, send_from, join, end, wait, after, at, tick, readable, writable, accept and default",
        ))
    };

    // ---- the arms, one within the other: temporaries of each live until the wait is over ----------------------------
    // A variable, or a field of one: used if the arm wins, and as it was if not.
    (@wait $all:tt [{ $name:ident $held:ident $number:tt join($first:ident $(.$field:tt)* $(,)?) } $($rest:tt)*]) => {
        match $crate::select!(@arm join($first $(.$field)*)) {
            $name => $crate::select!(@wait $all [$($rest)*]),
        }
    };
    (@wait $all:tt [{ $name:ident $held:ident $number:tt tick($first:ident $(.$field:tt)* $(,)?) } $($rest:tt)*]) => {
        match $crate::select!(@arm tick($first $(.$field)*)) {
            $name => $crate::select!(@wait $all [$($rest)*]),
        }
    };
    // Anything else is evaluated once, and kept for the case that the arm wins.
    (@wait $all:tt [{ $name:ident $held:ident $number:tt join($handle:expr $(,)?) } $($rest:tt)*]) => {
        match $handle {
            $held => match $crate::select!(@arm join($held)) {
                $name => $crate::select!(@wait $all [$($rest)*]),
            },
        }
    };
    (@wait $all:tt [{ $name:ident $held:ident $number:tt tick($interval:expr $(,)?) } $($rest:tt)*]) => {
        match &mut $interval {
            $held => match $crate::select!(@arm tick($held)) {
                $name => $crate::select!(@wait $all [$($rest)*]),
            },
        }
    };
    (@wait $all:tt [{ default after ($limit:expr) $until:ident } $($rest:tt)*]) => {
        match $crate::__select::until_after($limit) {
            $until => $crate::select!(@wait $all [$($rest)*]),
        }
    };
    (@wait $all:tt [{ default at ($instant:expr) $until:ident } $($rest:tt)*]) => {
        match $crate::__select::until_at($instant) {
            $until => $crate::select!(@wait $all [$($rest)*]),
        }
    };
    (@wait $all:tt [{ default $kind:ident $limit:tt $until:ident } $($rest:tt)*]) => {
        compile_error!("the time limit of a select! is `default(after: duration)` or `default(at: instant)`")
    };
    (@wait $all:tt [{ $name:ident $held:ident $number:tt join($($args:tt)*) } $($rest:tt)*]) => {
        $crate::select!(@one join)
    };
    (@wait $all:tt [{ $name:ident $held:ident $number:tt tick($($args:tt)*) } $($rest:tt)*]) => {
        $crate::select!(@one tick)
    };
    (@wait $all:tt [{ $name:ident $held:ident $number:tt $kind:ident($($args:tt)*) } $($rest:tt)*]) => {
        match $crate::select!(@arm $kind($($args)*)) {
            $name => $crate::select!(@wait $all [$($rest)*]),
        }
    };
    (@wait
        ($order:ident $won:ident ($until:expr) $({ $name:ident $held:ident $number:tt $kind:ident($($args:tt)*) })+) []
    ) => {
        // The result is in its variable before the losers and the temporaries are dropped: if a destructor unwinds, it
        // is dropped, too. The value of a block would be leaked (rust-lang/rust#47949).
        $won = $crate::__select::Held::new(match $crate::__select::select(
            [$($crate::__select::SelectArm::erase(&$name)),+],
            $crate::__select::Order::$order,
            $until,
            $crate::select!(@names $($kind($($args)*))+),
        ) {
            $(
                ::core::option::Option::Some($number) => {
                    __Won::$name($crate::select!(@result $name $held $kind($($args)*)))
                }
            )+
            _ => __Won::None,
        })
    };

    // ---- what it yields ---------------------------------------------------------------------------------------------
    (@result $name:ident $held:ident join($first:ident $(.$field:tt)* $(,)?)) => {
        $crate::__select::SelectArm::finish($name)
    };
    (@result $name:ident $held:ident tick($first:ident $(.$field:tt)* $(,)?)) => {
        $crate::__select::SelectArm::finish($name)
    };
    (@result $name:ident $held:ident join($($args:tt)*)) => {{
        $crate::__select::SelectArm::finish($name);
        $held
    }};
    (@result $name:ident $held:ident tick($($args:tt)*)) => {{
        $crate::__select::SelectArm::finish($name);
        $held
    }};
    (@result $name:ident $held:ident $kind:ident($($args:tt)*)) => { $crate::__select::SelectArm::finish($name) };
    (@value join($first:ident $(.$field:tt)* $(,)?) $result:ident) => {{
        let () = $result;
        $first $(.$field)*.join()
    }};
    (@value tick($first:ident $(.$field:tt)* $(,)?) $result:ident) => {{
        let () = $result;
        $first $(.$field)*.tick()
    }};
    (@value join($($args:tt)*) $result:ident) => { $result.join() };
    (@value tick($($args:tt)*) $result:ident) => { $result.tick() };
    (@value $kind:ident($($args:tt)*) $result:ident) => { $result };
    (@pattern) => { _ };
    (@pattern $pattern:pat) => { $pattern };

    // ---- what reports say -------------------------------------------------------------------------------------------
    (@names $kind:ident($($args:tt)*) $($more:ident($($more_args:tt)*))*) => {
        ::core::concat!(
            "the first of ", ::core::stringify!($kind), "(", ::core::stringify!($($args)*), ")"
            $(, ", ", ::core::stringify!($more), "(", ::core::stringify!($($more_args)*), ")")*
        )
    };

    // ---- all arms were read -----------------------------------------------------------------------------------------
    // `[..]`: names not yet used; arms; arms and time limit in the order of their evaluation; the default.
    (@read $order:ident [$($rest:tt)*] [] [$($steps:tt)*] [$($default:tt)*]) => {
        compile_error!("select! needs an arm to wait for")
    };
    (@read $order:ident [$($rest:tt)*] [$($arms:tt)+] [$($steps:tt)+] []) => {
        $crate::select!(@expand $order ($crate::__select::FOR_EVER) (unreachable!("it waits until an arm has won"))
            [$($steps)+] $($arms)+)
    };
    (@read $order:ident [$($rest:tt)*] [$($arms:tt)+] [$($steps:tt)+] [($until:expr) ($default:expr)]) => {
        $crate::select!(@expand $order ($until) ($default) [$($steps)+] $($arms)+)
    };
    (@expand $order:ident ($until:expr) ($default:expr) [$($steps:tt)+]
        $({ $name:ident $held:ident $number:tt $kind:ident($($args:tt)*) ($($pattern:pat)?) ($body:expr) })+
    ) => {{
        // Their methods make the arms.
        #[allow(unused_imports)]
        use $crate::__select::{
            SelectAccept as _, SelectEnd as _, SelectReadable as _, SelectRecv as _, SelectSend as _,
            SelectSendFrom as _, SelectWait as _, SelectWritable as _,
        };
        // Which arm won, and what it yields.
        #[allow(non_camel_case_types, dead_code, clippy::large_enum_variant)]
        enum __Won<$($name),+> {
            $($name($name),)+
            None,
        }
        let won;
        $crate::select!(@wait
            ($order won ($until) $({ $name $held $number $kind($($args)*) })+)
            [$($steps)+]);
        match won.into_inner() {
            $(
                // A block that needs no comma may hold a single expression.
                #[allow(unused_braces)]
                __Won::$name(result) => {
                    #[allow(clippy::let_unit_value)]
                    let $crate::select!(@pattern $($pattern)?) = $crate::select!(@value $kind($($args)*) result);
                    $body
                }
            )+
            #[allow(unused_braces)]
            __Won::None => $default,
        }
    }};

    // ---- reading arm after arm --------------------------------------------------------------------------------------
    (@read $order:ident $names:tt $arms:tt $steps:tt [$($default:tt)+] default $($rest:tt)*) => {
        compile_error!("select! takes one `default`, with a time limit or without")
    };
    (@read $order:ident $names:tt $arms:tt $steps:tt [] default $(())? => $body:expr, $($rest:tt)*) => {
        $crate::select!(@read $order $names $arms $steps [($crate::__select::AT_ONCE) ($body)] $($rest)*)
    };
    (@read $order:ident $names:tt $arms:tt $steps:tt [] default $(())? => $body:expr) => {
        $crate::select!(@read $order $names $arms $steps [($crate::__select::AT_ONCE) ($body)])
    };
    (@read $order:ident $names:tt $arms:tt $steps:tt [] default $(())? => $body:block $($rest:tt)*) => {
        $crate::select!(@read $order $names $arms $steps [($crate::__select::AT_ONCE) ($body)] $($rest)*)
    };
    (@read $order:ident $names:tt $arms:tt [$($steps:tt)*] []
        default($kind:ident: $limit:expr $(,)?) => $body:expr, $($rest:tt)*
    ) => {
        $crate::select!(@read $order $names $arms
            [$($steps)* { default $kind ($limit) until }] [(until) ($body)] $($rest)*)
    };
    (@read $order:ident $names:tt $arms:tt [$($steps:tt)*] []
        default($kind:ident: $limit:expr $(,)?) => $body:expr
    ) => {
        $crate::select!(@read $order $names $arms
            [$($steps)* { default $kind ($limit) until }] [(until) ($body)])
    };
    (@read $order:ident $names:tt $arms:tt [$($steps:tt)*] []
        default($kind:ident: $limit:expr $(,)?) => $body:block $($rest:tt)*
    ) => {
        $crate::select!(@read $order $names $arms
            [$($steps)* { default $kind ($limit) until }] [(until) ($body)] $($rest)*)
    };
    (@read $order:ident $names:tt $arms:tt $steps:tt [] default $($rest:tt)*) => {
        compile_error!("a default of select! looks like `default => expression,`, \
            `default(after: duration) => expression,` or `default(at: instant) => expression,`")
    };
    (@read $order:ident [] $arms:tt $steps:tt $default:tt $($rest:tt)+) => {
        compile_error!("select! takes 16 arms at most; a greenling::Select takes any number")
    };
    (@read $order:ident [($name:ident $held:ident $number:tt) $($names:tt)*] [$($arms:tt)*] [$($steps:tt)*] $default:tt
        $kind:ident($($args:tt)*) $(-> $pattern:pat)? => $body:expr, $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($names)*]
            [$($arms)* { $name $held $number $kind($($args)*) ($($pattern)?) ($body) }]
            [$($steps)* { $name $held $number $kind($($args)*) }] $default $($rest)*)
    };
    (@read $order:ident [($name:ident $held:ident $number:tt) $($names:tt)*] [$($arms:tt)*] [$($steps:tt)*] $default:tt
        $kind:ident($($args:tt)*) $(-> $pattern:pat)? => $body:expr
    ) => {
        $crate::select!(@read $order [$($names)*]
            [$($arms)* { $name $held $number $kind($($args)*) ($($pattern)?) ($body) }]
            [$($steps)* { $name $held $number $kind($($args)*) }] $default)
    };
    (@read $order:ident [($name:ident $held:ident $number:tt) $($names:tt)*] [$($arms:tt)*] [$($steps:tt)*] $default:tt
        $kind:ident($($args:tt)*) $(-> $pattern:pat)? => $body:block $($rest:tt)*
    ) => {
        $crate::select!(@read $order [$($names)*]
            [$($arms)* { $name $held $number $kind($($args)*) ($($pattern)?) ($body) }]
            [$($steps)* { $name $held $number $kind($($args)*) }] $default $($rest)*)
    };
    (@read $($rest:tt)*) => {
        compile_error!("an arm of select! looks like `recv(receiver) -> result => expression,`")
    };

    // ---- the call ---------------------------------------------------------------------------------------------------
    (@begin $order:ident $($arms:tt)*) => {
        $crate::select!(@read $order
            [
                (arm_0 held_0 0) (arm_1 held_1 1) (arm_2 held_2 2) (arm_3 held_3 3)
                (arm_4 held_4 4) (arm_5 held_5 5) (arm_6 held_6 6) (arm_7 held_7 7)
                (arm_8 held_8 8) (arm_9 held_9 9) (arm_10 held_10 10) (arm_11 held_11 11)
                (arm_12 held_12 12) (arm_13 held_13 13) (arm_14 held_14 14) (arm_15 held_15 15)
            ]
            [] [] [] $($arms)*)
    };
    (biased; $($arms:tt)*) => { $crate::select!(@begin Biased $($arms)*) };
    ($($arms:tt)*) => { $crate::select!(@begin Fair $($arms)*) };
}

/// What the macro refuses, each with a message of its own.
///
/// ```compile_fail
/// greenling::select! {}
/// ```
///
/// ```compile_fail
/// greenling::select! { default => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// greenling::select! { wait(event) => (), default => (), default => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// let limit = std::time::Duration::ZERO;
/// greenling::select! { wait(event) => (), default(after: limit) => (), default => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// greenling::select! { wait(event) => (), default(std::time::Duration::ZERO) => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// greenling::select! { wait(event) => (), default(before: std::time::Duration::ZERO) => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// greenling::select! { wait(event, event) => () }
/// ```
///
/// ```compile_fail
/// let (send, _receive) = greenling::channel::unbounded::<i32>();
/// greenling::select! { send(send) => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// greenling::select! { waits(event) => () }
/// ```
///
/// ```compile_fail
/// let event = greenling::sync::Event::new();
/// greenling::select! { wait(event) => 1 default => 2 }
/// ```
///
/// ```compile_fail
/// let semaphore = || greenling::sync::Semaphore::new(1);
/// greenling::select! { wait(semaphore()) -> permit => permit.forget() } // it borrows from what is gone
/// ```
#[cfg(doctest)]
mod refused {}
