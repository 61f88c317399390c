//! Latencies, and the result of one measurement.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies from a microsecond to a minute, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("fixed bounds are valid"))
    }
}

impl Latencies {
    /// Adds one request's latency, `count` times.
    pub fn record(&mut self, latency: Duration, count: u64) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(micros.max(1), count);
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this part of all requests did not exceed, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoadResult {
    /// Confirmed requests a second.
    pub ops: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// The longest in milliseconds.
    pub max_ms: f64,
    /// Requests that were answered by an error.
    pub errors: u64,
}

impl LoadResult {
    /// From what was recorded in `elapsed`.
    #[must_use]
    pub fn new(latencies: &Latencies, errors: u64, elapsed: Duration) -> Self {
        Self {
            ops: latencies.count() as f64 / elapsed.as_secs_f64(),
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            max_ms: latencies.quantile_ms(1.0),
            errors,
        }
    }
}
