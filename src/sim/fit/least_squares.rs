//! Least squares with nothing negative, over measurements that are sorted into those that read the weights and those that
//! compute.

use super::Measurement;

/// The coefficients, by column.
pub(super) const NAMES: [&str; COLUMNS] = ["step", "token", "attention", "decode_context", "weights", "sequence"];
const COLUMNS: usize = 6;
pub(super) struct Coefficients {
    pub values: [f64; COLUMNS],
    pub undetermined: Vec<&'static str>,
}

impl Measurement {
    /// What each coefficient is multiplied by. `light` rows read the weights, others compute tokens.
    fn columns(&self, light: bool) -> [f64; COLUMNS] {
        let [tokens, weights] = if light { [0.0, self.steps] } else { [self.tokens, 0.0] };
        [self.steps, tokens, self.pairs, self.decode_context, weights, self.sequences]
    }
}

/// Least squares with nothing negative: the most negative coefficient is dropped until none is.
pub(super) fn solve(measurements: &[Measurement], light: &[bool]) -> Coefficients {
    let mut used = [true; COLUMNS];
    loop {
        let (values, undetermined) = normal(measurements, light, &used);
        let most_negative = (0..COLUMNS).filter(|column| values[*column] < 0.0).min_by(|a, b| {
            let size = |column: usize| values[column] * scale(measurements, light, column);
            size(*a).total_cmp(&size(*b))
        });
        match most_negative {
            Some(column) => used[column] = false,
            None => return Coefficients { values, undetermined },
        }
    }
}

/// The root of the sum of squares of a column, relative to what was measured.
fn scale(measurements: &[Measurement], light: &[bool], column: usize) -> f64 {
    let square = |(row, light): (&Measurement, &bool)| (row.columns(*light)[column] / row.seconds).powi(2);
    measurements.iter().zip(light).map(square).sum::<f64>().sqrt()
}

/// The normal equations over the used columns, each scaled to one, by elimination with pivots.
fn normal(measurements: &[Measurement], light: &[bool], used: &[bool; COLUMNS]) -> ([f64; COLUMNS], Vec<&'static str>) {
    let scales: [f64; COLUMNS] = std::array::from_fn(|column| scale(measurements, light, column));
    let mut rows = [[0.0; COLUMNS + 1]; COLUMNS];
    for (measurement, light) in measurements.iter().zip(light) {
        let columns = measurement.columns(*light);
        let share = |column: usize| {
            let counts = used[column] && scales[column] > 0.0;
            if counts { columns[column] / measurement.seconds / scales[column] } else { 0.0 }
        };
        for (column, row) in rows.iter_mut().enumerate() {
            for (other, sum) in row.iter_mut().take(COLUMNS).enumerate() {
                *sum += share(column) * share(other);
            }
            row[COLUMNS] += share(column);
        }
    }
    let mut values = [0.0; COLUMNS];
    let mut pivots = Vec::new();
    let mut left: Vec<usize> = (0..COLUMNS).collect();
    while let Some(at) = (0..left.len()).max_by(|a, b| {
        let diagonal = |place: usize| rows[left[place]][left[place]];
        // Of equals the first: it is the one better known by its name.
        diagonal(*a).total_cmp(&diagonal(*b)).then(b.cmp(a))
    }) {
        let pivot = left.remove(at);
        if rows[pivot][pivot] < SINGULAR {
            left.push(pivot);
            break;
        }
        let pivot_row = rows[pivot];
        for (_, row) in rows.iter_mut().enumerate().filter(|(column, _)| *column != pivot) {
            let factor = row[pivot] / pivot_row[pivot];
            row.iter_mut().zip(pivot_row).for_each(|(value, of_pivot)| *value -= factor * of_pivot);
        }
        pivots.push(pivot);
    }
    for &pivot in &pivots {
        values[pivot] = rows[pivot][COLUMNS] / rows[pivot][pivot] / scales[pivot];
    }
    let undetermined = left.into_iter().filter(|column| used[*column]).map(|column| NAMES[column]).collect();
    (values, undetermined)
}

/// What is left of a column of length one, squared, when the others explain it but for rounding.
const SINGULAR: f64 = 1e-9;
