//! A node has its certificate renewed at two thirds of its life, wherever a member holds the
//! authority's key.
//!
//! Its private key stays: so one file is replaced, at once, and there is no moment at which a node that
//! is killed finds two that don't fit. `quorate pki rotate` makes new keys.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use quorate_actors::orders::OrderKind;
use quorate_protocol::types::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use time::OffsetDateTime;

use super::joining::signed;
use super::orders::Verdict;
use super::routes::AdminState;
use crate::failure::Failure;
use crate::moment::moment;
use crate::pki::{self, Present};
use crate::reload::Reloader;

/// From the start to the first look: members have found each other by then.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Between two looks at the clock.
const LOOK_PERIOD: Duration = Duration::from_mins(1);

/// The longest until it is tried again.
const RETRY_MAX: Duration = Duration::from_hours(24);

/// A request for a new certificate, between members only, by the node that it is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Renew {
    /// A certificate signing request in PEM.
    pub(super) request: String,
    /// Names besides the node's own.
    #[serde(default)]
    pub(super) hosts: Vec<String>,
}

/// Signs for the member that asks, if this node holds the authority's key.
pub(super) fn sign(state: &AdminState, from: NodeId, asked: &Renew) -> Verdict {
    let identity = state.identity.load();
    let Some(signer) = identity.signer.as_ref() else {
        return Verdict::refused(StatusCode::NOT_FOUND, "this node has no tls.ca_key");
    };
    let request = pki::Request::parse(&asked.request);
    let signed = request
        .and_then(|request| signer.sign(&request, from.0, &state.cluster_name, &asked.hosts));
    match signed {
        Ok(certificate) => Verdict::done(json!({ "certificate": certificate })),
        Err(error) => Verdict::refused(StatusCode::BAD_REQUEST, error),
    }
}

/// Renews this node's certificate whenever that is due, for as long as the node runs.
pub(crate) async fn keep_certificate(state: AdminState, reloader: Arc<Reloader>) {
    let mut wait = FIRST_LOOK;
    loop {
        tokio::time::sleep(wait).await;
        wait = LOOK_PERIOD;
        let settings = reloader.settings();
        let (node, cluster) = (settings.node.node, &settings.node.cluster.name);
        let tls = &settings.node.tls;
        let Some(present) = Present::parse(&tls.cert_pem, node.0, cluster) else { continue };
        if !present.is_due(OffsetDateTime::now_utc()) {
            continue;
        }
        match renew(&state, &reloader, &tls.key_pem, &present).await {
            Ok(until) => {
                let until = moment(until);
                tracing::info!(until, "the certificate was renewed");
                let fields = Map::from_iter([("valid_until".to_owned(), json!(until))]);
                state.events.changed("certificate", fields);
            }
            Err(failure) => {
                wait = retry_after(present.life());
                tracing::warn!(%failure, again_in = ?wait, "the certificate could not be renewed");
            }
        }
    }
}

/// A hundredth of its life, between a minute and a day.
fn retry_after(life: time::Duration) -> Duration {
    let hundredth = Duration::try_from(life / 100).unwrap_or(RETRY_MAX);
    hundredth.clamp(LOOK_PERIOD, RETRY_MAX)
}

/// Until when the new one holds.
async fn renew(
    state: &AdminState,
    reloader: &Arc<Reloader>,
    key_pem: &[u8],
    present: &Present,
) -> Result<OffsetDateTime, Failure> {
    let failed = |error: pki::PkiError| Failure::Failed(error.to_string());
    let own = state.node.view().node.0;
    let request = pki::renewal_request(key_pem, own, &state.cluster_name).map_err(failed)?;
    let asked = Renew { request, hosts: present.hosts.clone() };
    let body = serde_json::to_vec(&asked).unwrap_or_default();
    let certificate = signed(state, OrderKind::Renew, "this node", body.into()).await;
    let certificate = certificate
        .ok_or_else(|| Failure::Failed("no member that answers holds tls.ca_key".to_owned()))?;
    let renewed = Present::parse(certificate.as_bytes(), own, &state.cluster_name)
        .filter(|renewed| renewed.not_after() > present.not_after())
        .ok_or_else(|| Failure::Failed("what was signed holds no longer".to_owned()))?;
    let reloader = reloader.clone();
    let taken = tokio::task::spawn_blocking(move || reloader.renew_certificate(&certificate)).await;
    taken.map_err(|error| Failure::failed("the certificate", error))??;
    Ok(renewed.not_after())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_again_within_a_day_and_not_before_a_minute() {
        assert_eq!(retry_after(time::Duration::days(365)), RETRY_MAX);
        assert_eq!(retry_after(time::Duration::hours(10)), Duration::from_mins(6));
        assert_eq!(retry_after(time::Duration::minutes(1)), LOOK_PERIOD);
        assert_eq!(retry_after(time::Duration::days(-1)), RETRY_MAX);
    }
}
