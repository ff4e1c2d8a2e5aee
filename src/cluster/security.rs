//! Who may talk to whom: every connection of a cluster says which build it comes from and which token it has, and may be
//! encrypted, with certificates on both sides.
//!
//! Client, scheduler and executors connect to each other through Ballista's endpoints, whose requests can carry no headers
//! but the user agent; so that is where it stands: `lakeside/<version>+<vocabulary> <token>`.

use std::hash::Hasher;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, USER_AGENT};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ballista_core::extension::EndpointOverrideFn;
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use twox_hash::XxHash64;

use crate::error::{Error, Result};
use crate::{functions, operators};

/// The version of this build, and a number that changes with the functions, operators and arguments that it knows.
static BUILD: LazyLock<String> = LazyLock::new(|| {
    let functions = functions::documentation();
    let operators = operators::ALL.map(|operator| (operator.name().to_owned(), operator.documentation()));
    let mut hasher = XxHash64::with_seed(0);
    for (name, documentation) in functions.into_iter().chain(operators) {
        hasher.write(name.as_bytes());
        hasher.write(documentation.syntax_example.as_bytes());
        for (argument, _) in documentation.arguments.into_iter().flatten() {
            hasher.write(argument.as_bytes());
        }
    }
    format!("{}+{:08x}", env!("CARGO_PKG_VERSION"), hasher.finish() as u32)
});

/// What makes connections of a cluster safe. Without any of it, every process that reaches a port may use it.
#[derive(Clone, Default)]
pub struct Security {
    /// What all members and clients know and nobody else.
    pub token: Option<String>,
    /// Certificates.
    pub tls: Option<Tls>,
}

/// Certificates in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Of the authority that has signed the certificates of all members and clients.
    pub authority: Vec<u8>,
    /// Of this process, and its private key.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token: {}, tls: {}", self.token.is_some(), self.tls.is_some())
    }
}

impl Tls {
    /// Reads the three files.
    pub fn read(authority: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        let read = |path: &Path| std::fs::read(path).map_err(|e| Error::Usage(format!("{}: {e}", path.display())));
        Ok(Self { authority: read(authority)?, certificate: read(certificate)?, key: read(key)? })
    }

    /// What a server needs: only clients with a certificate of the authority are let in.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .client_ca_root(Certificate::from_pem(&self.authority))
    }

    fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .ca_certificate(Certificate::from_pem(&self.authority))
    }
}

impl Security {
    /// What Ballista puts every outgoing connection through.
    pub fn endpoints(&self) -> EndpointOverrideFn {
        let this = self.clone();
        Arc::new(move |endpoint| this.endpoint(endpoint).map_err(Into::into))
    }

    /// The same endpoint, with our name and token, encrypted where there are certificates.
    pub fn endpoint(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        let mut endpoint = endpoint;
        if let Some(tls) = &self.tls {
            // An endpoint is encrypted only if its URI says so, and Ballista's never does; its timeouts are said again.
            let plain = endpoint.uri().to_string();
            let uri = plain.strip_prefix("http://").map_or(plain.clone(), |rest| format!("https://{rest}"));
            endpoint = Endpoint::from_shared(uri)?
                .connect_timeout(std::time::Duration::from_secs(20))
                .tcp_nodelay(true)
                .http2_keep_alive_interval(std::time::Duration::from_secs(20))
                .keep_alive_while_idle(true)
                .tls_config(tls.client())?;
        }
        endpoint.user_agent(self.user_agent())
    }

    /// How this process introduces itself.
    pub fn user_agent(&self) -> String {
        format!("lakeside/{} {}", *BUILD, self.token.as_deref().unwrap_or("-"))
    }

    /// Lets a request through or answers it with the reason why not.
    pub async fn guard(self: Arc<Self>, request: Request, next: Next) -> Response {
        let grpc =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        match self.check(request.headers(), grpc) {
            Ok(()) => next.run(request).await,
            Err(refused) if grpc => refused.into_http(),
            Err(refused) => (StatusCode::UNAUTHORIZED, refused.message().to_owned()).into_response(),
        }
    }

    /// The same for servers that are all gRPC.
    pub fn check(&self, headers: &HeaderMap, must_be_ours: bool) -> Result<(), Status> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut words = text(USER_AGENT).split(' ');
        let (agent, token) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let bearer = text(AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
        if let Some(expected) = &self.token
            && ![token, bearer].iter().any(|given| same(given, expected))
        {
            return Err(Status::unauthenticated(
                "this cluster wants a token, and the one given is missing or wrong: set LAKESIDE_CLUSTER_TOKEN",
            ));
        }
        let build = agent.strip_prefix("lakeside/");
        match build {
            Some(build) if build == *BUILD => Ok(()),
            Some(build) => Err(Status::failed_precondition(format!(
                "lakeside {build} cannot work with lakeside {} here: client, scheduler and executors must be of one build",
                *BUILD
            ))),
            None if must_be_ours => Err(Status::failed_precondition("only lakeside may use this port")),
            None => Ok(()),
        }
    }
}

/// Whether two secrets are the same; takes as long wherever they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
