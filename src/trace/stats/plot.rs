//! Line plots as SVG.

use std::fmt::Write;

/// A plot of lines over a common axis. What comes from a trace is escaped by the caller.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: &'static str,
    /// Stands below the title, and may be longer than that.
    pub(super) y: String,
    /// Powers of ten are equally far apart on the x axis.
    pub(super) log_x: bool,
    pub(super) lines: Vec<Line>,
}

/// A line of a plot.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Beside each point of the line: drawn dashed, in the same colour. What it is, the title says.
    pub(super) beside: Vec<(f64, f64)>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 272.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 42.0;
/// What a logarithmic axis shows of zero, and of all that is smaller.
const LEAST: f64 = 0.001;
const BOTTOM: f64 = 44.0;
/// Distinguishable with any colour vision (Okabe and Ito).
pub(super) const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

impl Plot {
    /// The plot as an `svg` element.
    pub(super) fn to_svg(&self) -> String {
        let place = |x: f64| if self.log_x { x.max(LEAST).log10() } else { x };
        let points = || self.lines.iter().flat_map(|line| line.points.iter().chain(&line.beside));
        let (x_min, x_max) = range(points().map(|&(x, _)| place(x)));
        let (_, y_max) = range(points().map(|&(_, y)| y).chain([0.0]));
        let y_step = step(y_max / 4.0);
        let y_max = (y_max / y_step).ceil() * y_step;
        let across = |x: f64| LEFT + (place(x) - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", self.title);
        let mut text = |x: f64, y: f64, anchor: &str, class: &str, said: &str| {
            let _ =
                write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{said}</text>");
        };
        text(LEFT, 16.0, "start", "title", &self.title);
        text(LEFT, 32.0, "start", "", &self.y);
        text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 6.0, "middle", "", self.x);
        let x_ticks = if self.log_x { log_ticks(x_min, x_max) } else { ticks(x_min, x_max) };
        let clips = self.log_x && points().any(|&(x, _)| x < LEAST);
        for &x in &x_ticks {
            let least = if clips && x <= LEAST { "≤ " } else { "" };
            text(across(x), HEIGHT - BOTTOM + 16.0, "middle", "", &format!("{least}{}", number(x)));
        }
        let y_ticks = ticks(0.0, y_max);
        for &y in &y_ticks {
            text(LEFT - 6.0, up(y) + 4.0, "end", "", &number(y));
        }
        for (index, line) in self.lines.iter().enumerate().filter(|_| self.lines.len() > 1) {
            let colour = format!("series{}", index % COLOURS.len());
            text(WIDTH - RIGHT - 4.0, HEIGHT - BOTTOM - 8.0 - 14.0 * index as f64, "end", &colour, &line.name);
        }
        for y in y_ticks.into_iter().map(up) {
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT);
        }
        for x in x_ticks.into_iter().map(across) {
            let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{:.1}\"/>", HEIGHT - BOTTOM);
        }
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let drawn = [(&line.points, "1.8"), (&line.beside, "1.2\" stroke-dasharray=\"4 3")];
            for (points, width) in drawn.into_iter().filter(|(points, _)| !points.is_empty()) {
                let path: Vec<String> = points.iter().map(|&(x, y)| format!("{:.1} {:.1}", across(x), up(y))).collect();
                let path = path.join("L");
                let _ = write!(svg, "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" d=\"M{path}\"/>");
            }
        }
        svg + "</svg>"
    }
}

/// The extremes, kept apart where they are equal.
fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (min, max) = numbers.fold((f64::MAX, f64::MIN), |(min, max), number| (min.min(number), max.max(number)));
    if min < max { (min, max) } else { (min.min(0.0), min.max(0.0) + 1.0) }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    power * factors.into_iter().find(|factor| factor * power >= least * 0.999_999).unwrap_or(10.0)
}

/// Round numbers from `min` to `max`: five or fewer steps.
fn ticks(min: f64, max: f64) -> Vec<f64> {
    let step = step((max - min) / 5.0);
    let first = (min / step - 1e-9).ceil() as i64;
    let last = (max / step + 1e-9).floor() as i64;
    (first..=last).map(|times| times as f64 * step).collect()
}

/// Powers of ten between those of `min` and `max`; where these are few, twice and five times these, too.
fn log_ticks(min: f64, max: f64) -> Vec<f64> {
    let powers = (min.floor() as i32..=max.ceil() as i32).map(|power| 10_f64.powi(power));
    let factors: &[f64] = if max - min < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all = powers.flat_map(|power| factors.iter().map(move |factor| power * factor));
    let inside: Vec<f64> = all.filter(|tick| (min - 1e-9..=max + 1e-9).contains(&tick.log10())).collect();
    // Over many powers of ten, every second or third.
    let every = inside.len().div_ceil(8).max(1);
    inside.into_iter().step_by(every).collect()
}

/// A number short enough for an axis.
fn number(number: f64) -> String {
    let (shown, unit) = match number.abs() {
        1e6.. => (number / 1e6, "M"),
        1e4.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let digits = format!("{shown:.3}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// The colours, for a page's style.
pub(super) fn style() -> String {
    let series = COLOURS.iter().enumerate().map(|(index, colour)| format!(".series{index}{{fill:{colour}}}"));
    series.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_marked_at_round_numbers() {
        let said = |ticks: Vec<f64>| ticks.into_iter().map(number).collect::<Vec<_>>().join(" ");
        assert_eq!(said(ticks(0.0, 3536.0)), "0 1000 2000 3000");
        assert_eq!(said(ticks(0.0, 0.4)), "0 0.1 0.2 0.3 0.4");
        assert_eq!(said(ticks(1.0, 20.0)), "5 10 15 20");
        assert_eq!(said(log_ticks(0.0, 5.1)), "1 10 100 1000 10k 100k");
        assert_eq!(said(log_ticks(3.26, 4.96)), "2000 5000 10k 20k 50k");
        assert_eq!(said(log_ticks(-3.0, 8.0)), "0.001 0.1 10 1000 100k 10M");
        assert_eq!((step(1.3), step(5.0), step(0.03)), (2.0, 5.0, 0.05));
    }
}
