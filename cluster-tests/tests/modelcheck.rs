//! The model check at the bounds that every change can afford, and the mistakes that it must find.

use quorate_cluster_tests::modelcheck::{Size, check, hunts, searches};
use quorate_protocol::policy::Policy;

/// More than any search here reaches: one that does has lost its bounds.
const STATES_MAX: usize = 20_000_000;

fn nothing_breaks(policy: Policy) {
    for scope in searches(Size::Small).into_iter().filter(|scope| scope.policy == policy) {
        let report = check(&scope, 1, STATES_MAX);
        println!(
            "{policy}, {}: {} states, {} unique, {:?}",
            scope.name, report.states, report.unique, report.elapsed
        );
        assert!(report.broken.is_none(), "{policy}, {}: {:#?}", scope.name, report.broken);
        assert!(report.complete, "{policy}, {}: not complete", scope.name);
        assert!(report.missed.is_empty(), "{policy}, {}: never {:?}", scope.name, report.missed);
    }
}

#[test]
fn no_order_of_events_breaks_local() {
    nothing_breaks(Policy::LOCAL);
}

#[test]
fn no_order_of_events_breaks_memory() {
    nothing_breaks(Policy::MEMORY);
}

#[test]
fn no_order_of_events_breaks_hybrid() {
    nothing_breaks(Policy::HYBRID);
}

#[test]
fn no_order_of_events_breaks_majority() {
    nothing_breaks(Policy::MAJORITY);
}

#[test]
fn every_rule_that_is_switched_off_is_missed() {
    for hunt in hunts() {
        let report = check(&hunt.scope, 1, STATES_MAX);
        let (known_as, mutant) = (hunt.known_as, hunt.scope.mutant);
        println!("{known_as}, {mutant:?}: {} states, {:?}", report.states, report.elapsed);
        assert!(report.broken.is_some(), "{known_as}, {mutant:?}: {} states", report.states);
    }
}
