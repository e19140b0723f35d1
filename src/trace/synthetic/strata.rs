//! Numbers from 0 to 1 that chance spreads evenly.

use rand::RngExt;
use rand_pcg::Pcg64;

/// Draws from 0 to below 1. Each is as likely anywhere, but of any [`Strata::COUNT`] in a row from the first, each equal part
/// of the interval has one (stratified sampling): as many of them are below a share as the share says, whatever the chance.
#[derive(Debug, Default)]
pub(super) struct Strata {
    /// The parts that have none yet.
    left: Vec<u32>,
}

impl Strata {
    /// How many parts there are. Shares are given to the hundredth or thousandth, sessions come in tens of thousands.
    const COUNT: u32 = 128;

    pub(super) fn draw(&mut self, chance: &mut Pcg64) -> f64 {
        if self.left.is_empty() {
            self.left.extend(0..Self::COUNT);
        }
        let part = self.left.swap_remove(chance.random_range(0..self.left.len()));
        (f64::from(part) + chance.random::<f64>()) / f64::from(Self::COUNT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn draws_are_spread_evenly_and_in_no_order() {
        let mut chance = Pcg64::seed_from_u64(3);
        let mut strata = Strata::default();
        let draws: Vec<f64> = (0..2 * Strata::COUNT).map(|_| strata.draw(&mut chance)).collect();
        for half in draws.chunks(Strata::COUNT as usize) {
            assert_eq!(half.iter().filter(|&&draw| draw < 0.25).count(), Strata::COUNT as usize / 4);
            let mut parts: Vec<u32> = half.iter().map(|draw| (draw * f64::from(Strata::COUNT)) as u32).collect();
            assert!(!parts.is_sorted());
            parts.sort_unstable();
            assert_eq!(parts, (0..Strata::COUNT).collect::<Vec<_>>());
        }
    }
}
