//! Explanations and simulations as data: computed by the reasoning in `protocol`, served by the
//! admin port, rendered by the command line.

use quorate_actors::quorum::{NodeMedians, Prediction};
use quorate_protocol::policy::{
    Condition, FailureSet, Forecast, Level, Policy, PrimaryIn, Scenario,
};
use quorate_protocol::types::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /policy/explain`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Explained {
    /// The policy's clauses.
    pub(crate) policy: String,
    /// Its name, if it has one.
    pub(crate) preset: Option<String>,
    /// How many voters it is explained for.
    pub(crate) voters: usize,
    /// Copies on disk that an acknowledged write has at least.
    pub(crate) persisted_copies: usize,
    /// Copies in memory or on disk that it has at least.
    pub(crate) copies: usize,
    /// The worst that no acknowledged write is lost by. Stops destroy nothing and are left out.
    pub(crate) keeps: Vec<Failed>,
    /// The least that may lose one.
    pub(crate) loses: Vec<Failed>,
    /// The least that leaves nobody who acknowledges writes.
    pub(crate) blocks_writes: Vec<Failed>,
    /// The least that leaves nobody who serves linearizable reads.
    pub(crate) blocks_reads: Vec<Failed>,
    /// The least that leaves too few voters to elect a primary.
    pub(crate) blocks_elections: Vec<Failed>,
    /// Of all combinations of stops, power cuts and lost disks, how many do what.
    pub(crate) combinations: Combinations,
    /// Why it is a weak choice, if it is.
    pub(crate) weakness: Option<String>,
    /// What it would cost; only the primary can tell, and only for its own voters.
    #[serde(default)]
    pub(crate) latency: Option<Latency>,
}

/// How long writes would wait, by the entries of the last minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Latency {
    /// Median, in milliseconds, from when a command was read until its reply can be written; none
    /// if too few copies came.
    pub(crate) p50_milliseconds: Option<f64>,
    /// Entries that it is taken from.
    pub(crate) entries: usize,
    /// Writes that they stand for.
    pub(crate) writes: u64,
    /// How fast each voter's copies were there.
    pub(crate) nodes: Vec<NodeLatency>,
}

/// Medians of one voter's copies, in milliseconds since an entry was sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NodeLatency {
    /// Its number.
    pub(crate) node: u64,
    /// Copy in memory, as known to the primary.
    pub(crate) in_memory_milliseconds: Option<f64>,
    /// Copy on disk, as known to the primary.
    pub(crate) persisted_milliseconds: Option<f64>,
}

/// A combination of failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Failed {
    /// Voters that are stopped or cut off.
    pub(crate) stopped: usize,
    /// Voters that come back from a power cut.
    pub(crate) power_cut: usize,
    /// Voters whose disks are lost.
    pub(crate) disks_lost: usize,
    /// `any`: whichever voters they are; `among`: the primary is one of them; else what becomes of
    /// the primary.
    pub(crate) primary: String,
    /// The same in words.
    pub(crate) text: String,
}

/// How many combinations do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Combinations {
    /// All of them, the one without any failure included.
    pub(crate) total: u64,
    /// May lose acknowledged writes.
    pub(crate) lose_data: u64,
    /// Block writes.
    pub(crate) block_writes: u64,
    /// Block linearizable reads.
    pub(crate) block_reads: u64,
    /// Block elections.
    pub(crate) block_elections: u64,
}

/// `GET /policy/simulate`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Simulated {
    /// The policy's clauses.
    pub(crate) policy: String,
    /// Every voter with what becomes of it.
    pub(crate) voters: Vec<Voter>,
    /// Whether writes are acknowledged.
    pub(crate) writes: bool,
    /// Whether linearizable reads are served.
    pub(crate) reads: bool,
    /// Whether the primary goes on without an election.
    pub(crate) primary_stays: bool,
    /// Whether those left can elect a primary.
    pub(crate) elects: bool,
    /// Whether a write with as few copies as the policy allows may be lost.
    pub(crate) may_lose_data: bool,
    /// Which clause those left are too few for.
    pub(crate) degraded: Option<String>,
    /// What the cursors say, where the node that answers is primary and knows them.
    pub(crate) cursors: Option<ByCursors>,
}

/// One voter of a simulation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Voter {
    /// Its number.
    pub(crate) node: u64,
    /// up, stopped, power_cut or disk_lost.
    pub(crate) condition: String,
    /// Whether it leads now.
    pub(crate) primary: bool,
}

/// What the cursors say at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ByCursors {
    /// What is acknowledged, under the policy in force.
    pub(crate) acknowledged_seq: u64,
    /// How far the policy is met among those left.
    pub(crate) met_seq: Option<u64>,
    /// Whose cursor keeps it from being further.
    pub(crate) blocker: Option<u64>,
    /// At which level: persisted or in_memory.
    pub(crate) blocker_level: Option<String>,
    /// The first acknowledged position that no voter would hold any more.
    pub(crate) lost_first_seq: Option<u64>,
    /// The last one.
    pub(crate) lost_last_seq: Option<u64>,
}

impl Explained {
    /// What the policy promises on so many voters.
    pub(crate) fn of(policy: Policy, voters: usize) -> Self {
        let explanation = policy.explain(voters);
        let sets = |sets: &[FailureSet]| sets.iter().map(|set| Failed::of(*set, voters)).collect();
        let all = explanation.combinations;
        Self {
            policy: policy.to_string(),
            preset: policy.name().map(str::to_owned),
            voters,
            persisted_copies: explanation.form.persisted,
            copies: explanation.form.copies,
            keeps: sets(&explanation.keeps),
            loses: sets(&explanation.loses),
            blocks_writes: sets(&explanation.blocks_writes),
            blocks_reads: sets(&explanation.blocks_reads),
            blocks_elections: sets(&explanation.blocks_elections),
            combinations: Combinations {
                total: all.total,
                lose_data: all.lose_data,
                block_writes: all.block_writes,
                block_reads: all.block_reads,
                block_elections: all.block_elections,
            },
            weakness: policy.weakness(voters).map(|weakness| weakness.to_string()),
            latency: None,
        }
    }

    /// With what the policy would have cost in the last minute, where that is known.
    pub(crate) fn with_latency(
        self,
        prediction: Option<Prediction>,
        nodes: &[NodeMedians],
    ) -> Self {
        let node = |medians: &NodeMedians| NodeLatency {
            node: medians.node.0,
            in_memory_milliseconds: medians.in_memory_us.map(milliseconds),
            persisted_milliseconds: medians.persisted_us.map(milliseconds),
        };
        let latency = prediction.map(|Prediction { p50_us, entries, writes }| Latency {
            p50_milliseconds: p50_us.map(milliseconds),
            entries,
            writes,
            nodes: nodes.iter().map(node).collect(),
        });
        Self { latency, ..self }
    }
}

fn milliseconds(us: u32) -> f64 {
    f64::from(us) / 1_000.0
}

impl Failed {
    fn of(set: FailureSet, voters: usize) -> Self {
        Self {
            stopped: set.counts.stopped,
            power_cut: set.counts.power_cut,
            disks_lost: set.counts.disks_lost,
            primary: match set.primary {
                PrimaryIn::Any => "any",
                PrimaryIn::Among => "among",
                PrimaryIn::In(condition) => condition_name(condition),
            }
            .to_owned(),
            text: set.phrase(voters),
        }
    }
}

impl Simulated {
    /// What would hold.
    pub(crate) fn of(policy: Policy, scenario: &Scenario) -> Self {
        let Forecast { after, degraded, met_through, blocker, lost } = policy.simulate(scenario);
        let voter = |(node, condition): &(NodeId, Condition)| Voter {
            node: node.0,
            condition: condition_name(*condition).to_owned(),
            primary: scenario.primary == Some(*node),
        };
        let cursors = (!scenario.cursors.is_empty()).then(|| ByCursors {
            acknowledged_seq: scenario.acknowledged.0,
            met_seq: met_through.map(|seq| seq.0),
            blocker: blocker.map(|blocker| blocker.node.0),
            blocker_level: blocker.map(|blocker| Level::name(blocker.level).to_owned()),
            lost_first_seq: lost.map(|lost| lost.first.0),
            lost_last_seq: lost.map(|lost| lost.last.0),
        });
        Self {
            policy: policy.to_string(),
            voters: scenario.voters.iter().map(voter).collect(),
            writes: after.writes(),
            reads: after.reads(),
            primary_stays: after.primary_stays,
            elects: after.elects,
            may_lose_data: after.loses_data,
            degraded: degraded.map(|unmet| unmet.to_string()),
            cursors,
        }
    }
}

fn condition_name(condition: Condition) -> &'static str {
    match condition {
        Condition::Up => "up",
        Condition::Stopped => "stopped",
        Condition::PowerCut => "power_cut",
        Condition::DiskLost => "disk_lost",
    }
}
