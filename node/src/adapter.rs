//! What the admin port sees of the running node.

use std::sync::Arc;
use std::time::Duration;

use quorate_actors::archive::{Archive, ArchiveStatus};
use quorate_actors::clock;
use quorate_actors::divergence::Divergence;
use quorate_actors::health::{Health, HealthView};
use quorate_actors::metrics::Metrics;
use quorate_actors::node::{Certificates, Drain, Drained, RunningNode};
use quorate_actors::orders::OrderDesk;
use quorate_actors::quorum::QuorumHandle;
use quorate_actors::replication::{Candidate, Candidates};
use quorate_actors::scrub::Scrubber;
use quorate_actors::snapshot::{SnapshotProgress, SnapshotSending, SnapshotStats};
use quorate_actors::storage::state::{CompactError, CompactProgress, Compacted, StateReader};
use quorate_actors::storage::{Freed, MemoryRelief};
use quorate_actors::supervisor::Lifecycle;
use quorate_actors::view::Published;

use crate::admin::{BoxFuture, ContentHash, NodeView, Positions};
use crate::failure::Failure;
use crate::reload::{ReloadReport, Reloader};
use crate::stop::Stop;

/// Handles of the node's parts. They outlive a borrow of it.
pub(crate) struct Adapter {
    published: Arc<Published>,
    lifecycle: Arc<Lifecycle>,
    metrics: Metrics,
    state: StateReader,
    relief: MemoryRelief,
    health: Arc<Health>,
    snapshots: Arc<SnapshotStats>,
    divergence: Arc<Divergence>,
    quorum: QuorumHandle,
    candidates: Arc<Candidates>,
    scrubber: Scrubber,
    orders: OrderDesk,
    archive: Archive,
    drain: Drain,
    stop: Arc<Stop>,
    reloader: Arc<Reloader>,
    certificates: Arc<Certificates>,
}

impl Adapter {
    pub(crate) fn new(node: &RunningNode, stop: Arc<Stop>, reloader: Arc<Reloader>) -> Self {
        Self {
            published: node.published().clone(),
            lifecycle: node.supervisor().lifecycle().clone(),
            metrics: node.metrics().clone(),
            state: node.state().clone(),
            relief: node.relief().clone(),
            health: node.health().clone(),
            snapshots: node.snapshots().clone(),
            divergence: node.divergence().clone(),
            quorum: node.quorum().clone(),
            candidates: node.candidates().clone(),
            scrubber: node.scrubber().clone(),
            orders: node.orders().clone(),
            archive: node.archive().clone(),
            drain: node.draining(),
            stop,
            reloader,
            certificates: node.certificates().clone(),
        }
    }
}

impl NodeView for Adapter {
    fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    fn published(&self) -> &Published {
        &self.published
    }

    fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    fn orders(&self) -> Option<&OrderDesk> {
        Some(&self.orders)
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.candidates.list()
    }

    fn scrubber(&self) -> Option<&Scrubber> {
        Some(&self.scrubber)
    }

    fn positions(&self) -> Positions {
        Positions {
            committed: self.published.committed().0,
            acknowledgeable: self.published.acknowledgeable().0,
            applied: self.published.applied().0,
        }
    }

    fn may_read(&self) -> bool {
        self.published.may_read(clock::now())
    }

    fn health(&self) -> Arc<HealthView> {
        self.health.view()
    }

    fn archiver(&self) -> Option<&Archive> {
        Some(&self.archive)
    }

    fn archive(&self) -> Arc<ArchiveStatus> {
        self.archive.status()
    }

    fn divergence(&self) -> Option<String> {
        self.divergence.told()
    }

    fn compacting(&self) -> Option<CompactProgress> {
        self.state.compact_progress()
    }

    fn receiving(&self) -> Option<SnapshotProgress> {
        self.snapshots.progress()
    }

    fn sending(&self) -> Vec<SnapshotSending> {
        self.snapshots.sending()
    }

    fn metrics(&self) -> Result<String, String> {
        self.metrics.render().map_err(|error| error.to_string())
    }

    fn flush(&self) -> Result<u64, String> {
        let flushed = self.state.flush().and_then(|()| self.state.flushed());
        flushed.map(|position| position.id.seq.0).map_err(|error| error.to_string())
    }

    fn compact(&self) -> Result<Compacted, CompactError> {
        self.state.compact()
    }

    fn relieve(&self) -> Freed {
        self.relief.relieve()
    }

    fn content_hash(&self) -> Result<ContentHash, String> {
        let hash = self.state.content_hash().map_err(|error| error.to_string())?;
        let hex = hash.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(ContentHash { applied_seq: hash.id.seq.0, keys: hash.keys, content_hash: hex })
    }

    fn drain(&self, limit: Duration) -> BoxFuture<'_, Drained> {
        Box::pin(self.drain.run(limit))
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn set_log_filter(&self, filter: &str) -> Option<Result<(), Failure>> {
        Some(self.reloader.set_log_filter(filter))
    }

    fn reload(&self) -> Option<ReloadReport> {
        Some(self.reloader.reload())
    }

    fn certificate_days(&self) -> Option<i64> {
        Some(self.certificates.days_left())
    }
}
