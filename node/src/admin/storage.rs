//! What operators ask of this node's storage. Any node does it, for itself.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::storage::state::{CompactError, Compacted};

use super::answers::{CompactReport, Flushed, Relieved};
use super::orders::refused;
use super::routes::{AdminState, blocking, failed};

/// Write the state to disk
///
/// What is applied is on disk when this answers.
#[utoipa::path(
    post, path = "/admin/flush", tag = "node", responses((status = 200, body = Flushed)),
)]
pub(super) async fn flush(State(state): State<AdminState>) -> Response {
    blocking(move || {
        let began = Instant::now();
        match state.node.flush() {
            Ok(seq) => {
                tracing::info!(seq, took = ?began.elapsed(), "state flushed by an operator");
                let seconds = began.elapsed().as_secs_f64();
                Json(Flushed { flushed_seq: seq, seconds }).into_response()
            }
            Err(error) => failed(&error),
        }
    })
    .await
}

/// Rewrite the state's files without what was deleted and overwritten
///
/// Answers when it is done, which may take long.
#[utoipa::path(
    post, path = "/admin/compact", tag = "node", responses((status = 200, body = CompactReport)),
)]
pub(super) async fn compact(State(state): State<AdminState>) -> Response {
    blocking(move || match state.node.compact() {
        Ok(Compacted { before_bytes, after_bytes, took }) => {
            tracing::info!(before_bytes, after_bytes, ?took, "state compacted by an operator");
            let seconds = took.as_secs_f64();
            Json(CompactReport { before_bytes, after_bytes, seconds }).into_response()
        }
        Err(error @ CompactError::UnderWay) => refused(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ (CompactError::State(_) | CompactError::Background(_))) => {
            tracing::error!(%error, "the state could not be compacted");
            failed(&error.to_string())
        }
    })
    .await
}

/// Give memory back
///
/// Drops caches and flushes memtables.
#[utoipa::path(
    post, path = "/admin/relieve", tag = "node", responses((status = 200, body = Relieved)),
)]
pub(super) async fn relieve(State(state): State<AdminState>) -> Response {
    blocking(move || {
        let began = Instant::now();
        let freed = state.node.relieve();
        tracing::info!(%freed, took = ?began.elapsed(), "memory relieved by an operator");
        let relieved = Relieved {
            freed_bytes: freed.total(),
            memtable_bytes: freed.memtables,
            block_cache_bytes: freed.block_cache,
            log_cache_bytes: freed.log_cache,
            seconds: began.elapsed().as_secs_f64(),
        };
        Json(relieved).into_response()
    })
    .await
}
