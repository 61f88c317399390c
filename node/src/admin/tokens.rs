//! Join tokens: made and revoked by operators, redeemed by nodes that join.
//!
//! The log holds a token's hash alone. The secret is drawn by `quorate token create` and shown by a
//! node that joins to the member that it calls, which passes on the hash.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::clock;
use quorate_actors::orders::OrderKind;
use quorate_protocol::cluster::{ClusterChange, ClusterEntry, JoinToken};
use quorate_protocol::types::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::answers::{TokenAnswer, TokenCreated, TokenList, TokenRevoked, TokenState};
use super::orders::{ORDER_LIMIT, Verdict, change_in_turn, not_changed, order};
use super::routes::AdminState;
use crate::hex;

/// The longest that a token may hold, in seconds.
const TTL_MAX_S: u64 = 30 * 86_400;

/// Longer than the period in which the view is renewed.
const VIEW_LIMIT: Duration = Duration::from_millis(100);

/// What is to become of an invitation.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, tag = "action", rename_all = "lowercase")]
pub(crate) enum TokensOrder {
    /// Makes one.
    Create {
        /// BLAKE3 of the secret, in hex.
        hash: String,
        /// The node that it is for; by default the lowest number above all that were ever used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u64>,
        /// How long it holds.
        ttl_seconds: u64,
    },
    /// Drops one.
    Revoke {
        /// The node that it is for.
        node: u64,
    },
}

/// Binds a token to a key, between members only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Redeem {
    /// The token's hash, in hex.
    pub(super) hash: String,
    /// BLAKE3 of the public key, in hex.
    pub(super) key: String,
}

/// Invitations for nodes that join
#[utoipa::path(
    get, path = "/tokens", tag = "cluster", responses((status = 200, body = TokenList)),
)]
pub(super) async fn list(State(state): State<AdminState>) -> Response {
    let view = state.node.view();
    let now_s = now_s();
    let tokens = view
        .config
        .iter()
        .flat_map(|config| &config.tokens)
        .map(|token| TokenState {
            node: token.node.0,
            expires_at: token.expires_s,
            expired: !token.is_open(now_s),
            redeemed: token.key.is_some(),
        })
        .collect();
    Json(TokenList { tokens }).into_response()
}

/// Invite a node, or take an invitation back
#[utoipa::path(
    post, path = "/admin/tokens", tag = "cluster", request_body = TokensOrder,
    responses((status = 200, body = TokenAnswer)),
)]
pub(super) async fn change(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    order(&state, OrderKind::Tokens, &caller.to_string(), body).await.into_response()
}

/// What the primary does.
pub(super) async fn perform(state: &AdminState, asked: TokensOrder) -> Verdict {
    let view = state.node.view();
    let Some(config) = view.config.as_ref() else {
        return Verdict::refused(StatusCode::CONFLICT, "no cluster is formed yet");
    };
    match asked {
        TokensOrder::Revoke { node } => {
            let Some(token) = config.tokens.iter().find(|token| token.node.0 == node) else {
                let error = format!("there is no token for node {node}");
                return Verdict::refused(StatusCode::CONFLICT, error);
            };
            match carry_out(state, &ClusterChange::RevokeToken(token.hash)).await {
                Ok(()) => Verdict::done(TokenAnswer::Revoked(TokenRevoked { revoked: node })),
                Err(verdict) => verdict,
            }
        }
        TokensOrder::Create { hash, node, ttl_seconds } => {
            let Some(hash) = hex::decode(&hash) else {
                return Verdict::refused(StatusCode::BAD_REQUEST, "hash: 64 hex digits");
            };
            if !(1..=TTL_MAX_S).contains(&ttl_seconds) {
                return Verdict::refused(StatusCode::BAD_REQUEST, "a token holds up to 30 days");
            }
            let node = NodeId(node.unwrap_or_else(|| unused_id(config)));
            let (now_s, cluster) = (now_s(), config.cluster);
            let expires_s = now_s + ttl_seconds;
            let token = JoinToken { hash, node, expires_s, key: None };
            match carry_out(state, &ClusterChange::AddToken { token, now_s }).await {
                Ok(()) => Verdict::done(TokenAnswer::Created(TokenCreated {
                    node: node.0,
                    expires_at: expires_s,
                    cluster_name: state.cluster_name.to_string(),
                    cluster_id: cluster.to_string(),
                    authorities: state.identity.load().authorities.clone(),
                })),
                Err(verdict) => verdict,
            }
        }
    }
}

/// The lowest number above all that are, were, or are about to be used.
fn unused_id(config: &ClusterEntry) -> u64 {
    let members = config.members.iter().map(|member| member.node);
    let tokens = config.tokens.iter().map(|token| token.node);
    let used = members.chain(tokens).chain(config.removed.iter().copied());
    used.max().map_or(1, |node| node.0 + 1)
}

/// What the primary does for a node that joins. Asked again with the same key it says the same.
pub(super) async fn redeem(state: &AdminState, asked: Redeem) -> Verdict {
    let (Some(hash), Some(key)) = (hex::decode(&asked.hash), hex::decode(&asked.key)) else {
        return Verdict::refused(StatusCode::BAD_REQUEST, "hash and key: 64 hex digits");
    };
    let view = state.node.view();
    let tokens = view.config.iter().flat_map(|config| &config.tokens);
    let known = tokens.filter(|token| token.hash == hash).find(|token| token.key == Some(key));
    let now_s = now_s();
    if known.is_none_or(|token| !token.is_open(now_s)) {
        let change = ClusterChange::RedeemToken { hash, key, now_s };
        if let Err(verdict) = carry_out(state, &change).await {
            return verdict;
        }
    }
    let view = state.node.view();
    let tokens = view.config.iter().flat_map(|config| &config.tokens);
    match tokens.filter(|token| token.hash == hash).find(|token| token.key == Some(key)) {
        Some(token) => Verdict::done(json!({ "node": token.node.0 })),
        // The view is renewed within 50 ms: whoever asks again finds it.
        None => Verdict::refused(StatusCode::SERVICE_UNAVAILABLE, "try again"),
    }
}

/// Makes a change, once other changes are through.
async fn carry_out(state: &AdminState, change: &ClusterChange) -> Result<(), Verdict> {
    let deadline = Instant::now() + ORDER_LIMIT;
    let changed = change_in_turn(state, change.clone(), deadline).await;
    changed.map_err(|error| not_changed(state, &error))?;
    // What is in force is in the view with its next period.
    let published = state.node.published();
    let mut changed = std::pin::pin!(published.view_changed());
    changed.as_mut().enable();
    state.node.quorum().look();
    let _ = tokio::time::timeout(VIEW_LIMIT, changed).await;
    Ok(())
}

fn now_s() -> u64 {
    clock::wall().0 / 1_000
}
