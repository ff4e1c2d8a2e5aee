//! The port of an executor at which others fetch what its tasks have shuffled.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_executor::flight_service::BallistaFlightService;
use datafusion::common::Result;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::scheduler::failed;
use super::security::Security;
use super::session::MESSAGE_BYTES;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, service: BallistaFlightService, security: &Security) -> Result<()> {
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let guard = Arc::new(security.clone());
    let routes = Routes::new(service)
        .into_axum_router()
        .layer(axum::middleware::from_fn(move |request, next| Arc::clone(&guard).guard(request, next)));
    let mut server = Server::builder();
    if let Some(tls) = &security.tls {
        server = server.tls_config(tls.server()).map_err(failed)?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.add_routes(Routes::from(routes)).serve_with_incoming(incoming).await.map_err(failed)
}
