//! What operators ask of this node's storage. Any node does it, for itself.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::storage::state::{CompactError, Compacted};
use serde_json::json;

use super::routes::{AdminState, blocking, failed};

/// `POST /admin/flush`: what is applied is on disk when this answers.
pub(super) async fn flush(State(state): State<AdminState>) -> Response {
    blocking(move || {
        let began = Instant::now();
        match state.node.flush() {
            Ok(seq) => {
                tracing::info!(seq, took = ?began.elapsed(), "state flushed by an operator");
                Json(json!({ "flushed_seq": seq, "seconds": began.elapsed().as_secs_f64() }))
                    .into_response()
            }
            Err(error) => failed(&error),
        }
    })
    .await
}

/// `POST /admin/compact`: answers when it is done, which may take long.
pub(super) async fn compact(State(state): State<AdminState>) -> Response {
    blocking(move || match state.node.compact() {
        Ok(Compacted { before_bytes, after_bytes, took }) => {
            tracing::info!(before_bytes, after_bytes, ?took, "state compacted by an operator");
            let body = json!({
                "before_bytes": before_bytes,
                "after_bytes": after_bytes,
                "seconds": took.as_secs_f64(),
            });
            Json(body).into_response()
        }
        Err(error @ CompactError::UnderWay) => {
            (StatusCode::CONFLICT, Json(json!({ "error": error.to_string() }))).into_response()
        }
        Err(error @ (CompactError::State(_) | CompactError::Background(_))) => {
            tracing::error!(%error, "the state could not be compacted");
            failed(&error.to_string())
        }
    })
    .await
}

/// `POST /admin/relieve`: drops caches and flushes memtables.
pub(super) async fn relieve(State(state): State<AdminState>) -> Response {
    blocking(move || {
        let began = Instant::now();
        let freed = state.node.relieve();
        tracing::info!(%freed, took = ?began.elapsed(), "memory relieved by an operator");
        let body = json!({
            "freed_bytes": freed.total(),
            "memtable_bytes": freed.memtables,
            "block_cache_bytes": freed.block_cache,
            "log_cache_bytes": freed.log_cache,
            "seconds": began.elapsed().as_secs_f64(),
        });
        Json(body).into_response()
    })
    .await
}
