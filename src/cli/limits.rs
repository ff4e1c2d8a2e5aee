//! What a command may use, and where its queries run.

use clap::Args;

use crate::error::Result;
use crate::session::Limits;

/// What a command may use of the machine, or of many.
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Threads to work with, at least 1 [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Memory that queries may take together, such as 4G or 512M [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_limit: Option<usize>,
    /// Run queries on a cluster: df://HOST:PORT of its scheduler, or local[N] for N executors in this process
    #[arg(long, value_name = "URL", env = "LAKESIDE_CLUSTER")]
    cluster: Option<String>,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    security: super::cluster::SecurityArgs,
}

/// Where queries run, as long as a command does.
pub(super) struct Engine {
    pub(super) limits: Limits,
    #[cfg(feature = "cluster")]
    cluster: Option<super::cluster::Engine>,
}

impl LimitArgs {
    /// The threads of this process.
    pub(super) fn threads(&self) -> usize {
        self.local().threads()
    }

    fn local(&self) -> Limits {
        Limits { threads: self.threads.map(usize::from), memory: self.memory_limit, remote: None }
    }

    /// Makes sure that queries can run where they shall.
    #[cfg(feature = "cluster")]
    pub(super) async fn engine(&self) -> Result<Engine> {
        let mut limits = self.local();
        let Some(url) = &self.cluster else {
            return Ok(Engine { limits, cluster: None });
        };
        let cluster = super::cluster::Engine::open(url, &limits, &self.security).await?;
        limits.remote = Some(std::sync::Arc::new(cluster.cluster().clone()));
        Ok(Engine { limits, cluster: Some(cluster) })
    }

    /// Makes sure that queries can run where they shall.
    #[cfg(not(feature = "cluster"))]
    pub(super) async fn engine(&self) -> Result<Engine> {
        match &self.cluster {
            None => Ok(Engine { limits: self.local() }),
            Some(_) => Err(crate::error::Error::Usage(
                "this lakeside was built without clusters; build it with `cargo build --release --features cluster`"
                    .to_owned(),
            )),
        }
    }
}

impl Engine {
    /// Keeps a line that tells how jobs on a cluster are; never done.
    pub(super) async fn watch(&self, _line: Option<indicatif::ProgressBar>) {
        #[cfg(feature = "cluster")]
        if let (Some(cluster), Some(line)) = (&self.cluster, _line) {
            cluster.watch(|text| line.set_message(text)).await;
        }
        std::future::pending().await
    }

    /// Ends what is under way elsewhere; what runs in this process ends with it.
    pub(super) async fn cancel(&self) {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.cluster {
            cluster.cluster().cancel().await;
        }
    }
}

pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let upper = text.trim().to_uppercase();
    let plain = upper.strip_suffix("IB").or(upper.strip_suffix('B')).unwrap_or(&upper);
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| plain.strip_suffix(unit).map(|digits| (digits, *shift)))
        .unwrap_or((plain, 0));
    let bytes = digits.trim().parse::<f64>().ok().map(|number| number * f64::from(1u32 << 10).powi(shift / 10));
    match bytes {
        Some(bytes) if bytes >= 1.0 && bytes < usize::MAX as f64 => Ok(bytes as usize),
        _ => Err(format!("'{text}' is not a size; write a number with K, M, G or T, such as 4G")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert!(parse_bytes("lots").is_err() && parse_bytes("0").is_err() && parse_bytes("-1G").is_err());
    }
}
