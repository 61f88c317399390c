//! What goes over a connection: order, bounds, and that bulk delays nothing.

use std::time::Instant;

use quorate_protocol::wire::Formation;

use super::*;

#[tokio::test]
async fn control_messages_arrive_in_order_and_formation_too() {
    let authority = Authority::new();
    let ((one, at_one), (mut two, at_two)) = pair(&authority).await;
    for round in 0..1000 {
        one.transport.send(NodeId(2), at_one, ack(round));
    }
    for round in 0..1000 {
        assert_eq!(round_of(&two.message().await.0), Some(round));
    }
    let formed = Formation::Formed { record: vec![7; 40_000] };
    two.transport.send_formation(NodeId(1), at_two, formed.clone());
    let mut one = one;
    let heard = one
        .wait_for("formation", |event| match event {
            PeerEvent::Formation { message, .. } => Some(message.clone()),
            _ => None,
        })
        .await;
    assert_eq!(heard, formed);
}

#[tokio::test]
async fn entries_arrive_byte_for_byte_from_memory_and_from_the_journal() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, _)) = pair(&authority).await;
    // Sizes around every boundary of the sender's chunking.
    let sizes = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000, 3];
    one.log.fill(sizes.map(pattern));
    for cached_from in [1, u64::MAX] {
        *one.log.cached_from.lock() = cached_from;
        let request = entries_from(at_one, 1, 1 << 20);
        one.transport.send_entries(NodeId(2), request);
        let (message, entries) = two.message().await;
        assert_eq!(entries, *one.log.entries.lock());
        let Message::Append(append) = message else {
            panic!("{message:?}");
        };
        assert_eq!(AppendHeader::of(&append), request.header);
        assert_eq!(append.entries.len(), entries.len());
        let (through, bytes) = sent(&mut one).await;
        assert_eq!(through, Seq(sizes.len() as u64));
        let records: usize = sizes.iter().map(|size| size + 64).sum();
        assert_eq!(bytes, records as u64);
    }
}

#[tokio::test]
async fn an_append_holds_what_fits_but_at_least_one_entry() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, _)) = pair(&authority).await;
    one.log.fill([pattern(1000), pattern(1000), pattern(1000)]);
    for (bytes_max, count) in [(1, 1), (2200, 2)] {
        let request = entries_from(at_one, 1, bytes_max);
        one.transport.send_entries(NodeId(2), request);
        assert_eq!(two.message().await.1.len(), count);
        assert_eq!(sent(&mut one).await.0, Seq(count as u64));
    }
    // Nothing there: nothing is sent, and the answer says so.
    one.transport.send_entries(NodeId(2), entries_from(at_one, 4, 1000));
    assert_eq!(sent(&mut one).await, (Seq(3), 0));
}

#[tokio::test]
async fn trimmed_entries_are_reported_and_the_session_goes_on() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, _)) = pair(&authority).await;
    one.log.fill([pattern(10), pattern(10)]);
    *one.log.cached_from.lock() = u64::MAX;
    *one.log.start.lock() = 2;
    one.transport.send_entries(NodeId(2), entries_from(at_one, 1, 1000));
    let first = one
        .wait_for("the answer", |event| match event {
            PeerEvent::Unavailable { first, .. } => Some(*first),
            _ => None,
        })
        .await;
    assert_eq!(first, Seq(1));
    one.transport.send_entries(NodeId(2), entries_from(at_one, 2, 1000));
    assert_eq!(two.message().await.1.len(), 1);
}

#[tokio::test]
async fn a_request_that_the_log_no_longer_fits_ends_the_session() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, at_two)) = pair(&authority).await;
    one.log.fill([pattern(10), pattern(10)]);
    let mut request = entries_from(at_one, 2, 1000);
    // The log has entries of epoch 1 there.
    request.header.prev.epoch = Epoch(3);
    request.header.epoch = Epoch(3);
    one.transport.send_entries(NodeId(2), request);
    assert_eq!(one.disconnected(2).await, at_one);
    assert_eq!(two.disconnected(1).await, at_two);
    let (again, _) = one.connected(2).await;
    assert!(again > at_one, "a session number is never used again");
}

#[tokio::test]
async fn what_is_sent_for_an_old_session_goes_nowhere() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, _)) = pair(&authority).await;
    one.transport.disconnect(NodeId(2), at_one);
    let (again, _) = one.connected(2).await;
    one.transport.send(NodeId(2), at_one, ack(1));
    one.transport.send(NodeId(2), again, ack(2));
    assert_eq!(round_of(&two.message().await.0), Some(2));
}

