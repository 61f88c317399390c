//! The core's `step`, fed with any messages in any order between what a runtime really does.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use quorate_protocol::core::message::{
    Append, AppendAck, EntryMeta, Message, RecoverTarget, Reject, SnapshotOffer, TimeoutNow,
    VoteReply, VoteRequest,
};
use quorate_protocol::core::{
    Boot, ChangeOutcome, Command, Core, Event, HardState, Log, Role, Snapshot, SnapshotRefused,
    Tuning,
};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{
    Branch, ClusterTime, DiskId, EntryId, EntryKind, Epoch, Generation, Incarnation, MonoTime,
    NodeId, Seq,
};

use crate::memory::peak_of;
use crate::moves::{Move, Number, a_move, another_config, change, config};

/// Memory that one step may take, beyond what its event's entries justify.
const STEP_BYTES: usize = 256 << 10;

/// A core, and as much of a runtime as its contract needs.
struct Play {
    core: Core,
    now: MonoTime,
    out: Vec<Command>,
    asked: u64,
    asked_for_real: bool,
    saving: u64,
    sending: Vec<(NodeId, u64, Seq)>,
    installing: Option<EntryId>,
    session: u64,
    halted: bool,
    seen: BTreeSet<&'static str>,
}

impl Play {
    fn new(policy: Policy, memory_loss: bool) -> Self {
        let id = |epoch, seq| EntryId::new(Epoch(epoch), Seq(seq));
        let runs = vec![(Seq(1), Epoch(1)), (Seq(3), Epoch(2))];
        let boot = Boot {
            node: NodeId(1),
            disk: DiskId(1),
            incarnation: Incarnation(1),
            hard: HardState { epoch: Epoch(2), vote: None, memory_loss },
            log: Log::new(EntryId::ZERO, runs, id(2, 4), Seq(3)),
            configs: vec![(id(1, 1), Arc::new(config(policy)))],
            committed: Seq(2),
            time: ClusterTime(0),
            version_max: 1,
        };
        let now = MonoTime(1_000_000);
        Self {
            core: Core::new(boot, Tuning::default(), now, 0),
            now,
            out: Vec::new(),
            asked: 0,
            asked_for_real: false,
            saving: 0,
            sending: Vec::new(),
            installing: None,
            session: 0,
            halted: false,
            seen: BTreeSet::new(),
        }
    }

    fn number(&self, number: Number) -> u64 {
        let near = |base: u64, by: i64| base.saturating_add_signed(by);
        match number {
            Number::Small(small) => small,
            Number::Epoch(by) => near(self.core.epoch().0, by),
            Number::Last(by) => near(self.core.log().last().seq.0, by),
            Number::Committed(by) => near(self.core.committed().0, by),
            Number::Asked => self.asked,
            Number::Huge(below) => u64::MAX - below,
        }
    }

    fn id(&self, epoch: Number, seq: Number) -> EntryId {
        EntryId::new(Epoch(self.number(epoch)), Seq(self.number(seq)))
    }

    /// Entries with the positions that a decoder insists on, and whatever else they say; or with
    /// epochs up to `fit`, as it insists too.
    fn entries(
        &self,
        prev: EntryId,
        fit: Option<Epoch>,
        described: &[(Number, u8)],
    ) -> Vec<EntryMeta> {
        let mut least = prev.epoch;
        let meta = |(seq, (epoch, flags)): (u64, &(Number, u8))| {
            let cluster = (flags % 4 == 3).then(|| another_config(flags >> 2));
            let mut epoch = Epoch(self.number(*epoch));
            if let Some(fit) = fit {
                epoch = epoch.min(fit).max(least);
                least = epoch;
            }
            EntryMeta {
                id: EntryId::new(epoch, Seq(seq)),
                kind: if cluster.is_some() { EntryKind::Cluster } else { EntryKind::Commands },
                bytes: u32::from(*flags) << 20,
                cluster,
            }
        };
        (prev.seq.0.saturating_add(1)..=u64::MAX).zip(described).map(meta).collect()
    }

