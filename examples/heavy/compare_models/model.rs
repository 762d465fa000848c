//! What is compared: the rungs of `examples/server_models/`, with the limits and the line of each.
#![forbid(unsafe_code)]

use plotters::style::RGBColor;

/// A rung of the ladder.
#[derive(Debug)]
pub(crate) struct Model {
    /// The name that `server_models --model` takes.
    pub(crate) name: &'static str,
    /// What ends the list of points, in the words of the table; empty if no such limit is known.
    pub(crate) nature: &'static str,
    /// How many idle connections are tried at most.
    pub(crate) most_idle: usize,
    /// The model serves one client at a time: that many are active.
    pub(crate) alone: bool,
    /// The model is also measured with one client alone: then each request is one wait, and shows what a wait costs.
    pub(crate) waits: bool,
    /// A last point before the points that the model cannot do.
    pub(crate) last_point: Option<usize>,
    /// The look of the model's line in the chart.
    pub(crate) look: Look,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The color of the line and of the markers.
    pub(crate) color: RGBColor,
    /// A dashed line: where two lines lie one on the other, both can be seen.
    pub(crate) dashed: bool,
    /// The marker at each point.
    pub(crate) marker: Marker,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Marker {
    Circle,
    Cross,
    Square,
    Triangle,
}

/// More processes than that are no comparison any more, but a test of the machine.
const MOST_PROCESSES: usize = 1000;

/// A number that is larger than all that are tried.
const ANY: usize = 1_000_000;

const fn model(name: &'static str, color: (u8, u8, u8), marker: Marker) -> Model {
    let look = Look { color: RGBColor(color.0, color.1, color.2), dashed: false, marker };
    Model { name, nature: "", most_idle: ANY, alone: false, waits: false, last_point: None, look }
}

const fn dashed(look: Look) -> Look {
    Look { dashed: true, ..look }
}

use Marker::{Circle, Cross, Square, Triangle};

/// All models, from the bottom of the ladder.
pub(crate) const MODELS: &[Model] = &[
    Model { nature: "one client at a time", alone: true, ..model("blocking", (0, 0, 0), Cross) },
    Model { nature: "1000 processes at most", most_idle: MOST_PROCESSES, ..model("process", (140, 86, 75), Square) },
    Model { nature: "out of OS threads", ..model("thread", (227, 90, 180), Square) },
    model("nonblocking", (120, 120, 120), Triangle),
    Model {
        nature: "FD_SETSIZE is 1024",
        waits: true,
        last_point: Some(900),
        ..model("select", (255, 127, 14), Circle)
    },
    Model {
        nature: "FD_SETSIZE is 1024",
        last_point: Some(900),
        look: dashed(model("", (180, 120, 0), Triangle).look),
        ..model("select-stdin", (0, 0, 0), Circle)
    },
    Model { waits: true, ..model("poll", (214, 39, 40), Circle) },
    Model { waits: true, ..model("epoll-lt", (31, 119, 180), Circle) },
    Model {
        waits: true,
        look: dashed(model("", (0, 170, 200), Triangle).look),
        ..model("epoll-et", (0, 0, 0), Circle)
    },
    model("greenlet", (130, 90, 200), Square),
    Model { waits: true, ..model("green", (30, 150, 50), Square) },
    Model { look: dashed(model("", (0, 90, 20), Cross).look), ..model("green-hubs", (0, 0, 0), Circle) },
    // `server_models` has these two models only when built with the feature, as both are by one command.
    #[cfg(feature = "monkey")]
    Model {
        waits: true,
        look: dashed(model("", (150, 190, 0), Triangle).look),
        ..model("green-patched", (0, 0, 0), Circle)
    },
    #[cfg(feature = "monkey")]
    Model {
        waits: true,
        look: dashed(model("", (90, 60, 160), Square).look),
        ..model("green-threads-patched", (0, 0, 0), Circle)
    },
];
