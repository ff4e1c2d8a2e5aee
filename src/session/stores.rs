//! Object stores by URL, made when they are first asked for, from the usual environment variables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

/// The stores of a session, one per scheme and bucket.
///
/// | URL | store | configured by |
/// | --- | --- | --- |
/// | a path, `file://` | local disk | |
/// | `s3://bucket/..` | Amazon S3 and compatible | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`, .. |
/// | `gs://bucket/..` | Google Cloud Storage | `GOOGLE_SERVICE_ACCOUNT`, .. |
/// | `az://container/..`, `abfss://..` | Azure Blob Storage | `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, .. |
#[derive(Debug, Default)]
pub struct Stores {
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.authority())
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner).insert(key(url), store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&key(url)) {
            return Ok(Arc::clone(store));
        }
        let store = open(url)?;
        stores.insert(key(url), Arc::clone(&store));
        Ok(store)
    }
}

/// Fails within half a minute where nobody answers, instead of object_store's three.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 10, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

fn open(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let problem =
        |e: object_store::Error| DataFusionError::Configuration(format!("{} cannot be opened: {e}", key(url)));
    Ok(match url.scheme() {
        "file" => Arc::new(LocalFileSystem::new()),
        "s3" | "s3a" => {
            let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry());
            let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
                .iter()
                .find_map(|name| std::env::var(name).ok());
            if let Some(endpoint) = endpoint {
                builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
            }
            Arc::new(builder.build().map_err(problem)?)
        }
        "gs" | "gcs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retry())
                .build()
                .map_err(problem)?,
        ),
        "az" | "azure" | "adl" | "abfs" | "abfss" => Arc::new(
            MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry()).build().map_err(problem)?,
        ),
        scheme => {
            return plan_err!(
                "'{url}' has the scheme '{scheme}'; known are paths, file://, s3://, gs://, az:// and abfss://"
            );
        }
    })
}
