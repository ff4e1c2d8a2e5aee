//! A real S3 server on loopback.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;

use crate::support::{Ran, lakeside};

const KEY: &str = "test-key";
pub const SECRET: &str = "test-secret";

/// An S3 server over a temporary folder, in which a bucket is a folder and an object a file.
pub struct S3 {
    pub folder: TempDir,
    address: SocketAddr,
    refuses: Arc<AtomicBool>,
    /// In milliseconds.
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "only clusters are tested with slow stores"))]
    delay: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

impl S3 {
    pub fn start(buckets: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        buckets.iter().for_each(|bucket| std::fs::create_dir(folder.path().join(bucket)).unwrap());
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let refuses = Arc::new(AtomicBool::new(false));
        let delay = Arc::new(AtomicU64::new(0));
        let (refusing, delaying) = (Arc::clone(&refuses), Arc::clone(&delay));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, refuses, delay) = (service.clone(), Arc::clone(&refusing), Arc::clone(&delaying));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (service, refuses) = (service.clone(), refuses.load(Ordering::Relaxed));
                    let delay = Duration::from_millis(delay.load(Ordering::Relaxed));
                    async move {
                        if !delay.is_zero() {
                            tokio::time::sleep(delay).await;
                        }
                        match refuses {
                            true => Ok(Response::builder().status(503).body(s3s::Body::empty()).unwrap()),
                            false => Service::call(&service, request).await,
                        }
                    }
                });
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    // A client that hangs up is its own business.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { folder, address, refuses, delay, _runtime: runtime }
    }

    /// Whether every request is answered by 503 from now on.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// How long every answer takes from now on.
    #[cfg(feature = "cluster")]
    pub fn delay(&self, delay: Duration) {
        self.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// A command that knows where the server is.
    pub fn lakeside(&self, args: &[&str]) -> Command {
        let mut command = lakeside(args);
        command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address));
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.lakeside(args).output().unwrap().into()
    }
}

/// All rows of a table, sorted, as JSON.
pub fn rows(ran: Ran) -> Vec<String> {
    let mut rows: Vec<String> = ran.ok().stdout.lines().map(str::to_owned).collect();
    rows.sort();
    rows
}
