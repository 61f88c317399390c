//! Who may talk to whom, and what happens when connections come and go.

use std::time::Instant;

use quinn::VarInt;
use quorate_protocol::types::{ClusterId, Generation};

use super::*;
use crate::replication::config::IDLE_TIMEOUT;
use crate::replication::endpoint::{Endpoint, EndpointError};
use crate::replication::tls::{IdentityError, TlsError};

#[tokio::test]
async fn two_nodes_connect_whoever_starts_first_and_exchange_greetings() {
    let authority = Authority::new();
    for first in [1, 2] {
        let mut early = TestNode::start(&authority, first).await;
        let late_id = 3 - first;
        // The address of a node that doesn't run yet.
        let bind = free_address();
        let peer = PeerAddress { node: NodeId(late_id), addresses: vec![bind.to_string()] };
        early.transport.set_peers(vec![peer]).await.expect("it runs");
        let tls = authority.node(late_id, CLUSTER);
        let mut late = TestNode::start_with(hello(late_id, 7), tls, bind).await;
        let known = late.transport.set_peers(vec![early.as_peer()]).await;
        known.expect("it runs");
        let (_, heard) = early.connected(late_id).await;
        assert_eq!(heard, hello(late_id, 7));
        let (_, heard) = late.connected(first).await;
        assert_eq!(heard, hello(first, 1));
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let names = vec![crate::replication::node_name(NodeId(2), CLUSTER)];
    // It trusts our authority, so only its own certificate is wrong; and the other way round.
    for (lower, higher) in [(1, 2), (3, 2)] {
        let stranger = theirs.trusting(names.clone(), &ours);
        let mut node = TestNode::start(&ours, lower).await;
        let mut other = TestNode::start_with(hello(higher, 1), stranger, LOCALHOST).await;
        introduce(&[&node, &other]).await;
        if lower < higher {
            let reason = node.refused(higher).await;
            assert!(matches!(reason, Refusal::Tls(_)), "{reason}");
        } else {
            let reason = other.refused(lower).await;
            assert!(matches!(reason, Refusal::ByPeer(_)), "{reason}");
        }
        assert!(never_connected(&mut node).await);
        assert!(never_connected(&mut other).await);
    }
}

#[tokio::test]
async fn a_node_that_answers_under_another_id_is_refused() {
    let authority = Authority::new();
    let mut one = TestNode::start(&authority, 1).await;
    let three = TestNode::start(&authority, 3).await;
    // Node 2's address leads to node 3.
    let peer = PeerAddress { node: NodeId(2), addresses: vec![three.address().to_string()] };
    one.transport.set_peers(vec![peer]).await.expect("it runs");
    let reason = one.refused(2).await;
    assert!(matches!(reason, Refusal::Tls(_)), "{reason}");
}

#[tokio::test]
async fn an_unknown_node_is_refused_and_told() {
    let authority = Authority::new();
    let mut one = TestNode::start(&authority, 1).await;
    let mut two = TestNode::start(&authority, 2).await;
    let known = one.transport.set_peers(vec![two.as_peer()]).await;
    known.expect("it runs");
    assert_eq!(one.refused(2).await, Refusal::ByPeer("it doesn't know this node".to_owned()));
    assert!(never_connected(&mut two).await);
    let known = two.transport.set_peers(vec![one.as_peer()]).await;
    known.expect("it runs");
    one.connected(2).await;
}

#[tokio::test]
async fn greetings_that_do_not_fit_are_refused_with_the_reason_on_both_sides() {
    let formed = |node, cluster, generation| Hello {
        cluster: Some(ClusterId(cluster)),
        generation: Generation(generation),
        ..hello(node, 1)
    };
    let other_name = Hello { cluster_name: "other".to_owned(), ..hello(2, 1) };
    let old = Hello { wire_version: 0, ..hello(2, 1) };
    let cases = [
        (formed(1, 5, 0), formed(2, 6, 0), "cluster id"),
        (formed(1, 5, 1), formed(2, 5, 0), "generation"),
        (hello(1, 1), old, "wire version"),
    ];
    let authority = Authority::new();
    for (ours, theirs, reason) in cases {
        let mut one = TestNode::start_with(ours, authority.node(1, CLUSTER), LOCALHOST).await;
        let mut two = TestNode::start_with(theirs, authority.node(2, CLUSTER), LOCALHOST).await;
        introduce(&[&one, &two]).await;
        let at_two = two.refused(1).await;
        let at_one = one.refused(2).await;
        if reason == "wire version" {
            // Only the newer one can tell.
            assert_eq!(at_one, Refusal::WireVersion { theirs: 0, ours: 1 });
        } else {
            assert_eq!(at_one, Refusal::ByPeer(reason.to_owned()), "{at_two}");
        }
    }
    // Another cluster's name is in the certificate too: it isn't even dialled.
    let mut one = TestNode::start(&authority, 1).await;
    let tls = authority.node(2, "other");
    let two = TestNode::start_with(other_name, tls, LOCALHOST).await;
    introduce(&[&one, &two]).await;
    assert!(matches!(one.refused(2).await, Refusal::Tls(_)));
}

#[tokio::test]
async fn a_changed_greeting_reaches_the_peer_and_may_end_the_session() {
    let authority = Authority::new();
    let ((one, _), (mut two, _)) = pair(&authority).await;
    let formed = |node, cluster| Hello { cluster: Some(ClusterId(cluster)), ..hello(node, 1) };
    one.transport.announce(formed(1, 5));
    let heard = two
        .wait_for("a greeting", |event| match event {
            PeerEvent::Greeted { hello, .. } => Some(hello.as_ref().clone()),
            _ => None,
        })
        .await;
    assert_eq!(heard, formed(1, 5));
    two.transport.announce(formed(2, 6));
    let refused = Refusal::Cluster { theirs: ClusterId(5), ours: ClusterId(6) };
    assert_eq!(two.refused(1).await, refused);
}

#[tokio::test]
async fn a_killed_and_restarted_peer_is_connected_again_long_before_the_idle_timeout() {
    let authority = Authority::new();
    for mortal_id in [1, 3] {
        let mut stays = TestNode::start(&authority, 2).await;
        let tls = authority.node(mortal_id, CLUSTER);
        let peers = vec![stays.as_peer()];
        let mortal = Mortal::start(hello(mortal_id, 1), tls.clone(), LOCALHOST, peers.clone());
        let bind = mortal.address;
        let peer = PeerAddress { node: NodeId(mortal_id), addresses: vec![bind.to_string()] };
        stays.transport.set_peers(vec![peer]).await.expect("it runs");
        stays.connected(mortal_id).await;
        mortal.kill();
        let began = Instant::now();
        let mortal = Mortal::start(hello(mortal_id, 2), tls, bind, peers);
        let (_, heard) = stays.connected(mortal_id).await;
        assert_eq!(heard.incarnation, Incarnation(2));
        assert!(began.elapsed() < IDLE_TIMEOUT / 2, "{:?}", began.elapsed());
        mortal.kill();
    }
}

#[tokio::test]
async fn a_late_connection_of_an_earlier_life_is_refused() {
    let authority = Authority::new();
    let mut two = TestNode::start(&authority, 2).await;
    let tls = authority.node(1, CLUSTER);
    let mut new = TestNode::start_with(hello(1, 5), tls.clone(), LOCALHOST).await;
    let mut old = TestNode::start_with(hello(1, 4), tls, LOCALHOST).await;
    introduce(&[&new, &two]).await;
    let (session, _) = new.connected(2).await;
    two.connected(1).await;
    let known = old.transport.set_peers(vec![two.as_peer()]).await;
    known.expect("it runs");
    let reason = two.refused(1).await;
    assert!(matches!(reason, Refusal::Incarnation { .. }), "{reason}");
    assert_eq!(old.refused(2).await, Refusal::ByPeer("it saw a later incarnation".to_owned()));
    // The current session is untouched.
    new.transport.send(NodeId(2), session, ack(9));
    assert_eq!(round_of(&two.message().await.0), Some(9));
}

#[tokio::test]
async fn garbage_on_a_stream_ends_that_connection_only() {
    let authority = Authority::new();
    let mut three = TestNode::start(&authority, 3).await;
    let mut one = TestNode::start(&authority, 1).await;
    introduce(&[&one, &three]).await;
    let (session, _) = one.connected(3).await;
    three.connected(1).await;
    let hostile = PeerAddress { node: NodeId(2), addresses: Vec::new() };
    let known = three.transport.set_peers(vec![one.as_peer(), hostile]).await;
    known.expect("it runs");
    let tls = authority.node(2, CLUSTER);
    let endpoint = Endpoint::bind(LOCALHOST, NodeId(2), CLUSTER, &tls).expect("it binds");
    // Garbage instead of a greeting; a huge length; garbage after a good greeting.
    let huge = b"C\xff\xff\xff\xff\0\0\0\0".to_vec();
    for (first, then) in [
        (b"Cgarbage garbage garbage".to_vec(), None),
        (huge, None),
        (greeting(), Some([1, 0, 0, 0, 9, 9, 9, 9, 9])),
    ] {
        let dial = endpoint.dial(NodeId(3), three.address()).expect("it dials");
        let connection = dial.await.expect("it connects");
        let (mut control, _recv) = connection.open_bi().await.expect("it opens");
        let (mut log, _recv) = connection.open_bi().await.expect("it opens");
        control.write_all(&first).await.expect("it is sent");
        log.write_all(b"L").await.expect("it is sent");
        if let Some(garbage) = then {
            three.connected(2).await;
            control.write_all(&garbage).await.expect("it is sent");
            three.disconnected(2).await;
        }
        let closed = tokio::time::timeout(DEADLINE, connection.closed()).await;
        match closed.expect("it is closed in time") {
            quinn::ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, VarInt::from_u32(2), "a protocol error");
            }
            other => panic!("{other}"),
        }
    }
    one.transport.send(NodeId(3), session, ack(9));
    assert_eq!(round_of(&three.message().await.0), Some(9));
}

