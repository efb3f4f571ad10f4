//! What a daemon says of itself: its worker, the devices it knows, the rules of its collector.

use std::collections::BTreeMap;
use std::time::Duration;

use super::protocol::moby::buildkit::v1::{GcPolicy, ListWorkersRequest, WorkerRecord};
use super::{Daemon, SolveError};

/// What the keys of a worker's own labels begin with.
const LABEL: &str = "org.mobyproject.buildkit.worker.";

/// The part of a daemon that runs ops. Daemons have one, or use the first of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its labels, without the prefix they have in common.
    pub labels: BTreeMap<String, String>,
    /// What it runs by itself, as `os/architecture`; the first is its own.
    pub platforms: Vec<String>,
    /// Its version; daemons before 0.11 do not tell.
    pub version: Option<String>,
    /// The devices an op may ask for. Daemons before 0.20 know none.
    pub devices: Vec<CdiDevice>,
    /// When it collects; none if it never does.
    pub rules: Vec<Rule>,
}

/// A device that a daemon has found in its CDI directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiDevice {
    /// As ops name it: `vendor/class=name`.
    pub name: String,
    /// Whether every op may have it.
    pub access: CdiAccess,
}

/// Who may have a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CdiAccess {
    /// Every op.
    Everyone,
    /// Ops with the entitlement `device`, where the daemon grants it.
    Entitled,
}

/// One rule of a daemon's collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A record may go if one of these matches it, or if there is none.
    pub filters: Vec<String>,
    /// What was used within this time stays.
    pub keep: Duration,
    /// Bytes of the cache that always stay.
    pub reserved: i64,
    /// Bytes above which it collects.
    pub most_used: i64,
    /// Bytes of the disk below which it collects.
    pub least_free: i64,
}

impl Daemon {
    /// Asks for the worker that runs ops.
    ///
    /// # Errors
    ///
    /// [`SolveError`]: the daemon's refusal, or that it has none.
    pub async fn worker(&self) -> Result<Worker, SolveError> {
        let request = ListWorkersRequest { filter: Vec::new() };
        let answer = self.client.clone().list_workers(request).await;
        let answer = answer.map_err(|status| SolveError::of(&status))?;
        let first = answer.into_inner().record.into_iter().next();
        let none = || SolveError::of(&tonic::Status::unknown("the daemon has no worker"));
        first.map(Worker::of).ok_or_else(none)
    }
}

impl Worker {
    fn of(record: WorkerRecord) -> Self {
        let labels = record.labels.into_iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(LABEL)?.to_owned();
            Some((key, value))
        });
        let platforms = record.platforms.into_iter();
        let devices = record.cdi_devices.into_iter().map(|device| CdiDevice {
            name: device.name,
            access: if device.auto_allow {
                CdiAccess::Everyone
            } else {
                CdiAccess::Entitled
            },
        });
        Self {
            labels: labels.collect(),
            platforms: platforms
                .map(|platform| format!("{}/{}", platform.os, platform.architecture))
                .collect(),
            version: record.buildkit_version.map(|version| version.version),
            devices: devices.collect(),
            rules: record.gc_policy.into_iter().map(Rule::of).collect(),
        }
    }

    /// Returns who may have a device; none if the daemon does not know it.
    pub fn device(&self, name: &str) -> Option<CdiAccess> {
        let found = self.devices.iter().find(|device| device.name == name);
        found.map(|device| device.access)
    }
}

impl Rule {
    fn of(policy: GcPolicy) -> Self {
        Self {
            filters: policy.filters,
            keep: Duration::from_nanos(policy.keep_duration.try_into().unwrap_or(0)),
            reserved: policy.reserved_space,
            most_used: policy.max_used_space,
            least_free: policy.min_free_space,
        }
    }
}
