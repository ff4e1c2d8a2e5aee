//! A whole cluster in this process: a scheduler and executors that talk over loopback. For trying things out and for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::common::{DataFusionError, Result, exec_err};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::client::Cluster;
use super::security::Security;
use super::{executor, scheduler};

/// A running cluster; dropping it ends it.
pub struct LocalCluster {
    cluster: Cluster,
    /// Its own, so that all of it ends when this is dropped.
    runtime: Option<Runtime>,
    /// What executors have shuffled.
    work_dir: PathBuf,
}

const START_WITHIN: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl LocalCluster {
    /// Starts a scheduler and `executors` executors of `slots` slots each, which share `memory`.
    pub async fn start(executors: usize, slots: usize, memory: Option<usize>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        // Loopback ports are open to every process of the machine.
        let security = Security { token: Some(uuid::Uuid::new_v4().to_string()), tls: None };
        let listener = TcpListener::bind(LOOPBACK).await?;
        let address = listener.local_addr()?.to_string();
        let listener = listener.into_std()?;
        let settings = scheduler::Settings::new("127.0.0.1".to_owned(), security.clone());
        let slots_there = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&slots_there);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).map_err(DataFusionError::from)?;
            scheduler::serve(listener, settings, count, std::future::pending()).await
        });
        let work_dir = std::env::temp_dir().join(format!("lakeside-cluster-{}", uuid::Uuid::new_v4()));
        for _ in 0..executors {
            let settings = executor::Settings {
                scheduler: address.clone(),
                connect_timeout: Duration::from_secs(10),
                bind: LOOPBACK,
                external_host: "127.0.0.1".to_owned(),
                slots,
                memory: memory.map(|bytes| bytes / executors.max(1)),
                work_dir: work_dir.clone(),
                security: security.clone(),
            };
            runtime.spawn(executor::serve(settings, std::future::pending()));
        }
        let this = Self { cluster: Cluster::new(address, security), runtime: Some(runtime), work_dir };
        // Queries are planned for the executors that are there.
        let all = executors * slots;
        let begun = Instant::now();
        while slots_there.load(Ordering::Relaxed) < all {
            if begun.elapsed() > START_WITHIN {
                return exec_err!("a cluster of {executors} executors did not start in {} s", START_WITHIN.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(this)
    }

    /// As sessions see it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_dir_all(&self.work_dir);
    }
}
