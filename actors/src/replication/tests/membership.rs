//! Members, strangers and removed nodes, as the transport tells them apart.

use quorate_protocol::types::DiskId;
use tokio::sync::mpsc;

use super::*;
use crate::replication::{Candidate, Roster, answer_join, call_member, fingerprint};

/// A configuration of these members, each on the disk of its greeting.
fn roster(members: &[&TestNode], removed: &[u64]) -> Roster {
    let disks = members.iter().map(|node| (node.id, DiskId(u128::from(node.id.0)))).collect();
    Roster {
        peers: members.iter().map(|node| node.as_peer()).collect(),
        disks,
        removed: removed.iter().map(|node| NodeId(*node)).collect(),
        open: false,
    }
}

async fn tell(node: &TestNode, roster: Roster) {
    node.transport.set_roster(roster).await.expect("the transport runs");
}

#[tokio::test]
async fn a_removed_node_is_told_so_whichever_of_the_two_dials() {
    let authority = Authority::new();
    for gone_id in [1, 3] {
        let member = TestNode::start(&authority, 2).await;
        let mut gone = TestNode::start(&authority, gone_id).await;
        tell(&member, roster(&[&member], &[gone_id])).await;
        gone.transport.set_peers(vec![member.as_peer()]).await.expect("it runs");
        assert_eq!(gone.refused(2).await, Refusal::RemovedByPeer);
    }
}

#[tokio::test]
async fn a_member_that_is_removed_while_connected_is_told_so() {
    let authority = Authority::new();
    let ((one, _), (mut two, _)) = pair(&authority).await;
    tell(&one, roster(&[&one], &[2])).await;
    assert_eq!(two.refused(1).await, Refusal::RemovedByPeer);
}

#[tokio::test]
async fn another_disk_under_a_known_id_is_refused_on_both_sides() {
    let authority = Authority::new();
    for wiped_id in [1, 3] {
        let mut member = TestNode::start(&authority, 2).await;
        let hello = Hello { disk: DiskId(99), ..hello(wiped_id, 1) };
        let tls = authority.node(wiped_id, CLUSTER);
        let mut wiped = TestNode::start_with(hello, tls, LOCALHOST).await;
        tell(&member, roster(&[&member, &wiped], &[])).await;
        wiped.transport.set_peers(vec![member.as_peer()]).await.expect("it runs");
        assert_eq!(member.refused(wiped_id).await, Refusal::OtherDisk);
        assert_eq!(wiped.refused(2).await, Refusal::OtherDiskByPeer);
    }
}

#[tokio::test]
async fn an_empty_stranger_is_noted_and_let_in_once_it_is_a_member() {
    let authority = Authority::new();
    let mut member = TestNode::start(&authority, 1).await;
    let hello = Hello { peer_addr: "four:1".to_owned(), ..hello(4, 1) };
    let mut stranger = TestNode::start_with(hello, authority.node(4, CLUSTER), LOCALHOST).await;
    tell(&member, roster(&[&member], &[])).await;
    stranger.transport.set_peers(vec![member.as_peer()]).await.expect("it runs");
    assert_eq!(stranger.refused(1).await, Refusal::CandidateByPeer);
    let noted = Candidate {
        node: NodeId(4),
        disk: DiskId(4),
        peer_addr: "four:1".to_owned(),
        client_addr: String::new(),
        plain_addr: String::new(),
    };
    assert_eq!(member.candidates.list(), [noted]);
    tell(&member, roster(&[&member, &stranger], &[])).await;
    member.connected(4).await;
    stranger.connected(1).await;
}

/// Its configuration has not arrived here: it has a log of this cluster, and knows where this node is.
#[tokio::test]
async fn a_member_of_a_later_configuration_is_let_in() {
    let authority = Authority::new();
    let mut behind = TestNode::start(&authority, 2).await;
    tell(&behind, roster(&[&behind], &[])).await;
    let hello = Hello { formed: true, ..hello(1, 1) };
    let mut ahead = TestNode::start_with(hello, authority.node(1, CLUSTER), LOCALHOST).await;
    tell(&ahead, roster(&[&ahead, &behind], &[])).await;
    ahead.connected(2).await;
    behind.connected(1).await;
}

/// Only the node with the higher id knows where the other one is.
#[tokio::test]
async fn the_higher_id_dials_where_the_lower_one_can_not() {
    let authority = Authority::new();
    let mut one = TestNode::start(&authority, 1).await;
    let mut two = TestNode::start(&authority, 2).await;
    let nowhere = PeerAddress { node: NodeId(2), addresses: vec![free_address().to_string()] };
    one.transport.set_peers(vec![nowhere]).await.expect("it runs");
    two.transport.set_peers(vec![one.as_peer()]).await.expect("it runs");
    let (session, _) = one.connected(2).await;
    two.connected(1).await;
    one.transport.send(NodeId(2), session, ack(5));
    assert_eq!(round_of(&two.message().await.0), Some(5));
}

#[tokio::test]
async fn a_node_without_a_certificate_is_heard_under_the_right_authority_alone() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (bulk, mut knocks) = mpsc::channel(4);
    let member = TestNode::start_serving(&authority, 1, Some(bulk)).await;
    let (joins, mut asked) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(knock) = knocks.recv().await {
            assert!(knock.joins());
            tokio::spawn(answer_join(knock, joins.clone()));
        }
    });
    tokio::spawn(async move {
        while let Some(join) = asked.recv().await {
            let echo = [b"you said ".as_slice(), &join.body].concat();
            join.reply.send(echo.into()).expect("the caller waits");
        }
    });
    let right = fingerprint(&authority.certificate());
    let wrong = fingerprint(&other.certificate());
    let address = member.address();
    let answer = call_member(address, CLUSTER, &[wrong, right], b"hello").await;
    assert_eq!(answer.expect("an answer"), b"you said hello");
    let error = call_member(address, CLUSTER, &[wrong], b"hello").await.expect_err("a stranger");
    assert!(error.to_string().contains("not the one that the token names"), "{error}");
    let error = call_member(address, "other", &[right], b"hello").await.expect_err("a stranger");
    assert!(error.to_string().contains("names no node"), "{error}");
    let long = vec![b' '; crate::replication::JOIN_REQUEST_BYTES_MAX + 1];
    assert!(call_member(address, CLUSTER, &[right], &long).await.is_err());
}
