//! Who may ask what. The port has no users yet, so its trust is in where a caller is: on this
//! machine everything is allowed, from elsewhere health, and metrics where they are public.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::orders::refused;
use super::routes::AdminState;

/// Refuses what the caller may not ask, and records it where that was an act.
pub(super) async fn guard(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let checked =
        if is_open(path, state.public_metrics) { Ok(()) } else { authorise(caller, &request) };
    let Err((code, reason)) = checked else { return next.run(request).await };
    if request.method() == Method::POST {
        state.events.refused("any", caller.to_string(), reason);
    }
    refused(code, reason)
}

fn authorise(caller: SocketAddr, request: &Request) -> Result<(), (StatusCode, &'static str)> {
    if !caller.ip().to_canonical().is_loopback() {
        return Err((StatusCode::FORBIDDEN, "only callers on this machine may ask this"));
    }
    // A web page in a browser on this machine is not the operator: its name was resolved to
    // loopback to get here, or it can't set the content type.
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_literal) {
        let reason = "the Host header must be an IP address or localhost";
        return Err((StatusCode::FORBIDDEN, reason));
    }
    let json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if request.method() == Method::POST && !json {
        let reason = "POST needs Content-Type: application/json";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    Ok(())
}

fn is_open(path: &str, public_metrics: bool) -> bool {
    path.starts_with("/health/") || (public_metrics && path == "/metrics")
}

fn is_literal(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    without_port == "localhost" || without_port.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_known_hosts() {
        for host in ["127.0.0.1:7421", "localhost", "localhost:1", "[::1]:7421", "10.0.0.1"] {
            assert!(is_literal(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7421", "", "127.0.0.1.evil.example"] {
            assert!(!is_literal(host), "{host}");
        }
    }
}
