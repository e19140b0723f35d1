//! So much a second on average, so much at once.

use std::time::Duration;
use tokio::time::Instant;

/// A bucket that fills by itself. What is taken after the fact may leave it in debt, which time pays.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    size: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(per_second: f64, size: f64) -> Self {
        Bucket { per_second, size, level: size, at: Instant::now() }
    }

    /// Makes it another size, with as much in it as before.
    pub fn resize(&mut self, per_second: f64, size: f64) {
        self.fill();
        (self.per_second, self.size) = (per_second, size);
        self.level = self.level.min(size);
    }

    /// Whether there is so much; if not, when there will be.
    pub fn has(&mut self, amount: f64) -> Result<(), Duration> {
        self.fill();
        if self.level >= amount {
            return Ok(());
        }
        // A rate is at least a billionth of what is possible to write: far less than a year's seconds overflow.
        Err(Duration::try_from_secs_f64((amount - self.level) / self.per_second).unwrap_or(Duration::from_secs(86_400)))
    }

    /// Takes so much, whether it is there or not.
    pub fn take(&mut self, amount: f64) {
        self.fill();
        self.level -= amount;
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(self.size);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_gives_its_size_at_once_and_its_rate_after_that() {
        let mut bucket = Bucket::new(2.0, 3.0);
        for _ in 0..3 {
            assert_eq!(bucket.has(1.0), Ok(()));
            bucket.take(1.0);
        }
        assert_eq!(bucket.has(1.0), Err(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(bucket.has(1.0), Ok(()));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(bucket.has(3.0), Ok(()));
        assert!(bucket.has(3.1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_paid_by_time() {
        let mut bucket = Bucket::new(10.0, 60.0);
        bucket.take(160.0);
        assert_eq!(bucket.has(1.0), Err(Duration::from_millis(10_100)));
        bucket.resize(100.0, 600.0);
        tokio::time::advance(Duration::from_millis(1_010)).await;
        assert_eq!(bucket.has(1.0), Ok(()));
    }
}
