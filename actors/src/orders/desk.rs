//! Asking another node, and taking what others ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::Connection;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{DiskId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::wire::{ANSWER_BYTES_MAX, BODY_BYTES_MAX, Order, OrderAnswer, OrderKind};
use crate::replication::{BulkDialler, ReceivedJoin};
use crate::view::{Published, View};

/// From the first packet to a connection, for each address.
const DIAL_DEADLINE: Duration = Duration::from_secs(1);

/// The longest that another node may make this one wait.
const LIMIT_MAX: Duration = Duration::from_mins(10);

/// Orders of other nodes that may wait to be carried out.
const INBOX_MAX: usize = 16;

/// Requests of nodes that join that may wait to be answered.
const JOINS_MAX: usize = 4;

/// Refused orders that may wait to be recorded; those beyond are not.
const REFUSED_MAX: usize = 16;

/// Orders to other nodes that may wait to be sent.
const ASKS_MAX: usize = 16;

/// Why another node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// It was not asked: nothing has happened.
    #[error("node {node} can't be asked: {reason}")]
    NotAsked {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// It was asked and may have done it.
    #[error("in doubt: node {node} was asked and gave no answer: {reason}")]
    InDoubt {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

/// Asks other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OrderDesk {
    asks: mpsc::Sender<Ask>,
    published: Arc<Published>,
    disk: DiskId,
}

/// What other nodes ask of this one, in the order in which it arrives.
#[derive(Debug)]
pub struct OrderInbox {
    orders: mpsc::Receiver<ReceivedOrder>,
    joins: mpsc::Receiver<ReceivedJoin>,
    refused: mpsc::Receiver<RefusedOrder>,
}

/// What another node asks.
#[derive(Debug)]
pub enum Received {
    /// A member.
    Order(ReceivedOrder),
    /// A node that has no certificate yet.
    Join(ReceivedJoin),
    /// A node that has one, and whose order was refused before anybody saw it.
    Refused(RefusedOrder),
}

impl OrderInbox {
    /// The next; `None` once the node stops.
    pub async fn next(&mut self) -> Option<Received> {
        tokio::select! {
            order = self.orders.recv() => order.map(Received::Order),
            join = self.joins.recv() => join.map(Received::Join),
            refused = self.refused.recv() => refused.map(Received::Refused),
        }
    }
}

/// An order on its way to another node.
#[derive(Debug)]
pub(crate) struct Ask {
    to: NodeId,
    /// Where its session is, and where it says that it listens.
    live: Option<SocketAddr>,
    address: String,
    order: Order,
    reply: oneshot::Sender<Result<OrderAnswer, OrderError>>,
}

/// An order of another member, to be carried out here.
#[derive(Debug)]
pub struct ReceivedOrder {
    /// The member, by its certificate.
    pub from: NodeId,
    /// What is to be done.
    pub kind: OrderKind,
    /// Who asked there, as that node says.
    pub operator: String,
    /// JSON.
    pub body: Bytes,
    /// When the asker stops waiting.
    pub deadline: Instant,
    /// Takes the answer; nobody waits for it any more if that fails.
    pub reply: oneshot::Sender<OrderAnswer>,
}

/// An order that was refused already, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedOrder {
    /// The node, by its certificate.
    pub from: NodeId,
    /// Who asked there, as that node says.
    pub operator: String,
    /// What was to be done, if this node's version knows it.
    pub kind: Option<OrderKind>,
    /// Why it was refused.
    pub reason: String,
}

/// Takes orders from the connections that they arrive on.
#[derive(Clone, Debug)]
pub(crate) struct Reception {
    published: Arc<Published>,
    inbox: mpsc::Sender<ReceivedOrder>,
    joins: mpsc::Sender<ReceivedJoin>,
    refused: mpsc::Sender<RefusedOrder>,
}

