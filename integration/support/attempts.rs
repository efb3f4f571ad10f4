//! What a store has on record of builds and effects.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

/// All attempts that a store (its `nix`) has on record, by id: the beginning of each, with its `end`,
/// and whether its file `is_locked`. The last line of a file may have been cut off.
pub(crate) fn attempts(nix: &Path) -> BTreeMap<String, Value> {
    let mut attempts = BTreeMap::new();
    let Ok(entries) = fs_err::read_dir(nix.join("pontoon/attempts")) else {
        return attempts;
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| {
        path.extension()
            .is_some_and(|e| e == "json" || e == "jsonl")
    }) {
        let file = fs_err::File::open(&path).unwrap();
        let is_locked = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
        let mut last = None;
        for line in fs_err::read_to_string(&path).unwrap().lines() {
            let Ok(mut line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            if line.get("version").is_some() {
                let id = line["id"].as_str().unwrap().to_owned();
                line["end"] = Value::Null;
                line["is_locked"] = is_locked.into();
                attempts.insert(id.clone(), line);
                last = Some(id);
            } else if line.get("outcome").is_some() {
                // A build's end says whose it is, an effect has a file of its own.
                let id = line["id"].as_str().map(str::to_owned);
                let id = id.or_else(|| last.clone());
                if let Some(attempt) = id.and_then(|id| attempts.get_mut(&id)) {
                    attempt["end"] = line;
                }
            }
        }
    }
    attempts
}
