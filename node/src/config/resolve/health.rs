//! The `[health]` section.

use std::time::Duration;

use quorate_actors::health::LatchOptions;
use quorate_actors::node::config::HealthSettings;

use super::Reader;

/// More often than this, looking would be the load.
const SAMPLE_PERIOD_MIN: Duration = Duration::from_millis(100);

/// Each comparison makes connections.
const CHAIN_CHECK_PERIOD_MIN: Duration = Duration::from_secs(1);

impl Reader<'_> {
    pub(super) fn health(&mut self) -> HealthSettings {
        const PERIOD: &str = "health.sample_period";
        const LATCH: &str = "health.error_latch_duration";
        const LIMIT: &str = "health.memory_limit";
        const CHAIN: &str = "health.chain_check_period";
        const UNLATCH: &str = "health.error_unlatch_duration";
        let settings = HealthSettings {
            latch: LatchOptions {
                latch_after: self.duration(LATCH),
                unlatch_after: self.duration(UNLATCH),
                may_unlatch: self.flag("health.allow_error_unlatch"),
            },
            sample_period: self.duration(PERIOD),
            scrub_period: self.duration("health.scrub_period"),
            chain_check_period: self.duration(CHAIN),
            memory_limit: self.value(LIMIT).map(|_| self.bytes(LIMIT)),
        };
        if settings.memory_limit == Some(0) {
            self.refuse(LIMIT, "must be above zero");
        }
        let chain = settings.chain_check_period;
        if !chain.is_zero() && chain < CHAIN_CHECK_PERIOD_MIN {
            self.refuse(CHAIN, "must be at least 1s, or 0s for never");
        }
        if settings.sample_period < SAMPLE_PERIOD_MIN {
            self.refuse(PERIOD, "must be at least 100ms");
        }
        // Otherwise every sample would find the trouble of the one before gone by.
        for (key, duration) in
            [(LATCH, settings.latch.latch_after), (UNLATCH, settings.latch.unlatch_after)]
        {
            if duration < settings.sample_period {
                self.refuse(key, "must be at least health.sample_period");
            }
        }
        settings
    }
}