/// Both ends of both ways: what the node has, and what the thread for bulk carries.
pub(crate) fn receive(
    published: Arc<Published>,
    disk: DiskId,
) -> (OrderDesk, OrderInbox, Reception, mpsc::Receiver<Ask>) {
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let (inbox, orders) = mpsc::channel(INBOX_MAX);
    let (join, joins) = mpsc::channel(JOINS_MAX);
    let (refuse, refused) = mpsc::channel(REFUSED_MAX);
    let reception = Reception { published: published.clone(), inbox, joins: join, refused: refuse };
    let received = OrderInbox { orders, joins, refused };
    (OrderDesk { asks, published, disk }, received, reception, asked)
}

impl OrderDesk {
    /// Has another member do something, and waits for its answer until `limit` has passed.
    ///
    /// # Errors
    /// There is no answer; says whether it may have been done.
    pub async fn ask(
        &self,
        to: NodeId,
        kind: OrderKind,
        operator: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<OrderAnswer, OrderError> {
        let not_asked = |reason: &str| OrderError::NotAsked { node: to, reason: reason.to_owned() };
        let view = self.published.view();
        let config = view.config.as_ref().ok_or_else(|| not_asked("no cluster is known here"))?;
        let member = config.member(to).ok_or_else(|| not_asked("it is not a member"))?;
        if body.len() > BODY_BYTES_MAX {
            return Err(not_asked("the order is too long"));
        }
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            to,
            live: view.peers.iter().find(|peer| peer.node == to).and_then(|peer| peer.address),
            address: member.peer_addr.clone(),
            order: Order {
                kind: kind as u8,
                cluster: config.cluster,
                generation: config.generation,
                disk: self.disk,
                limit,
                operator: operator.to_owned(),
                body,
            },
            reply,
        };
        match self.asks.try_send(ask) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(not_asked("too many wait")),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(not_asked("this node is stopping"));
            }
        }
        // The thread keeps the deadlines; it drops the channel only when it ends.
        let ended = OrderError::InDoubt { node: to, reason: "this node is stopping".to_owned() };
        answer.await.unwrap_or(Err(ended))
    }
}

/// Brings an order to its node and the answer back.
pub(crate) async fn carry(ask: Ask, dialler: Result<Arc<BulkDialler>, String>) {
    let Ask { to, live, address, order, reply } = ask;
    let limit = order.limit;
    let connection = match dialler {
        Ok(dialler) => dial(&dialler, to, live, &address).await,
        Err(reason) => Err(reason),
    };
    let outcome = match connection {
        Ok(connection) => {
            let answered = timeout(limit, exchange(&connection, order)).await;
            connection.close(0u32.into(), b"");
            answered
                .unwrap_or_else(|_| Err(format!("nothing within {limit:?}")))
                .map_err(|reason| OrderError::InDoubt { node: to, reason })
        }
        Err(reason) => Err(OrderError::NotAsked { node: to, reason }),
    };
    // A dropped receiver is a caller that stopped waiting.
    let _ = reply.send(outcome);
}

/// First where its session is, then where it says that it listens.
async fn dial(
    dialler: &BulkDialler,
    to: NodeId,
    live: Option<SocketAddr>,
    address: &str,
) -> Result<Connection, String> {
    let mut failure = "it has no address".to_owned();
    if let Some(address) = live {
        match dial_one(dialler, to, address).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    let resolved = timeout(DIAL_DEADLINE, tokio::net::lookup_host(address)).await;
    let found = match resolved {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("{failure}; {address:?}: {error}")),
        Err(_) => return Err(format!("{failure}; {address:?} was not resolved in time")),
    };
    match found.into_iter().find(|address| Some(*address) != live) {
        Some(address) => dial_one(dialler, to, address).await,
        None => Err(failure),
    }
}

async fn dial_one(
    dialler: &BulkDialler,
    to: NodeId,
    address: SocketAddr,
) -> Result<Connection, String> {
    match timeout(DIAL_DEADLINE, dialler.dial(to, address)).await {
        Ok(dialled) => dialled.map_err(|error| format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no connection within {DIAL_DEADLINE:?}")),
    }
}

async fn exchange(connection: &Connection, order: Order) -> Result<OrderAnswer, String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let request = crate::snapshot::encode_order(order);
    send.write_all(&request).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    let answer = recv.read_to_end(ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())?;
    OrderAnswer::decode(&answer).ok_or_else(|| "the answer can't be read".to_owned())
}

