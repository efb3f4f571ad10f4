//! The records of a daemon's cache: what is there, and removing some of it.

use super::protocol::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use super::{Daemon, SolveError};

/// The type of a record that is a layer, of an op or an image.
pub const LAYER: &str = "regular";
/// The type of a record that is a directory of a client.
pub const CLIENT_DIRECTORY: &str = "source.local";
/// The type of a record that is a cache mount.
pub const CACHE_MOUNT: &str = "exec.cachemount";

/// One record of a daemon's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// What it is: [`LAYER`], [`CACHE_MOUNT`] and others.
    pub kind: String,
    /// Where it comes from, in the daemon's words.
    pub description: String,
    /// Its bytes on disk; 0 while it is written to.
    pub size: u64,
    /// Whether an op has it now.
    pub in_use: bool,
}

impl Daemon {
    /// Lists the records that one of the filters matches.
    ///
    /// The sizes of these, and of no others, are measured if need be: for a cache mount that means
    /// a walk through all of its files.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn records(&self, filters: Vec<String>) -> Result<Vec<Record>, SolveError> {
        let request = DiskUsageRequest { filter: filters };
        let answer = self.client.clone().disk_usage(request).await;
        let answer = answer.map_err(|status| SolveError::of(&status))?;
        let records = answer.into_inner().record;
        Ok(records.into_iter().map(Record::of).collect())
    }

    /// Removes these records, except those that an op has by now, and gives back what is gone.
    ///
    /// The daemon holds up everybody who wants its cache while it removes: few at a time are a
    /// short while. To drop the future ends it after some of them.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn remove(&self, records: &[Record]) -> Result<Vec<Record>, SolveError> {
        // A daemon before 0.12 (Docker 25) tells of each record that is gone before it goes on, and
        // if its client is gone too it waits for ever, with locks of its cache in its hands: no op
        // begins any more until it is started anew. With one at a time it has told of all there is.
        let at_once = if self.is_since((0, 12), (1, 44)) {
            records.len()
        } else {
            1
        };
        let mut removed = Vec::new();
        // Without a filter everything would go: nothing is asked for no record.
        for some in records.chunks(at_once.max(1)) {
            removed.extend(self.remove_at_once(some).await?);
        }
        Ok(removed)
    }

    async fn remove_at_once(&self, records: &[Record]) -> Result<Vec<Record>, SolveError> {
        let filter = records.iter().map(Record::exactly);
        let request = PruneRequest {
            filter: filter.collect(),
            all: false,
        };
        let answer = self.client.clone().prune(request).await;
        let mut stream = answer
            .map_err(|status| SolveError::of(&status))?
            .into_inner();
        let mut removed = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(record)) => removed.push(Record::of(record)),
                Ok(None) => return Ok(removed),
                Err(status) => return Err(SolveError::of(&status)),
            }
        }
    }
}

impl Record {
    fn of(record: UsageRecord) -> Self {
        Self {
            id: record.id,
            kind: record.record_type,
            description: record.description,
            size: u64::try_from(record.size).unwrap_or(0),
            in_use: record.in_use,
        }
    }

    /// The filter that matches this record and no other.
    fn exactly(&self) -> String {
        format!("id=={},type=={}", self.id, self.kind)
    }
}
