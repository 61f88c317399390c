//! Events, commands and messages in words.

use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::core::message::{Message, VoteReply, VoteRequest};
use quorate_protocol::core::{ChangeOutcome, Command, Core, Event, HandoverOutcome, Role};

/// What an event is; nothing for those that follow from a command at once.
pub(super) fn event(event: &Event) -> Option<String> {
    let text = match event {
        Event::Tick => " tick".to_owned(),
        Event::Received { from, message } => format!(" <- {from} {}", self::message(message)),
        Event::Propose { .. } => " propose".to_owned(),
        Event::ProposeMark { .. } => " propose mark".to_owned(),
        Event::Reconfigure { change, .. } => format!(" reconfigure: {}", self::change(change)),
        Event::Transfer { to, .. } => {
            format!(" transfer to {}", to.map_or("any".to_owned(), |to| to.to_string()))
        }
        Event::SnapshotFetched { snapshot } => format!(" snapshot {} fetched", snapshot.last),
        Event::SnapshotInstalled { last } => format!(" snapshot {last} installed"),
        Event::HardStateSaved { id } => format!(" hard state {id} saved"),
        Event::InMemory { id, .. } => format!(" in memory {id}"),
        Event::Persisted { id, .. } => format!(" persisted {id}"),
        Event::Read { token } => format!(" read {token}"),
        Event::Connected { .. }
        | Event::Disconnected { .. }
        | Event::Applied { .. }
        | Event::Sent { .. }
        | Event::Trimmed { .. } => return None,
    };
    Some(text)
}

/// What a command is.
pub(super) fn command(command: &Command, core: Option<&Core>) -> Option<String> {
    let text = match command {
        Command::SaveHardState { id, state } => {
            let vote = state.vote.map_or_else(|| "none".to_owned(), |vote| vote.to_string());
            let loss = if state.memory_loss { ", memory loss" } else { "" };
            format!("save hard state {id}: epoch {}, vote {vote}{loss}", state.epoch)
        }
        Command::Send { to, message } => format!("-> {to} {}", self::message(message)),
        Command::SendEntries { to, first, last, prev, commit, round, .. } => {
            format!(
                "-> {to} entries {first} to {last} after {prev}, commit {commit}, round {round}"
            )
        }
        Command::Seal { id, kind, .. } => format!("seal {id} {kind:?}"),
        Command::Truncate { from, branch } => format!("truncate from {from}, branch {branch}"),
        Command::Append { first, last, .. } => format!("append {first} to {last}"),
        Command::Committed { committed, acknowledgeable } => {
            format!("committed {committed}, acknowledgeable {acknowledgeable}")
        }
        Command::RoleChanged => role(core?),
        Command::ReadReady { token, at } => format!("read {token} ready at {at}"),
        Command::ReadFailed { token } => format!("read {token} failed"),
        Command::Reconfigured { outcome, .. } => match outcome {
            ChangeOutcome::InForce(id) => format!("configuration {id} in force"),
            ChangeOutcome::Refused(refused) => format!("refused: {refused}"),
            ChangeOutcome::InDoubt(id) => format!("configuration {id} in doubt"),
        },
        Command::LeaseGivenUp => "lease given up".to_owned(),
        Command::HandoverStarted { to } => format!("hands over to {to}"),
        Command::HandoverEnded { outcome, .. } => match outcome {
            HandoverOutcome::SteppedDown(to) => format!("stepped down for {to}"),
            HandoverOutcome::TimedOut(to) => format!("{to} did not take over"),
            HandoverOutcome::Refused(refused) => format!("refused: {refused}"),
        },
        Command::FetchSnapshot { from, above } => {
            format!("fetch a snapshot of {from} above {above}")
        }
        Command::InstallSnapshot { snapshot, keep_suffix, branch } => format!(
            "install snapshot {}, keep what follows: {keep_suffix}, branch {branch}",
            snapshot.last
        ),
        Command::SnapshotRefused { last, reason } => format!("snapshot {last} refused: {reason}"),
        Command::Halt { violation } => format!("halt: {violation}"),
    };
    Some(text)
}

/// What a message says.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::PreVote(request) => format!("PreVote {}", vote_request(request)),
        Message::Vote(request) => format!("Vote {}", vote_request(request)),
        Message::PreVoteReply(reply) => format!("PreVoteReply {}", vote_reply(reply)),
        Message::VoteReply(reply) => format!("VoteReply {}", vote_reply(reply)),
        Message::Append(append) => {
            let entries = match (append.entries.first(), append.entries.last()) {
                (Some(first), Some(last)) => format!(" entries {} to {}", first.id, last.id),
                (_, None) | (None, _) => String::new(),
            };
            let recover = append.recover.map_or_else(String::new, |target| {
                format!(", recover life {} through {}", target.incarnation, target.through)
            });
            format!(
                "Append epoch {} after {}{entries}, commit {}, round {}{recover}",
                append.epoch, append.prev, append.commit, append.round
            )
        }
        Message::AppendAck(ack) => {
            let loss = if ack.memory_loss { ", memory loss" } else { "" };
            let reject = ack.reject.map_or_else(String::new, |reject| {
                format!(", rejects {} with hint {}", reject.prev, reject.hint)
            });
            format!(
                "Ack epoch {} life {} verified {} memory {} persisted {}, round {}{loss}{reject}",
                ack.epoch, ack.incarnation, ack.verified, ack.in_memory, ack.persisted, ack.round
            )
        }
        Message::TimeoutNow(now) => format!("TimeoutNow epoch {} last {}", now.epoch, now.last),
        Message::SnapshotOffer(offer) => {
            format!("SnapshotOffer epoch {} from {} on", offer.epoch, offer.preceding)
        }
    }
}

fn change(change: &ClusterChange) -> String {
    match change {
        ClusterChange::AddLearner(member) => format!("add {}", member.node),
        ClusterChange::Promote(node) => format!("promote {node}"),
        ClusterChange::Remove(node) => format!("remove {node}"),
        ClusterChange::SetPolicy(policy) => format!("policy {policy}"),
        ClusterChange::SetAddresses(member) => format!("addresses of {}", member.node),
        ClusterChange::RaiseVersion(version) => format!("version {version}"),
        ClusterChange::AddToken { token, .. } => format!("token for {}", token.node),
        ClusterChange::RedeemToken { .. } => "redeem a token".to_owned(),
        ClusterChange::RevokeToken(_) => "revoke a token".to_owned(),
    }
}

fn vote_request(request: &VoteRequest) -> String {
    let transfer = if request.transfer.is_some() { ", handed over" } else { "" };
    format!("epoch {} round {} last {}{transfer}", request.epoch, request.round, request.last)
}

fn vote_reply(reply: &VoteReply) -> String {
    let answer = if reply.granted { "granted" } else { "refused" };
    let loss = if reply.memory_loss { ", memory loss" } else { "" };
    format!("{answer} epoch {} round {}{loss}", reply.epoch, reply.round)
}

fn role(core: &Core) -> String {
    let role = match core.role() {
        Role::Replica => "replica",
        Role::Candidate => "candidate",
        Role::Primary => "primary",
    };
    match core.primary() {
        Some(primary) if core.role() == Role::Replica => {
            format!("{role} of {primary} in epoch {}", core.epoch())
        }
        Some(_) | None => format!("{role} in epoch {}", core.epoch()),
    }
}