impl Reception {
    /// Where requests of nodes that join go.
    pub(crate) fn joins(&self) -> mpsc::Sender<ReceivedJoin> {
        self.joins.clone()
    }

    /// Judges an order of the member with this certificate, has it carried out, and gives the
    /// answer's bytes.
    pub(crate) async fn take(&self, from: NodeId, order: Order) -> Vec<u8> {
        self.answer(from, order).await.encode()
    }

    async fn answer(&self, from: NodeId, order: Order) -> OrderAnswer {
        let Order { cluster, generation, disk, .. } = order;
        let view = self.published.view();
        let known = OrderKind::of(order.kind);
        let refuse = |code, reason: String| {
            let answer = refusal(code, &reason);
            // Where many are refused, not all are recorded.
            let operator = order.operator.clone();
            let _ = self.refused.try_send(RefusedOrder { from, operator, kind: known, reason });
            answer
        };
        if let Err(reason) = authorise(&view, from, (cluster, generation, disk)) {
            return refuse(403, reason);
        }
        let Some(kind) = known else {
            let reason = "this node's version doesn't know the order";
            return refuse(501, format!("{reason} with the number {}", order.kind));
        };
        let limit = order.limit.min(LIMIT_MAX);
        let (reply, answer) = oneshot::channel();
        let received = ReceivedOrder {
            from,
            kind,
            operator: order.operator.clone(),
            body: order.body.clone(),
            deadline: Instant::now() + limit,
            reply,
        };
        if self.inbox.try_send(received).is_err() {
            return refuse(503, "this node takes no orders now; nothing was changed".to_owned());
        }
        match timeout(limit, answer).await {
            Ok(Ok(answer)) if answer.body.len() <= BODY_BYTES_MAX => answer,
            Ok(Ok(answer)) => OrderAnswer {
                body: refusal(answer.code, "the answer is too long; it was carried out").body,
                ..answer
            },
            Ok(Err(_)) => refusal(504, "in doubt: the node stopped while it carried out the order"),
            Err(_) => refusal(504, "in doubt: the order was not carried out in time"),
        }
    }
}

/// Only a member of this cluster and generation, on the disk that it is bound to, gives orders.
fn authorise(
    view: &View,
    from: NodeId,
    (cluster, generation, disk): (
        quorate_protocol::types::ClusterId,
        quorate_protocol::types::Generation,
        DiskId,
    ),
) -> Result<(), String> {
    let config: &ClusterEntry = view.config.as_ref().ok_or("no cluster is known here")?;
    if config.cluster != cluster || config.generation != generation {
        return Err(format!("node {from} belongs to another cluster or generation"));
    }
    if !config.binds(from, disk) {
        return Err(format!("node {from} is not a member on its disk"));
    }
    Ok(())
}

