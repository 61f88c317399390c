//! How much may be under way at once.

use quorate_actors::node::config::ConcurrencyLimits;

use super::Reader;

impl Reader<'_> {
    pub(super) fn concurrency(&mut self) -> ConcurrencyLimits {
        let mut limit = |path: &'static str| {
            self.value(path)?;
            let limit = self.size(path);
            if limit == 0 {
                self.refuse(path, "must be at least 1");
            }
            Some(limit)
        };
        ConcurrencyLimits {
            stores: limit("storage.limit_concurrent_stores"),
            loads: limit("storage.limit_concurrent_loads"),
            removes: limit("storage.limit_concurrent_removes"),
        }
    }
}