    fn message(&self, kind: u8, n: [Number; 8], flags: u8, entries: &[(Number, u8)]) -> Message {
        let value = |index: usize| self.number(n[index]);
        let flag = |bit: u8| flags & (1 << bit) != 0;
        let request = VoteRequest {
            round: value(0),
            epoch: Epoch(value(1)),
            last: self.id(n[2], n[3]),
            transfer: flag(0).then_some(Epoch(value(4))),
        };
        let reply = VoteReply {
            round: value(0),
            epoch: Epoch(value(1)),
            granted: flag(0),
            memory_loss: flag(1),
        };
        let prev = self.id(n[1], n[2]);
        // Noise alone would hardly ever be accepted.
        let held = self.core.log().id_at(prev.seq).filter(|_| flag(4));
        let prev = held.unwrap_or(prev);
        match kind {
            0 => Message::PreVote(request),
            1 => Message::PreVoteReply(reply),
            2 => Message::Vote(request),
            3 => Message::VoteReply(reply),
            4 => Message::Append(Append {
                epoch: Epoch(value(0)),
                prev,
                commit: Seq(value(3)),
                round: value(4),
                time: ClusterTime(value(5)),
                recover: flag(0).then_some(RecoverTarget {
                    incarnation: Incarnation(value(6)),
                    through: Seq(value(7)),
                }),
                entries: self.entries(prev, flag(5).then_some(Epoch(value(0))), entries),
            }),
            5 => Message::AppendAck(AppendAck {
                epoch: Epoch(value(0)),
                incarnation: Incarnation(if flag(3) { 1 } else { value(1) }),
                verified: Seq(value(2)),
                in_memory: Seq(value(3)),
                persisted: Seq(value(4)),
                applied: Seq(value(5)),
                round: value(6),
                memory_loss: flag(1),
                reach: flags,
                reject: flag(2).then_some(Reject { prev, hint: self.id(n[3], n[4]) }),
            }),
            6 => Message::TimeoutNow(TimeoutNow { epoch: Epoch(value(0)), last: prev }),
            _ => Message::SnapshotOffer(SnapshotOffer { epoch: Epoch(value(0)), preceding: prev }),
        }
    }

    /// What a peer that agrees with this core would say.
    fn agreement(&self) -> Message {
        let (epoch, last) = (self.core.epoch(), self.core.log().last());
        let reply = VoteReply { round: self.asked, epoch, granted: true, memory_loss: false };
        match self.core.role() {
            Role::Candidate if self.asked_for_real => Message::VoteReply(reply),
            Role::Candidate => Message::PreVoteReply(reply),
            Role::Primary => Message::AppendAck(AppendAck {
                epoch,
                incarnation: Incarnation(1),
                verified: last.seq,
                in_memory: last.seq,
                persisted: last.seq,
                applied: self.core.committed(),
                round: u64::MAX,
                memory_loss: false,
                reach: 3,
                reject: None,
            }),
            Role::Replica => Message::Append(Append {
                epoch,
                prev: last,
                commit: last.seq,
                round: 1,
                time: ClusterTime(1),
                recover: None,
                entries: Vec::new(),
            }),
        }
    }

    fn event(&mut self, a_move: Move) -> Option<Event> {
        Some(match a_move {
            Move::Message { from, kind, numbers, flags, entries } => {
                let message = self.message(kind, numbers, flags, &entries);
                Event::Received { from: NodeId(from), message }
            }
            Move::Agree { from } => {
                Event::Received { from: NodeId(from), message: self.agreement() }
            }
            Move::Tick { after } => {
                let micros = [0, 1, 50_000, 300_000, 600_001, 2_000_001, 1 << 40, u64::MAX];
                self.now = self.now.plus(micros[usize::from(after)]);
                Event::Tick
            }
            Move::Connect { peer, life, flags } => {
                self.session += 1;
                let incarnation = if flags.is_multiple_of(4) { self.number(life) } else { 1 };
                Event::Connected {
                    peer: NodeId(peer),
                    session: self.session,
                    disk: DiskId(u128::from(peer) + u128::from(flags == 0)),
                    incarnation: Incarnation(incarnation),
                    generation: Generation(u64::from(flags == 1)),
                    version_max: u32::from(flags),
                }
            }
            Move::Disconnect { peer } => {
                Event::Disconnected { peer: NodeId(peer), session: self.session }
            }
            Move::Propose => Event::Propose { time: ClusterTime(u64::MAX) },
            Move::Mark => Event::ProposeMark { time: ClusterTime(0) },
            Move::Change { which, peer } => {
                Event::Reconfigure { token: 1, change: change(which, peer) }
            }
            Move::Transfer { peer } => {
                Event::Transfer { token: 1, to: (peer > 0).then_some(NodeId(peer)) }
            }
            Move::Read => Event::Read { token: 1 },
            other => return self.completion(other),
        })
    }