fn refusal(code: u16, reason: &str) -> OrderAnswer {
    // JSON strings and Rust's escape the same way for what reasons hold.
    OrderAnswer { code, body: format!("{{\"error\":{reason:?}}}").into() }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::cluster::{Member, MemberKind, SafetyTimers};
    use quorate_protocol::policy::Policy;
    use quorate_protocol::types::{ClusterId, Generation};

    use super::*;

    const DISK: DiskId = DiskId(0x33);
    const OWN: (ClusterId, Generation, DiskId) = (ClusterId(1), Generation(2), DISK);

    /// Node 2 is a member on `DISK`, of cluster 1 in generation 2.
    fn view() -> View {
        let member = Member {
            node: NodeId(2),
            disk: DISK,
            kind: MemberKind::Voter,
            peer_addr: "127.0.0.1:9".to_owned(),
            client_addr: String::new(),
            plain_addr: String::new(),
        };
        let config = ClusterEntry {
            cluster: ClusterId(1),
            generation: Generation(2),
            version: 1,
            members: vec![member],
            policy: Policy::MAJORITY,
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        };
        View { config: Some(Arc::new(config)), ..View::default() }
    }

    fn order(limit: Duration) -> Order {
        let (cluster, generation, disk) = OWN;
        let kind = OrderKind::Promote as u8;
        let (operator, body) = ("ada".to_owned(), Bytes::from_static(b"{}"));
        Order { kind, cluster, generation, disk, limit, operator, body }
    }

    /// Both ends at a node that sees this.
    fn ends(view: View) -> (OrderDesk, OrderInbox, Reception, mpsc::Receiver<Ask>) {
        let published = Published::new();
        published.set_view(view);
        receive(published, DISK)
    }

    #[test]
    fn only_a_member_on_its_disk_gives_orders() {
        let node = NodeId(2);
        assert_eq!(authorise(&view(), node, OWN), Ok(()));
        let (cluster, generation, disk) = OWN;
        for (from, said, why) in [
            (NodeId(3), OWN, "not a member"),
            (node, (cluster, generation, DiskId(0x34)), "not a member on its disk"),
            (node, (ClusterId(9), generation, disk), "another cluster"),
            (node, (cluster, Generation(1), disk), "another cluster or generation"),
        ] {
            let refused = authorise(&view(), from, said).expect_err("refused");
            assert!(refused.contains(why), "{refused}");
        }
        let unformed = authorise(&View::default(), node, OWN).expect_err("refused");
        assert!(unformed.contains("no cluster"), "{unformed}");
    }

    #[tokio::test]
    async fn a_foreign_order_is_refused_before_anyone_sees_it() {
        let (_desk, mut inbox, reception, _asks) = ends(view());
        let answer = reception.answer(NodeId(3), order(Duration::from_secs(5))).await;
        assert_eq!(answer.code, 403, "{:?}", answer.body);
        assert!(inbox.orders.try_recv().is_err());
        let newer = Order { kind: 200, ..order(Duration::from_secs(5)) };
        assert_eq!(reception.answer(NodeId(2), newer).await.code, 501);
        // To be recorded, both.
        for (from, kind, why) in [
            (NodeId(3), Some(OrderKind::Promote), "not a member"),
            (NodeId(2), None, "the number 200"),
        ] {
            let told = timeout(Duration::from_secs(5), inbox.next()).await;
            let Ok(Some(Received::Refused(refused))) = told else { panic!("{told:?}") };
            assert_eq!((refused.from, refused.kind, &*refused.operator), (from, kind, "ada"));
            assert!(refused.reason.contains(why), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn an_order_that_is_not_answered_in_time_is_in_doubt() {
        let (_desk, mut inbox, reception, _asks) = ends(view());
        let in_doubt = |answer: OrderAnswer| {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.code == 504 && text.contains("in doubt"), "{} {text}", answer.code);
        };
        in_doubt(reception.answer(NodeId(2), order(Duration::from_millis(20))).await);
        assert!(inbox.orders.try_recv().is_ok(), "it was given to be carried out");
        // Whoever carries it out ends without an answer.
        let (answer, ()) =
            tokio::join!(reception.answer(NodeId(2), order(Duration::from_secs(5))), async {
                drop(inbox.orders.recv().await);
            });
        in_doubt(answer);
        // Nobody takes any: nothing can have happened.
        drop(inbox);
        assert_eq!(reception.answer(NodeId(2), order(Duration::from_secs(5))).await.code, 503);
    }

    #[tokio::test]
    async fn who_asks_is_told_whether_it_may_have_happened() {
        let (desk, _inbox, _reception, mut asks) = ends(view());
        let ask = |to| {
            let body = Bytes::from_static(b"{}");
            desk.ask(NodeId(to), OrderKind::Promote, "ada", body, Duration::from_secs(5))
        };
        assert!(matches!(ask(7).await, Err(OrderError::NotAsked { node: NodeId(7), .. })));
        let (answer, ()) = tokio::join!(ask(2), async {
            drop(asks.recv().await);
        });
        assert!(matches!(answer, Err(OrderError::InDoubt { node: NodeId(2), .. })), "{answer:?}");
        drop(asks);
        assert!(matches!(ask(2).await, Err(OrderError::NotAsked { .. })), "it stops");
    }
}
