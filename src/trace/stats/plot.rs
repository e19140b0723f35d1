//! Line plots as SVG.

use std::fmt::Write;

/// A plot of lines over a common axis. What comes from a trace is escaped by the caller.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// Powers of ten are equally far apart on the x axis.
    pub(super) log_x: bool,
    pub(super) lines: Vec<(String, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 44.0;
/// Distinguishable with any colour vision (Okabe and Ito).
pub(super) const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

impl Plot {
    /// The plot as an `svg` element.
    pub(super) fn to_svg(&self) -> String {
        let place = |x: f64| if self.log_x { x.max(0.001).log10() } else { x };
        let points = || self.lines.iter().flat_map(|(_, line)| line.iter());
        let (x_min, x_max) = range(points().map(|&(x, _)| place(x)));
        let (_, y_max) = range(points().map(|&(_, y)| y).chain([0.0]));
        let across = |x: f64| LEFT + (place(x) - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", self.title);
        let mut text = |x: f64, y: f64, anchor: &str, class: &str, said: &str| {
            let _ =
                write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{said}</text>");
        };
        text(LEFT, 18.0, "start", "title", &self.title);
        text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 6.0, "middle", "", self.x);
        for step in 0..=4 {
            let part = f64::from(step) / 4.0;
            let x = x_min + part * (x_max - x_min);
            let shown = if self.log_x { 10_f64.powf(x) } else { x };
            text(LEFT + part * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM + 16.0, "middle", "", &number(shown));
            text(LEFT - 6.0, up(part * y_max) + 4.0, "end", "", &number(part * y_max));
        }
        text(WIDTH - RIGHT, 18.0, "end", "", self.y);
        for (index, (name, _)) in self.lines.iter().enumerate().filter(|_| self.lines.len() > 1) {
            let colour = format!("series{}", index % COLOURS.len());
            text(WIDTH - RIGHT - 4.0, HEIGHT - BOTTOM - 8.0 - 14.0 * index as f64, "end", &colour, name);
        }
        for step in 0..=4 {
            let y = up(f64::from(step) / 4.0 * y_max);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT);
        }
        for (index, (_, line)) in self.lines.iter().enumerate() {
            let path: Vec<String> = line.iter().map(|&(x, y)| format!("{:.1} {:.1}", across(x), up(y))).collect();
            let colour = COLOURS[index % COLOURS.len()];
            let _ =
                write!(svg, "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" d=\"M{}\"/>", path.join("L"));
        }
        svg + "</svg>"
    }
}

/// The extremes, kept apart where they are equal.
fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (min, max) = numbers.fold((f64::MAX, f64::MIN), |(min, max), number| (min.min(number), max.max(number)));
    if min < max { (min, max) } else { (min.min(0.0), min.max(0.0) + 1.0) }
}

/// A number short enough for an axis.
fn number(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => format!("{:.3}M", number / 1e6),
        size if size >= 1e4 => format!("{:.0}k", number / 1e3),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 1.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The colours, for a page's style.
pub(super) fn style() -> String {
    let series = COLOURS.iter().enumerate().map(|(index, colour)| format!(".series{index}{{fill:{colour}}}"));
    series.collect()
}
