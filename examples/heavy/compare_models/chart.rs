//! The chart: three panels over the number of idle connections, one line for each model, the legend beside them.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Row;
use crate::measure::Figures;
use crate::model::{Look, MODELS, Marker};

/// The font, which any viewer has.
const FONT: &str = "sans-serif";

const SIZE: (u32, u32) = (1000, 1260);

/// Where the axis of idle connections begins: a little before 0.
const LEFT: f64 = -0.15;

/// The width of the panels; the legend has the rest.
const PANELS: u32 = 840;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A panel: the title, the unit, and what is shown of a point.
type Panel = (&'static str, &'static str, fn(&Figures) -> f64);

const THREE: [Panel; 3] = [
    ("CPU time of the server for each answer", "microseconds", |figures| figures.cpu_us),
    ("Throughput", "answers per second", |figures| figures.answers_per_s),
    ("Memory of the server's processes, shared pages counted once", "MiB", |figures| {
        figures.proportional_kib as f64 / 1024.0
    }),
];

/// Writes the chart. `captions` stand under the title, a line each.
pub(crate) fn draw(path: &Path, rows: &[Row], captions: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut svg = String::new();
    // As text first: a backend that writes to a file does not report failures.
    paint(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), rows, captions)?;
    Ok(std::fs::write(path, svg)?)
}

/// Draws title, panels and legend.
fn paint(root: Area, rows: &[Row], captions: &[&str]) -> Result<(), Box<dyn Error>> {
    root.fill(&WHITE)?;
    let root = root.margin(10, 10, 10, 10);
    let from_left = |size| (FONT, size).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Top));
    root.draw(&Text::new("From blocking to green: one echo server, many ways to serve", (20, 0), from_left(24)))?;
    for (number, caption) in captions.iter().enumerate() {
        root.draw(&Text::new((*caption).to_owned(), (20, 34 + 18 * number as i32), from_left(15)))?;
    }
    let (_, below) = root.split_vertically(70);
    let (panels, legend) = below.split_horizontally(PANELS);
    for (area, panel) in panels.split_evenly((3, 1)).iter().zip(THREE) {
        draw_panel(area, rows, panel)?;
    }
    draw_legend(&legend, rows)?;
    root.present()?;
    Ok(())
}

/// Returns the place of a number of idle connections: as on a logarithmic axis, with 0 at the left.
fn place(idle: usize) -> f64 {
    if idle == 0 { 0.0 } else { 0.6 + (idle as f64 / 10.0).log10().max(0.0) }
}

/// Draws the axes of a panel, and the line of each model.
fn draw_panel(area: &Area, rows: &[Row], (title, unit, value): Panel) -> Result<(), Box<dyn Error>> {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.outcome.as_ref().ok().map(value)).collect();
    let lowest = values.iter().copied().filter(|&value| value > 0.0).fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(0.0, f64::max);
    // Nothing was measured: any axis will do.
    let (low, high) = if lowest <= highest { (lowest / 1.4, highest * 1.4) } else { (1.0, 10.0) };
    // The last points of some models lie between two of the others', and too close to them for a label.
    let mut ticks: Vec<usize> =
        rows.iter().filter(|row| row.model.last_point != Some(row.idle)).map(|row| row.idle).collect();
    ticks.sort_unstable();
    ticks.dedup();
    let right = place(ticks.last().copied().unwrap_or(0)) + 0.15;
    // The axes, without the library's own labels: those of a logarithmic axis are too many.
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin_right(10)
        .margin_top(14)
        .x_label_area_size(46)
        .y_label_area_size(85)
        .build_cartesian_2d(LEFT..right, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(0)
        .y_label_formatter(&|_| String::new())
        .x_desc("idle connections (logarithmic, 0 at the left)")
        .y_desc(format!("{unit} (logarithmic)"))
        .axis_desc_style((FONT, 14))
        .draw()?;
    let beside = (FONT, 14).into_font().color(&BLACK).pos(Pos::new(HPos::Right, VPos::Center));
    for tick in steps(low, high) {
        chart.draw_series([PathElement::new([(LEFT, tick), (right, tick)], BLACK.mix(0.15))])?;
        let label = Text::new(number(tick), (-6, 0), beside.clone());
        chart.draw_series([EmptyElement::at((LEFT, tick)) + label])?;
    }
    let under = (FONT, 14).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
    for tick in ticks {
        let x = place(tick);
        chart.draw_series([PathElement::new([(x, low), (x, high)], BLACK.mix(0.15))])?;
        let label = Text::new(number(tick as f64), (0, 6), under.clone());
        chart.draw_series([EmptyElement::at((x, low)) + label])?;
    }
    // A line for each model, with a marker at each point.
    for model in MODELS {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.model.name == model.name)
            .filter_map(|row| Some((place(row.idle), value(row.outcome.as_ref().ok()?))))
            .filter(|point| point.1 > 0.0)
            .collect();
        let style = model.look.color.stroke_width(2);
        if model.look.dashed {
            chart.draw_series(DashedLineSeries::new(points.iter().copied(), 8, 5, style))?;
        } else {
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        }
        for point in points {
            match model.look.marker {
                Marker::Circle => chart.draw_series([Circle::new(point, 4, model.look.color.filled())])?,
                Marker::Cross => chart.draw_series([Cross::new(point, 5, style)])?,
                Marker::Triangle => chart.draw_series([TriangleMarker::new(point, 6, model.look.color.filled())])?,
                Marker::Square => chart.draw_series([EmptyElement::at(point) + square((0, 0), model.look)])?,
            };
        }
    }
    Ok(())
}

/// Returns a square marker.
fn square((x, y): (i32, i32), look: Look) -> Rectangle<(i32, i32)> {
    Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], look.color.filled())
}

/// Draws the legend: the models that were measured, in the order of the ladder.
fn draw_legend(area: &Area, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let beside = (FONT, 15).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    let measured = MODELS.iter().filter(|model| rows.iter().any(|row| row.model.name == model.name));
    for (number, model) in measured.enumerate() {
        // A piece of the line with the marker, and the name.
        let y = 60 + 28 * number as i32;
        let style = model.look.color.stroke_width(2);
        let pieces: &[(i32, i32)] = if model.look.dashed { &[(0, 8), (13, 21), (26, 34)] } else { &[(0, 34)] };
        for &(from, to) in pieces {
            area.draw(&PathElement::new([(from, y), (to, y)], style))?;
        }
        match model.look.marker {
            Marker::Circle => area.draw(&Circle::new((17, y), 4, model.look.color.filled()))?,
            Marker::Cross => area.draw(&Cross::new((17, y), 5, style))?,
            Marker::Triangle => area.draw(&TriangleMarker::new((17, y), 6, model.look.color.filled()))?,
            Marker::Square => area.draw(&square((17, y), model.look))?,
        }
        area.draw(&Text::new(model.name, (42, y), beside.clone()))?;
    }
    Ok(())
}

/// Returns 1, 2, 5, 10, 20, 50 and so on, between two numbers above 0.
fn steps(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let steps = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)));
    steps.filter(move |step| (low..high).contains(step))
}

/// Returns a number in the form for an axis: `0.5`, `20`, `10 000`.
fn number(value: f64) -> String {
    if value < 10.0 {
        let text = format!("{value:.1}");
        return text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned);
    }
    let mut text = format!("{value:.0}");
    let mut at = text.len();
    while at > 3 {
        at -= 3;
        text.insert(at, ' ');
    }
    text
}
