//! What was measured of one contender, and the table of all.

use crate::measure::quantile;

#[derive(Default)]
pub struct Row {
    pub name: &'static str,
    pub store_ns: Vec<f64>,
    pub remove_ns: Vec<f64>,
    /// Per (block, instance) pair.
    pub bytes: f64,
    pub full_ns: Vec<f64>,
    pub arrival_ns: Vec<f64>,
    pub mix_read_ns: Vec<f64>,
    pub mix_write_ns: Vec<f64>,
    /// Sum of the best overlaps found: equal for all who are right.
    pub found: u64,
}

const COLUMNS: [&str; 9] =
    ["store", "remove", "bytes", "full p50", "full p99", "arr p50", "arr p99", "mix read", "mix write"];

impl Row {
    fn figures(&mut self) -> [Option<f64>; 9] {
        let median = |values: &mut Vec<f64>, q: f64| (!values.is_empty()).then(|| quantile(values, q));
        [
            median(&mut self.store_ns, 0.5),
            median(&mut self.remove_ns, 0.5),
            Some(self.bytes),
            median(&mut self.full_ns, 0.5),
            median(&mut self.full_ns, 0.99),
            median(&mut self.arrival_ns, 0.5),
            median(&mut self.arrival_ns, 0.99),
            median(&mut self.mix_read_ns, 0.5),
            median(&mut self.mix_write_ns, 0.5),
        ]
    }
}

/// Prints the rows, the first of which is ours, and how the best of the others compares: over 1 is better for us.
pub fn print(mut rows: Vec<Row>) {
    print!("{:22}", "ns a block or lookup");
    COLUMNS.iter().for_each(|column| print!(" {column:>9}"));
    println!();
    let expected = rows[0].found;
    let figures: Vec<[Option<f64>; 9]> = rows.iter_mut().map(Row::figures).collect();
    for (row, figures) in rows.iter().zip(&figures) {
        print!("{:22}", row.name);
        figures.iter().for_each(|figure| match figure {
            Some(value) => print!(" {value:>9.1}"),
            None => print!(" {:>9}", "-"),
        });
        println!("{}", if row.found == expected { "" } else { "  DISAGREES" });
    }
    print!("{:22}", "best peer / ours");
    for column in 0..COLUMNS.len() {
        let peers = figures[1..].iter().filter_map(|figures| figures[column]);
        let best = peers.min_by(f64::total_cmp).expect("a peer was measured");
        print!(" {:>9.2}", best / figures[0][column].expect("we were measured"));
    }
    println!();
}
