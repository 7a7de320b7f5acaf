//! `/metrics`, `/healthz` and `/readyz`, without encryption or login: they listen on loopback unless told otherwise.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::metrics;
use super::readiness::Readiness;

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Shared {
    registry: Registry,
    readiness: Readiness,
}

/// Serves until `stop` completes.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .with_state(Arc::new(Shared { registry, readiness }));
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
}

async fn show_metrics(State(shared): State<Arc<Shared>>) -> Response {
    match metrics::render(&shared.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The process lives and answers; nothing else. A restart would not mend what `/readyz` reports.
async fn show_health() -> &'static str {
    "ok\n"
}

async fn show_readiness(State(shared): State<Arc<Shared>>) -> Response {
    let unready = shared.readiness.unready().await;
    let status = if unready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": unready.is_empty(), "unready": unready });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::{oneshot, watch};

    use super::*;

    async fn get(listener: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(listener).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_parts_and_health_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (link, state) = watch::channel("connecting");
        let readiness =
            Readiness::default().state("component", state, |state| (*state != "up").then(|| state.to_string()));
        let (stop, stopped) = oneshot::channel::<()>();
        let registry = metrics::registry().unwrap();
        let server = tokio::spawn(serve(listener, registry, readiness, async { stopped.await.unwrap_or(()) }));

        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
        assert!(
            answer.ends_with("{\"ready\":false,\"unready\":[{\"part\":\"component\",\"reason\":\"connecting\"}]}\n"),
            "{answer}"
        );
        link.send("up").unwrap();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.0 200"));
        drop(link);
        assert!(get(address, "/readyz").await.contains("has ended"));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.0 200"));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains(concat!("multiend_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
        assert!(metrics.contains("process_resident_memory_bytes"));

        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap().unwrap();
    }
}