#[tokio::test]
async fn names_are_resolved_and_addresses_tried_in_turn() {
    let authority = Authority::new();
    let mut one = TestNode::start(&authority, 1).await;
    let two = TestNode::start(&authority, 2).await;
    let known = two.transport.set_peers(vec![one.as_peer()]).await;
    known.expect("it runs");
    let peer = PeerAddress {
        node: NodeId(2),
        addresses: vec![
            "no-such-host.invalid:1".to_owned(),
            free_address().to_string(),
            format!("localhost:{}", two.address().port()),
        ],
    };
    one.transport.set_peers(vec![peer]).await.expect("it runs");
    one.connected(2).await;
}

#[tokio::test]
async fn a_peer_whose_address_becomes_known_later_is_dialled() {
    let authority = Authority::new();
    let mut one = TestNode::start(&authority, 1).await;
    let two = TestNode::start(&authority, 2).await;
    two.transport.set_peers(vec![one.as_peer()]).await.expect("it runs");
    let nowhere = PeerAddress { node: NodeId(2), addresses: Vec::new() };
    one.transport.set_peers(vec![nowhere]).await.expect("it runs");
    assert!(never_connected(&mut one).await);
    one.transport.set_peers(vec![two.as_peer()]).await.expect("it runs");
    one.connected(2).await;
}

