//! A store in which files that were written do not appear before all of them are whole.

use std::fmt;
use std::future::ready;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use url::Url;

/// Files that are published at once.
const AT_ONCE: usize = 16;

/// Files that are written, which wait to appear.
#[derive(Debug, Default)]
pub struct Held(Mutex<Vec<File>>);

#[derive(Debug)]
enum File {
    Small(Arc<dyn ObjectStore>, Path, PutPayload, PutOptions),
    Large(Upload),
}

/// A file that comes in parts; gone once it was published or discarded, whoever still writes to it.
type Upload = Arc<Mutex<Option<Parts>>>;

#[derive(Debug)]
struct Parts {
    upload: Box<dyn MultipartUpload>,
    whole: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Lets all appear; one that cannot is told after all others.
    pub async fn publish(&self) -> Result<()> {
        let files = std::mem::take(&mut *lock(&self.0));
        let published = stream::iter(files).map(File::publish).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        published.into_iter().collect()
    }

    /// Lets none appear, not even those that somebody still writes to.
    pub async fn discard(&self) {
        let files = std::mem::take(&mut *lock(&self.0));
        stream::iter(files).for_each_concurrent(AT_ONCE, File::discard).await;
    }
}

/// Lets none appear when it is dropped, as that of a query that is stopped is.
#[derive(Debug)]
pub struct OrNone(pub Arc<Held>);

impl Drop for OrNone {
    fn drop(&mut self) {
        let files = std::mem::take(&mut *lock(&self.0.0));
        let uploads: Vec<Parts> = files.into_iter().filter_map(File::into_parts).collect();
        if !uploads.is_empty() {
            // An upload to local disk takes its file back when it is dropped: at once if no runtime is there to do it later,
            // which would be too late where the process ends.
            let _ = std::thread::spawn(|| drop(uploads)).join();
        }
    }
}

impl File {
    async fn publish(self) -> Result<()> {
        match self {
            Self::Small(store, path, payload, options) => store.put_opts(&path, payload, options).await.map(|_| ()),
            Self::Large(upload) => {
                let Some(Parts { mut upload, whole }) = take(&upload) else {
                    return Ok(());
                };
                let published = if whole { upload.complete().await.map(|_| ()) } else { Ok(()) };
                if !whole || published.is_err() {
                    abort(upload).await;
                }
                published
            }
        }
    }

    async fn discard(self) {
        if let Some(parts) = self.into_parts() {
            abort(parts.upload).await;
        }
    }

    fn into_parts(self) -> Option<Parts> {
        match self {
            Self::Small(..) => None,
            Self::Large(upload) => take(&upload),
        }
    }
}

fn take(upload: &Upload) -> Option<Parts> {
    lock(upload).take()
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    // What cannot be taken back is litter; why it is to be tells what to do.
    let _ = upload.abort().await;
}

/// The stores of a session, as [`HeldStore`]s.
#[derive(Debug)]
pub struct HeldStores {
    /// Those of the session.
    pub stores: Arc<dyn ObjectStoreRegistry>,
    /// Where files wait.
    pub held: Arc<Held>,
}

impl ObjectStoreRegistry for HeldStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(HeldStore { store: self.stores.get_store(url)?, held: Arc::clone(&self.held) }))
    }
}

/// What is known of a file that waits.
const HELD: PutResult = PutResult { e_tag: None, version: None };

/// Another store, but files that are written wait.
#[derive(Debug)]
struct HeldStore {
    store: Arc<dyn ObjectStore>,
    held: Arc<Held>,
}

impl fmt::Display for HeldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for HeldStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        lock(&self.held.0).push(File::Small(Arc::clone(&self.store), location.clone(), payload, options));
        Ok(HELD)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.store.put_multipart_opts(location, options).await?;
        let upload = Arc::new(Mutex::new(Some(Parts { upload, whole: false })));
        lock(&self.held.0).push(File::Large(Arc::clone(&upload)));
        Ok(Box::new(HeldUpload(upload)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await
    }
}

/// Writes to a file that comes in parts.
#[derive(Debug)]
struct HeldUpload(Upload);

impl HeldUpload {
    fn parts<T>(&self, work: impl FnOnce(&mut Parts) -> T) -> Result<T> {
        let ended = || object_store::Error::Generic { store: "held", source: "the file was given up".into() };
        lock(&self.0).as_mut().map(work).ok_or_else(ended)
    }
}

#[async_trait]
impl MultipartUpload for HeldUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.parts(|parts| parts.upload.put_part(part)).unwrap_or_else(|error| Box::pin(ready(Err(error))))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.parts(|parts| parts.whole = true)?;
        Ok(HELD)
    }

    async fn abort(&mut self) -> Result<()> {
        match take(&self.0) {
            Some(mut parts) => parts.upload.abort().await,
            None => Ok(()),
        }
    }
}
