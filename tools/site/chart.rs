//! The small charts of the page of versions: one row's values from the first version to the last, as SVG.

use std::fmt::Write;

use crate::highlight::escaped;
use crate::versions::{Line, Version, shown};

/// How many colours the machines have; then they begin again.
pub const COLOURS: usize = 4;

/// The size of a chart, and what stays free around it.
const WIDTH: f64 = 130.0;
const HEIGHT: f64 = 36.0;
const FREE: f64 = 5.0;

/// The ratios of all versions: a line between neighbours.
pub fn ratios(line: &Line, versions: &[Version]) -> String {
    let values: Vec<Option<f64>> =
        line.points.iter().map(|point| point.as_ref().and_then(|point| point.ratio)).collect();
    let all: Vec<usize> = (0..values.len()).collect();
    drawn(&values, &[("ratio", all)], versions, "×")
}

/// The raw values: a line between neighbours among the versions of one machine.
pub fn raw(line: &Line, versions: &[Version]) -> String {
    let values: Vec<Option<f64>> = line.points.iter().map(|point| point.as_ref().map(|point| point.raw)).collect();
    let mut machines: Vec<usize> = versions.iter().map(|version| version.on).collect();
    machines.sort_unstable();
    machines.dedup();
    let classes: Vec<String> = machines.iter().map(|on| format!("m{}", on % COLOURS)).collect();
    let series: Vec<(&str, Vec<usize>)> = machines
        .iter()
        .zip(&classes)
        .map(|(on, class)| (&class[..], (0..values.len()).filter(|at| versions[*at].on == *on).collect()))
        .collect();
    drawn(&values, &series, versions, &line.unit)
}

/// A chart of some series: a class, and its versions in order. A version without a value ends a line.
fn drawn(values: &[Option<f64>], series: &[(&str, Vec<usize>)], versions: &[Version], unit: &str) -> String {
    let Some(highest) = values.iter().flatten().copied().reduce(f64::max) else { return String::new() };
    // Zero is at the edge, unless there are values on both sides of it.
    let lowest = values.iter().flatten().copied().fold(0.0, f64::min);
    let whole = (highest.max(0.0) - lowest).max(f64::MIN_POSITIVE);
    let step = (WIDTH - 2.0 * FREE) / (values.len().max(2) - 1) as f64;
    let place = |at: usize, value: f64| {
        let y = HEIGHT - FREE - (value - lowest) / whole * (HEIGHT - 2.0 * FREE);
        (FREE + step * at as f64, y)
    };
    let zero = place(0, 0.0).1;
    let mut svg = format!(
        "<svg width={WIDTH} height={HEIGHT} viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img>\
         <path class=axis d=\"M0 {zero:.1}H{WIDTH}\"/>"
    );
    for (class, members) in series {
        for run in members.split(|at| values[*at].is_none()).filter(|run| run.len() > 1) {
            let points = run.iter().filter_map(|at| values[*at].map(|value| place(*at, value)));
            let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            _ = write!(svg, "<polyline class={class} points=\"{}\"/>", points.join(" "));
        }
        for (at, value) in members.iter().filter_map(|at| values[*at].map(|value| (*at, value))) {
            let ((x, y), version) = (place(at, value), &versions[at]);
            let busy = if version.is_busy { " busy" } else { "" };
            let said = escaped(&format!("{}: {} {unit}", version.name, shown(value)));
            _ = write!(svg, "<circle class=\"{class}{busy}\" cx={x:.1} cy={y:.1} r=2.6><title>{said}</title></circle>");
        }
    }
    svg + "</svg>"
}