#[tokio::test]
async fn a_peer_that_is_no_longer_one_is_let_go() {
    let authority = Authority::new();
    let ((mut one, _), (mut two, _)) = pair(&authority).await;
    two.transport.set_peers(Vec::new()).await.expect("it runs");
    two.disconnected(1).await;
    one.disconnected(2).await;
    let reason = one.refused(2).await;
    assert_eq!(reason, Refusal::ByPeer("it doesn't know this node".to_owned()));
}

#[tokio::test]
async fn a_stopped_node_says_goodbye() {
    let authority = Authority::new();
    let ((one, _), (mut two, _)) = pair(&authority).await;
    let began = Instant::now();
    one.stop().await;
    two.disconnected(1).await;
    assert!(began.elapsed() < IDLE_TIMEOUT / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn wrong_certificates_and_taken_ports_are_named_at_start() {
    let authority = Authority::new();
    let bind = |tls: &TlsMaterial, address| {
        Endpoint::bind(address, NodeId(1), CLUSTER, tls).err().expect("it is refused")
    };
    let identity = |error| match error {
        EndpointError::Tls(TlsError::Identity { source, .. }) => source,
        other => panic!("{other}"),
    };
    let tls = authority.node(2, CLUSTER);
    assert_eq!(identity(bind(&tls, LOCALHOST)), IdentityError::Other(NodeId(2)));
    let tls = authority.node(1, "elsewhere");
    assert_eq!(identity(bind(&tls, LOCALHOST)), IdentityError::NoNode);
    let names = |ids: [u64; 2]| ids.map(|id| format!("node-{id}.{CLUSTER}")).to_vec();
    let tls = authority.names(names([1, 2]));
    assert_eq!(identity(bind(&tls, LOCALHOST)), IdentityError::Ambiguous);
    let taken = UdpSocket::bind(LOCALHOST).expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let error = bind(&authority.node(1, CLUSTER), address);
    assert!(matches!(error, EndpointError::Bind { .. }), "{error}");
}

#[tokio::test]
async fn new_certificates_count_for_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let ((mut one, at_one), (mut two, _)) = pair(&old).await;
    for (node, id) in [(&one, 1), (&two, 2)] {
        let tls = new.node(id, CLUSTER);
        node.transport.reload(&tls).expect("it is valid");
    }
    assert!(one.transport.reload(&new.node(2, CLUSTER)).is_err(), "another node's");
    one.transport.send(NodeId(2), at_one, ack(1));
    assert_eq!(round_of(&two.message().await.0), Some(1), "the session went on");
    one.transport.disconnect(NodeId(2), at_one);
    one.connected(2).await;
    // A node that still has the old one is refused now.
    let mut three = TestNode::start(&old, 3).await;
    introduce(&[&one, &two, &three]).await;
    assert!(matches!(one.refused(3).await, Refusal::Tls(_)));
    assert!(never_connected(&mut three).await);
}
fn greeting() -> Vec<u8> {
    let mut bytes = b"C".to_vec();
    let frame = quorate_protocol::wire::ControlFrame::Hello(Box::new(hello(2, 1)));
    quorate_protocol::wire::encode_control(&frame, &mut bytes).expect("it fits");
    bytes
}

/// Whether several dials' time passes without a session.
async fn never_connected(node: &mut TestNode) -> bool {
    let quiet = Duration::from_millis(300);
    tokio::time::timeout(quiet, node.connected_to_anyone()).await.is_err()
}

impl TestNode {
    async fn connected_to_anyone(&mut self) {
        self.wait_for("any session", |event| {
            matches!(event, PeerEvent::Connected { .. }).then_some(())
        })
        .await;
    }
}

/// A node on a thread of its own that can die as a killed process does: no goodbye is sent.
struct Mortal {
    address: SocketAddr,
    kill: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Mortal {
    fn start(hello: Hello, tls: TlsMaterial, bind: SocketAddr, peers: Vec<PeerAddress>) -> Self {
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let node = TestNode::start_with(hello, tls, bind).await;
                node.transport.set_peers(peers).await.expect("it runs");
                started.send(node.address()).expect("the test waits");
                let _ = killed.await;
            });
            runtime.shutdown_background();
        });
        Self { address: address.recv().expect("it starts"), kill, thread }
    }

    fn kill(self) {
        self.kill.send(()).expect("it lives");
        self.thread.join().expect("it doesn't panic");
    }
}

#[test]
fn a_certificate_that_peers_would_refuse_is_named() {
    let (own, other) = (Authority::new(), Authority::new());
    let names = || vec![crate::replication::node_name(NodeId(1), "prod")];
    own.trusting(names(), &own).check_acceptance(NodeId(1), "prod").expect("its own authority");
    let error = own
        .trusting(names(), &other)
        .check_acceptance(NodeId(1), "prod")
        .expect_err("another authority's certificate");
    assert!(matches!(error, TlsError::Refused(_)), "{error}");
    let error = own
        .trusting(names(), &own)
        .check_acceptance(NodeId(2), "prod")
        .expect_err("another node's certificate");
    assert!(matches!(error, TlsError::Refused(_)), "{error}");
}