    /// What the runtime says about work that the core gave it.
    fn completion(&mut self, a_move: Move) -> Option<Event> {
        Some(match a_move {
            Move::Saved { number, right } => {
                Event::HardStateSaved { id: if right { self.saving } else { self.number(number) } }
            }
            Move::Written { synced, right, numbers } => {
                let (branch, id) = if right {
                    (self.core.log().branch(), self.core.log().last())
                } else {
                    (Branch(self.number(numbers[0])), self.id(numbers[1], numbers[2]))
                };
                if synced {
                    Event::Persisted { branch, id }
                } else {
                    Event::InMemory { branch, id }
                }
            }
            Move::Applied { number } => {
                // The runtime applies what is committed.
                Event::Applied { seq: Seq(self.number(number)).min(self.core.committed()) }
            }
            Move::Sent { number } => {
                let (peer, session, last) = self.sending.pop()?;
                let bytes = u64::from(u32::MAX);
                let through = (!self.number(number).is_multiple_of(3)).then_some(last);
                Event::Sent { peer, session, through, bytes }
            }
            Move::Fetched { numbers, members } => {
                let last = self.id(numbers[0], numbers[1]);
                Event::SnapshotFetched {
                    snapshot: Snapshot {
                        last,
                        epoch: Epoch(self.number(numbers[2])),
                        config: (
                            EntryId::new(last.epoch, Seq(self.number(numbers[3]))),
                            another_config(members),
                        ),
                        time: ClusterTime(u64::MAX),
                    },
                }
            }
            Move::Installed { right, numbers } => {
                let last = self.id(numbers[0], numbers[1]);
                Event::SnapshotInstalled { last: self.installing.filter(|_| right).unwrap_or(last) }
            }
            Move::Trimmed { number } => {
                let seq = Seq(self.number(number)).min(self.core.committed());
                let preceding = self.core.log().id_at(seq)?;
                Event::Trimmed { first: Seq(seq.0.checked_add(1)?), preceding }
            }
            _ => return None,
        })
    }

    /// Takes the move and carries out what a runtime would at once.
    fn take(&mut self, a_move: Move) {
        let Some(event) = self.event(a_move) else { return };
        let carried = match &event {
            Event::Received { message: Message::Append(append), .. } => append.entries.len(),
            _ => 0,
        };
        let (core, now, out) = (&mut self.core, self.now, &mut self.out);
        let ((), peak) = peak_of(|| core.step(now, 7, event, out));
        assert!(peak <= STEP_BYTES + 512 * carried, "one step took {peak} bytes");
        for command in self.out.drain(..) {
            self.seen.extend(mark(&command));
            match command {
                Command::SaveHardState { id, .. } => self.saving = id,
                Command::Send { message: Message::PreVote(request), .. } => {
                    (self.asked, self.asked_for_real) = (request.round, false);
                }
                Command::Send { message: Message::Vote(request), .. } => {
                    (self.asked, self.asked_for_real) = (request.round, true);
                }
                Command::SendEntries { to, session, last, .. } => {
                    self.sending.push((to, session, last));
                }
                Command::InstallSnapshot { snapshot, .. } => self.installing = Some(snapshot.last),
                Command::Halt { .. } => self.halted = true,
                _ => {}
            }
        }
    }

    fn check(&self) {
        let log = self.core.log();
        assert!(log.persisted() <= log.in_memory() && log.in_memory() <= log.last().seq);
        assert!(self.core.acknowledgeable() <= self.core.committed());
        assert!(self.core.committed() <= log.last().seq, "committed beyond the log");
    }
}