#[tokio::test]
async fn large_entries_do_not_delay_control_frames() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, at_two)) = pair(&authority).await;
    let idle = round_trips(&mut one, at_one, &mut two, at_two, 0, 50).await;
    one.log.fill((0..4).map(|_| pattern(16 << 20)));
    one.transport.send_entries(NodeId(2), entries_from(at_one, 1, 1));
    let began = Instant::now();
    let (mut round, mut loaded, mut arrived) = (1000, Vec::new(), 0);
    let mut asked = 1;
    while arrived < 4 {
        one.transport.send(NodeId(2), at_one, ack(round));
        let sent_at = Instant::now();
        // The echo, whatever bulk arrives meanwhile.
        loop {
            let (message, entries) = two.message().await;
            arrived += entries.len();
            if round_of(&message) == Some(round) {
                break;
            }
            if asked < 4 {
                asked += 1;
                let request = entries_from(at_one, asked, 1);
                one.transport.send_entries(NodeId(2), request);
            }
        }
        loaded.push(sent_at.elapsed());
        round += 1;
    }
    let bulk = began.elapsed();
    loaded.sort();
    let (p50, max) = (loaded[loaded.len() / 2], loaded[loaded.len() - 1]);
    println!(
        "one way: idle p50 {:?}; during 64 MiB in {bulk:?}: p50 {p50:?}, max {max:?}, {} samples",
        idle,
        loaded.len()
    );
    // Far below a heartbeat's period, on a machine that is busy with other tests too.
    assert!(p50 < Duration::from_millis(20), "{p50:?}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_the_sender_and_memory_stays_bounded() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, at_two)) = pair(&authority).await;
    one.log.fill((0..100).map(|_| pattern(1 << 20)));
    // Node 2 takes control frames only.
    let mut first = 1;
    loop {
        let request = entries_from(at_one, first, 1 << 20);
        one.transport.send_entries(NodeId(2), request);
        let answer = tokio::time::timeout(Duration::from_secs(1), sent(&mut one)).await;
        let mut control = Vec::new();
        two.events.drain_control(&mut control);
        match answer {
            Ok((through, _)) => first = through.0 + 1,
            Err(_) => break,
        }
    }
    // Node 2's lane, both windows, one append in hand.
    assert!((8..32).contains(&first), "{first} MiB were taken");
    // Control still flows.
    one.transport.send(NodeId(2), at_one, ack(77));
    let mut control = Vec::new();
    let began = Instant::now();
    while !control.iter().any(|event| {
        matches!(event, PeerEvent::Message { message, .. } if round_of(message) == Some(77))
    }) {
        assert!(began.elapsed() < DEADLINE, "control is held too");
        two.events.drain_control(&mut control);
        tokio::task::yield_now().await;
    }
    // Once it reads, everything that was sent arrives.
    let mut arrived = 0;
    while arrived < first {
        arrived += two.message().await.1.len() as u64;
    }
    let _ = at_two;
}

#[tokio::test]
async fn control_frames_beyond_the_limit_are_dropped_and_counted() {
    let authority = Authority::new();
    let ((one, at_one), (mut two, _)) = pair(&authority).await;
    // Nothing else runs on this thread until the first wait, so the outbox fills.
    for round in 0..100_000 {
        one.transport.send(NodeId(2), at_one, ack(round));
    }
    assert_eq!(round_of(&two.message().await.0), Some(0));
    let stats = one.transport.stats();
    assert!(stats[0].dropped_frames > 50_000, "{stats:?}");
}

#[tokio::test]
async fn figures_count_over_sessions() {
    let authority = Authority::new();
    let ((mut one, at_one), (mut two, _)) = pair(&authority).await;
    one.transport.send(NodeId(2), at_one, ack(1));
    two.message().await;
    let before = one.transport.stats().remove(0);
    assert_eq!((before.peer, before.sessions_ended), (NodeId(2), 0));
    assert!(before.rtt.is_some() && before.sent_bytes > 0 && before.received_bytes > 0);
    one.transport.disconnect(NodeId(2), at_one);
    one.connected(2).await;
    let after = one.transport.stats().remove(0);
    assert_eq!(after.sessions_ended, 1);
    assert!(after.sent_bytes >= before.sent_bytes);
    assert!(after.received_bytes >= before.received_bytes);
}

async fn sent(node: &mut TestNode) -> (Seq, u64) {
    node.wait_for("the answer", |event| match event {
        PeerEvent::Sent { through, bytes, .. } => Some((*through, *bytes)),
        _ => None,
    })
    .await
}

/// Median time from a send to the other side's echo.
async fn round_trips(
    one: &mut TestNode,
    at_one: Session,
    two: &mut TestNode,
    at_two: Session,
    from: u64,
    count: u64,
) -> Duration {
    let mut times = Vec::new();
    for round in from..from + count {
        let began = Instant::now();
        one.transport.send(NodeId(2), at_one, ack(round));
        assert_eq!(round_of(&two.message().await.0), Some(round));
        two.transport.send(NodeId(1), at_two, ack(round));
        assert_eq!(round_of(&one.message().await.0), Some(round));
        times.push(began.elapsed() / 2);
    }
    times.sort();
    times[times.len() / 2]
}

/// Bytes that differ from place to place, so that shifted or swapped pieces show.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect::<Vec<_>>().into()
}
