//! What is known of a node before there is one: its life, and nothing of its data.

use std::sync::Arc;
use std::time::Duration;

use quorate_actors::archive::{Archive, ArchiveStatus};
use quorate_actors::health::HealthView;
use quorate_actors::metrics::Metrics;
use quorate_actors::node::Drained;
use quorate_actors::orders::OrderDesk;
use quorate_actors::quorum::QuorumHandle;
use quorate_actors::scrub::Scrubber;
use quorate_actors::snapshot::SnapshotProgress;
use quorate_actors::storage::Freed;
use quorate_actors::storage::state::{CompactError, Compacted};
use quorate_actors::supervisor::{Lifecycle, Phase};
use quorate_actors::view::{Published, View};
use quorate_actors::wake::Wake;
use quorate_protocol::types::NodeId;

use super::{BoxFuture, ContentHash, NodeView, Positions};
use crate::stop::Stop;

/// A node whose recovery is under way.
pub(crate) struct StartingNode {
    lifecycle: Arc<Lifecycle>,
    metrics: Metrics,
    stop: Arc<Stop>,
    published: Arc<Published>,
    quorum: QuorumHandle,
}

impl StartingNode {
    pub(crate) fn new(
        node: NodeId,
        lifecycle: Arc<Lifecycle>,
        metrics: Metrics,
        stop: Arc<Stop>,
    ) -> Self {
        let published = Published::new();
        published.set_view(View { node, ..View::default() });
        // Nobody is behind its queues.
        let (quorum, _) = QuorumHandle::new(Arc::new(Wake::new(|| {})));
        Self { lifecycle, metrics, stop, published, quorum }
    }

    fn refuse<T>(&self) -> Result<T, String> {
        Err(format!("the node is starting: {}", self.lifecycle.starting().unwrap_or_default()))
    }
}

impl NodeView for StartingNode {
    fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Never that of the node which this one gives way to.
    fn phase(&self) -> Phase {
        match self.lifecycle.phase() {
            Phase::Starting | Phase::Ready => Phase::Starting,
            phase @ (Phase::Draining | Phase::ShuttingDown | Phase::Stopped) => phase,
        }
    }

    fn published(&self) -> &Published {
        &self.published
    }

    fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    fn orders(&self) -> Option<&OrderDesk> {
        None
    }

    fn candidates(&self) -> Vec<quorate_actors::replication::Candidate> {
        Vec::new()
    }

    fn scrubber(&self) -> Option<&Scrubber> {
        None
    }

    fn positions(&self) -> Positions {
        Positions::default()
    }

    fn may_read(&self) -> bool {
        false
    }

    fn health(&self) -> Arc<HealthView> {
        Arc::default()
    }

    fn archiver(&self) -> Option<&Archive> {
        None
    }

    fn archive(&self) -> Arc<ArchiveStatus> {
        Arc::default()
    }

    fn receiving(&self) -> Option<SnapshotProgress> {
        None
    }

    fn metrics(&self) -> Result<String, String> {
        self.metrics.render().map_err(|error| error.to_string())
    }

    fn flush(&self) -> Result<u64, String> {
        self.refuse()
    }

    fn compact(&self) -> Result<Compacted, CompactError> {
        Err(CompactError::UnderWay)
    }

    fn relieve(&self) -> Freed {
        Freed { memtables: 0, block_cache: 0, log_cache: 0 }
    }

    fn content_hash(&self) -> Result<ContentHash, String> {
        self.refuse()
    }

    fn drain(&self, _: Duration) -> BoxFuture<'_, Drained> {
        Box::pin(std::future::ready(Drained::Starting))
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }
}
