//! What a seed draws before anything happens: the cluster, and which faults it will see. Each
//! class is off in half of the seeds or more, so that rare mixtures come up (swarm testing).

use std::collections::BTreeMap;

use quorate_protocol::cluster::SafetyTimers;
use quorate_protocol::core::Tuning;
use quorate_protocol::policy::Policy;

use super::fault::{Fault, Kind, Scheduled};
use super::random::Random;
use super::scenario::Scenario;

/// A lease as long as the other timers allow.
const TIGHT: SafetyTimers =
    SafetyTimers { election_timeout_min_us: 300_000, lease_us: 289_000, drift_us: 10_000 };

/// When faults begin.
const FIRST_FAULT_US: u64 = 1_500_000;

/// The draw of one seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// How many nodes.
    pub(super) nodes: usize,
    /// The cluster's policy.
    pub(super) policy: Policy,
    /// The policy's name.
    pub(super) policy_name: &'static str,
    /// Timers and limits.
    pub(super) tuning: Tuning,
    /// Classes that may occur, with the strength of each, from 1 to 100.
    pub(super) faults: BTreeMap<Fault, u64>,
    /// Faults that come at moments, in order.
    pub(super) schedule: Vec<Scheduled>,
    /// Whether disks are lost beyond what an election survives.
    pub(super) over_budget: bool,
    /// How long faults come, in microseconds.
    pub(super) faults_us: u64,
    /// Mean latency of a message, in microseconds.
    pub(super) link_us: u64,
    /// Mean time of a journal write, in microseconds.
    pub(super) write_us: u64,
    /// Mean time of a sync, in microseconds.
    pub(super) sync_us: u64,
    /// Timers in the cluster entry: the usual ones, or the tightest that are safe.
    pub(super) timers: SafetyTimers,
    /// Mean time between writes of clients, in microseconds.
    pub(super) propose_every_us: u64,
    /// Mean time between reads of clients, in microseconds.
    pub(super) read_every_us: u64,
}

impl Plan {
    /// Draws the plan of a scenario's seed, without what the scenario takes out.
    pub(super) fn draw(scenario: &Scenario) -> Self {
        let mut plan = Self::draw_whole(&mut Random::new(scenario.seed));
        plan.faults.retain(|fault, _| !scenario.without.contains(fault));
        plan.schedule.retain(|scheduled| {
            let kept = scenario.keep.as_ref().is_none_or(|keep| keep.contains(&scheduled.number));
            kept && !scenario.without.contains(&scheduled.fault)
        });
        plan.propose_every_us *= scenario.load.max(1);
        plan.read_every_us *= scenario.load.max(1);
        plan
    }

    fn draw_whole(random: &mut Random) -> Self {
        let nodes = [3, 3, 3, 3, 3, 3, 3, 5, 5, 1][random.index(10)];
        let (policy_name, policy) = [
            ("local", Policy::LOCAL),
            ("memory", Policy::MEMORY),
            ("hybrid", Policy::HYBRID),
            ("hybrid", Policy::HYBRID),
            ("majority", Policy::MAJORITY),
            ("all", Policy::ALL),
        ][random.index(6)];
        // One voter can't hold two copies.
        let (policy_name, policy) =
            if nodes == 1 { ("local", Policy::LOCAL) } else { (policy_name, policy) };
        let mut faults = BTreeMap::new();
        // Some seeds see few classes, and so more of each.
        let moments = if random.percent(35) { 10 } else { 50 };
        for fault in Fault::ALL {
            let odds = if fault.kind() == Kind::Moment { moments } else { 50 };
            if random.percent(odds) {
                faults.insert(*fault, random.between(1, 100));
            }
        }
        let faults_us = random.between(8_000_000, 20_000_000);
        let schedule = schedule(&faults, faults_us, random);
        let tuning = Tuning {
            heartbeat_us: 50_000,
            election_timeout_max_us: 600_000,
            window_bytes: [500, 5_000, 1 << 20][random.index(3)],
            reads_max: [2, 64][random.index(2)],
            handover_us: 1_000_000,
            standstill_us: 1_500_000,
            learner_lag: [2, 50][random.index(2)],
        };
        let slowest_sync_us = [1_000, 10_000, 60_000][random.index(3)];
        let sync_us = random.between(200, slowest_sync_us);
        Self {
            nodes,
            policy,
            policy_name,
            tuning,
            faults,
            schedule,
            over_budget: random.percent(15),
            faults_us,
            link_us: random.between(100, 3_000),
            write_us: random.between(20, 500),
            sync_us,
            timers: if random.percent(50) { SafetyTimers::LAN } else { TIGHT },
            propose_every_us: random.between(2_000, 40_000),
            read_every_us: random.between(5_000, 40_000),
        }
    }

    /// The strength of a class; 0 where it is off.
    pub(super) fn strength(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }
}

/// Faults at moments, as often as the seed says.
fn schedule(faults: &BTreeMap<Fault, u64>, faults_us: u64, random: &mut Random) -> Vec<Scheduled> {
    let classes: Vec<Fault> =
        faults.keys().copied().filter(|fault| fault.kind() == Kind::Moment).collect();
    let every_us = random.between(50_000, 1_500_000);
    let mut schedule = Vec::new();
    let mut at_us = FIRST_FAULT_US;
    while at_us < faults_us && !classes.is_empty() {
        let fault = classes[random.index(classes.len())];
        let number = schedule.len() as u32;
        schedule.push(Scheduled { number, at_us, fault, seed: random.next() });
        at_us += random.latency(every_us);
    }
    schedule
}
