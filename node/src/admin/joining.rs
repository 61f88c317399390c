//! A node without a certificate asks to join: its token is redeemed at the primary, and a member that
//! holds the authority's key signs its request.
//!
//! Each step can be asked for again: a token is bound to the first key that it is shown with.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use quorate_actors::orders::OrderKind;
use quorate_actors::replication::ReceivedJoin;
use quorate_protocol::types::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::orders::{Verdict, forward, order, perform};
use super::routes::AdminState;
use super::tokens::Redeem;
use crate::events::{Act, ActOutcome};
use crate::{hex, pki};

/// How long a signer waits until its own log has the token as redeemed.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(2);
const CATCH_UP_PERIOD: Duration = Duration::from_millis(50);

/// What a node sends that joins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinRequest {
    /// The token's secret, in hex.
    pub(crate) secret: String,
    /// A certificate signing request in PEM; its key stays where it was made.
    pub(crate) request: String,
}

/// What it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinAnswer {
    /// Why not, where it is refused.
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// Its number.
    #[serde(default)]
    pub(crate) node: u64,
    /// Its certificate in PEM; none where no member holds the authority's key.
    #[serde(default)]
    pub(crate) certificate: Option<String>,
    /// The authorities in PEM.
    #[serde(default)]
    pub(crate) authorities: String,
    /// Members to call: number and address.
    #[serde(default)]
    pub(crate) members: Vec<(u64, String)>,
}

/// A request to sign, between members only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sign {
    /// The token's hash, in hex.
    hash: String,
    /// In PEM.
    request: String,
}

/// Answers one node.
pub(super) async fn answer(state: AdminState, received: ReceivedJoin) {
    let ReceivedJoin { remote, body, reply } = received;
    let actor = format!("a node at {remote}");
    let outcome = match serde_json::from_slice::<JoinRequest>(&body) {
        Ok(request) => join(&state, &actor, &request).await,
        Err(_) => Err("the request can't be read".to_owned()),
    };
    let answer = outcome.unwrap_or_else(|error| {
        let act = Act { actor, outcome: ActOutcome::Denied, reason: Some(error.clone()) };
        state.events.acted("join", act, Map::new());
        JoinAnswer {
            error: Some(error),
            node: 0,
            certificate: None,
            authorities: String::new(),
            members: Vec::new(),
        }
    });
    // The caller may be gone; it comes again.
    let _ = reply.send(serde_json::to_vec(&answer).unwrap_or_default().into());
}

async fn join(
    state: &AdminState,
    operator: &str,
    asked: &JoinRequest,
) -> Result<JoinAnswer, String> {
    let secret = hex::decode(&asked.secret).ok_or("the secret can't be read")?;
    let hash = hex::encode(blake3::hash(&secret).as_bytes());
    let request = pki::Request::parse(&asked.request).map_err(|error| error.to_string())?;
    let redeem = Redeem { hash: hash.clone(), key: hex::encode(&request.key_hash()) };
    let body = serde_json::to_vec(&redeem).unwrap_or_default();
    let redeemed = order(state, OrderKind::Redeem, operator, body.into()).await;
    if let Some(error) = redeemed.error() {
        return Err(error.to_owned());
    }
    let node = redeemed.body()["node"].as_u64().ok_or("the primary names no node")?;
    let sign = Sign { hash, request: asked.request.clone() };
    let body = serde_json::to_vec(&sign).unwrap_or_default();
    let certificate = signed(state, OrderKind::Sign, operator, body.into()).await;
    let view = state.node.view();
    let config = view.config.as_ref().ok_or("no cluster is known here")?;
    let members =
        config.members.iter().map(|member| (member.node.0, member.peer_addr.clone())).collect();
    let act = Act { actor: operator.to_owned(), outcome: ActOutcome::Allowed, reason: None };
    let fields = [("node", json!(node)), ("signed", json!(certificate.is_some()))];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    state.events.acted("join", act, Map::from_iter(fields));
    Ok(JoinAnswer {
        error: None,
        node,
        certificate,
        authorities: state.identity.load().authorities_pem.clone(),
        members,
    })
}

/// Has the request signed: here, or by the first member that holds the authority's key.
pub(super) async fn signed(
    state: &AdminState,
    kind: OrderKind,
    operator: &str,
    body: Bytes,
) -> Option<String> {
    let view = state.node.view();
    let others = view.peers.iter().filter(|peer| peer.connected).map(|peer| peer.node);
    let mut asked: Vec<NodeId> = vec![view.node];
    asked.extend(others);
    for node in asked {
        let verdict = if node == view.node {
            perform(state, node, kind, operator, &body).await
        } else {
            forward(state, node, kind, operator, body.clone()).await
        };
        if let Some(certificate) = verdict.body()["certificate"].as_str() {
            return Some(certificate.to_owned());
        }
        tracing::info!(%node, reason = verdict.error(), order = kind.name(), "it is not signed there");
    }
    None
}

/// Signs, if this node holds the authority's key and its log has the token as redeemed for this very
/// key.
pub(super) async fn sign(state: &AdminState, asked: Sign) -> Verdict {
    let bad = |error: String| Verdict::refused(StatusCode::BAD_REQUEST, error);
    let identity = state.identity.load_full();
    let Some(signer) = identity.signer.as_ref() else {
        let error = "this node has no tls.ca_key";
        return Verdict::refused(StatusCode::NOT_FOUND, error);
    };
    let request = match pki::Request::parse(&asked.request) {
        Ok(request) => request,
        Err(error) => return bad(error.to_string()),
    };
    let Some(hash) = hex::decode(&asked.hash) else { return bad("hash: 64 hex digits".to_owned()) };
    let key = request.key_hash();
    let node = || {
        let view = state.node.view();
        let mut tokens = view.config.iter().flat_map(|config| &config.tokens);
        let token = tokens.find(|token| token.hash == hash && token.key == Some(key));
        token.map(|token| token.node)
    };
    let caught_up = async {
        loop {
            match node() {
                Some(node) => return node,
                None => tokio::time::sleep(CATCH_UP_PERIOD).await,
            }
        }
    };
    let Ok(node) = tokio::time::timeout(CATCH_UP_LIMIT, caught_up).await else {
        let error = "this node's log has no token that was redeemed for the key";
        return Verdict::refused(StatusCode::CONFLICT, error);
    };
    match signer.sign(&request, node.0, &state.cluster_name, &[]) {
        Ok(certificate) => Verdict::done(json!({ "certificate": certificate })),
        Err(error) => Verdict::refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}
