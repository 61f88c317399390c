//! What `quorate dev` tells while the cluster runs: nodes that end or come back, and who leads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::layout::Layout;
use super::process::NodeProcess;
use crate::admin::status::Status;
use crate::http::AdminUrl;
use crate::output::say;
use crate::status;

const POLL: Duration = Duration::from_millis(100);

/// Asking all nodes costs a little; a change of primary is seen soon enough so.
const STATUS_PERIOD: Duration = Duration::from_millis(500);

/// The longest wait for one node's status.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Runs until it is told to stop, beginning with this node as primary. A node that ends stays
/// down, so that the effect shows.
pub(super) fn run(layout: &Layout, nodes: &mut [NodeProcess], primary: u16, stop: &AtomicBool) {
    let mut leader = u64::from(primary);
    let mut epoch = None;
    let mut last_asked = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for node in nodes.iter_mut() {
            tell_changes(layout, node);
        }
        if last_asked.elapsed() >= STATUS_PERIOD {
            last_asked = Instant::now();
            if let Some((new_epoch, node)) = newest_primary(layout, nodes) {
                if node != leader || epoch.is_some_and(|epoch| epoch < new_epoch) {
                    say(format_args!("node-{node} is primary now (epoch {new_epoch})"));
                }
                (leader, epoch) = (node, Some(new_epoch));
            }
        }
        std::thread::sleep(POLL);
    }
}

fn tell_changes(layout: &Layout, node: &mut NodeProcess) {
    if let Some(ended) = node.has_ended() {
        say(format_args!(
            "node-{} is down ({}); start it again with:\n  quorate start --config {}",
            ended.id,
            ended.how,
            layout.config(ended.id).display()
        ));
    } else if !node.is_running() && node.adopt() {
        say(format_args!("node-{} runs again (pid {})", node.id(), node.pid_text()));
    }
}

/// The primary of the newest epoch, as it says itself, and that epoch.
fn newest_primary(layout: &Layout, nodes: &mut [NodeProcess]) -> Option<(u64, u64)> {
    nodes
        .iter_mut()
        .filter_map(|node| node.is_running().then(|| node.id()))
        .filter_map(|id| status::fetch(&AdminUrl::at(layout.admin(id)), ANSWER_LIMIT).ok())
        .filter(|status: &Status| status.role == "primary" && status.primary == Some(status.node))
        .map(|status| (status.epoch, status.node))
        .max()
}
