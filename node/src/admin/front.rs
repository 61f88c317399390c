//! The admin port from the process's beginning to its end: first the answers of a node that starts,
//! then those of the running one.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

/// How long the last answers may take to leave.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// An admin port that is served.
pub(crate) struct Front {
    running: Arc<OnceLock<Router>>,
    close: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

#[derive(Clone)]
struct Routers {
    starting: Router,
    running: Arc<OnceLock<Router>>,
}

impl Front {
    /// Answers from now on by way of `starting`.
    pub(crate) fn serve(listener: TcpListener, starting: Router) -> Self {
        let running = Arc::new(OnceLock::new());
        let routers = Routers { starting, running: running.clone() };
        let service = Router::new()
            .fallback(dispatch)
            .with_state(routers)
            .into_make_service_with_connect_info::<SocketAddr>();
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(async move {
            axum::serve(listener, service)
                .with_graceful_shutdown(async move {
                    let _ = closed.await;
                })
                .await
        });
        Self { running, close, task }
    }

    /// The node runs: it answers by itself.
    pub(crate) fn open(&self, router: Router) {
        let _ = self.running.set(router);
    }

    /// Lets answers that are under way leave, and ends.
    pub(crate) async fn close(self) {
        let abort = self.task.abort_handle();
        // Fails only when the task has ended.
        let _ = self.close.send(());
        if tokio::time::timeout(CLOSE_LIMIT, self.task).await.is_err() {
            abort.abort();
        }
    }
}

async fn dispatch(State(routers): State<Routers>, request: Request) -> Response {
    let router = routers.running.get().unwrap_or(&routers.starting).clone();
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