/// What a command shows of how far the core got.
fn mark(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Truncate { .. } => "cut its log",
        Command::Append { .. } => "appended",
        Command::SendEntries { .. } => "sent entries",
        Command::ReadReady { .. } => "served a read",
        Command::HandoverStarted { .. } => "handed over",
        Command::FetchSnapshot { .. } => "needed a snapshot",
        Command::InstallSnapshot { .. } => "took a snapshot",
        Command::SnapshotRefused { .. } => "refused a snapshot",
        Command::Reconfigured { outcome: ChangeOutcome::InForce(_), .. } => "changed",
        Command::Reconfigured { outcome: ChangeOutcome::Refused(_), .. } => "refused a change",
        Command::Halt { .. } => "halted",
        _ => return None,
    })
}

fn play(moves: Vec<Move>, policy: usize, memory_loss: bool) -> Play {
    let policy = [Policy::LOCAL, Policy::MEMORY, Policy::HYBRID, Policy::MAJORITY][policy];
    let mut play = Play::new(policy, memory_loss);
    for peer in [2, 3] {
        play.take(Move::Connect { peer, life: Number::Small(1), flags: 8 });
    }
    for a_move in moves {
        play.take(a_move);
        if play.halted {
            break;
        }
        play.check();
    }
    play
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_event_in_any_order(
        moves in vec(a_move(), 1..120), policy in 0_usize..4, memory_loss: bool,
    ) {
        let play = play(moves, policy, memory_loss);
        // Everything that it keeps, it keeps within bounds.
        let (_, held) = peak_of(|| play.core.clone());
        prop_assert!(held <= 256 << 10, "the core holds {held} bytes");
    }
}

/// Noise that never got past the first check would prove nothing.
#[test]
fn events_lead_everywhere() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for policy in (0..4).cycle().take(800) {
        let moves = vec(a_move(), 120).new_tree(&mut runner).expect("moves can be drawn").current();
        seen.extend(play(moves, policy, policy == 0).seen);
    }
    let all = [
        "appended",
        "changed",
        "cut its log",
        "halted",
        "handed over",
        "needed a snapshot",
        "refused a change",
        "refused a snapshot",
        "sent entries",
        "served a read",
        "took a snapshot",
    ];
    let missed: Vec<_> = all.into_iter().filter(|mark| !seen.contains(mark)).collect();
    assert!(missed.is_empty(), "never {missed:?}");
}

/// A peer that said so made the next election panic.
#[test]
fn an_epoch_without_a_next_one_is_not_taken() {
    let huge = Epoch(u64::MAX);
    let last = EntryId::new(Epoch(2), Seq(4));
    let reply = VoteReply { round: 0, epoch: huge, granted: false, memory_loss: false };
    let request = VoteRequest { round: 0, epoch: huge, last, transfer: None };
    for message in [
        Message::PreVoteReply(reply),
        Message::VoteReply(reply),
        Message::Vote(request),
        Message::TimeoutNow(TimeoutNow { epoch: huge, last }),
    ] {
        let mut play = play(vec![Move::Tick { after: 5 }], 3, false);
        let event = Event::Received { from: NodeId(2), message };
        play.core.step(play.now, 7, event, &mut play.out);
        assert_eq!(play.core.epoch(), Epoch(2));
        play.take(Move::Tick { after: 5 });
    }
}

/// Appends after such a snapshot panicked.
#[test]
fn a_snapshot_without_a_next_entry_is_refused() {
    let mut play = play(Vec::new(), 3, false);
    let snapshot = Snapshot {
        last: EntryId::new(Epoch(2), Seq(u64::MAX)),
        epoch: Epoch(2),
        config: (EntryId::new(Epoch(1), Seq(1)), another_config(1)),
        time: ClusterTime(0),
    };
    play.core.step(play.now, 7, Event::SnapshotFetched { snapshot }, &mut play.out);
    let reason = play.out.iter().find_map(|command| match command {
        Command::SnapshotRefused { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Some(SnapshotRefused::Malformed));
}
