//! What the records of attempts say to a conductor that was not there when they ended.

use crate::agent::{Agent, now};
use crate::store::attempts::{self, Kind, Record, Seen, Standing, Verdict};
use crate::tunnel::{AttemptFacts, AttemptStanding, MachineError};

impl Agent {
    /// Tells how attempts of a run stand; one without a record is left out.
    pub(super) fn attempts(
        &self,
        run: &str,
        ids: &[String],
    ) -> Result<Vec<AttemptFacts>, MachineError> {
        let dir = self.store.dir();
        let mut records = Vec::new();
        for id in ids {
            let record = attempts::read(dir, id).map_err(|error| MachineError::of(&error))?;
            records.extend(record);
        }
        Ok(self.told(run, records))
    }

    /// Tells of attempts of a pipeline's effects, by other runs, whose outcome nobody knows or was
    /// told of. An effect may have another name by now. Older records do not say which pipeline they
    /// are of: then the name counts.
    pub(super) fn unsettled(
        &self,
        run: &str,
        pipeline: &str,
        effects: &[String],
    ) -> Result<Vec<AttemptFacts>, MachineError> {
        let records = attempts::effects(self.store.dir());
        let records = records.map_err(|error| MachineError::of(&error))?;
        let is_meant = |record: &Record| {
            let attempt = &record.attempt;
            let is_its_own = match &attempt.pipeline {
                Some(one) => one == pipeline,
                None => effects.contains(&attempt.node),
            };
            attempt.run != run && is_its_own
        };
        let records = records.into_iter();
        let records = records.filter(|record| is_meant(record) && record.is_unsettled());
        Ok(self.told(run, records.collect()))
    }

    /// Notes of effects nobody knows the outcome of that this run tells of it.
    fn told(&self, run: &str, records: Vec<Record>) -> Vec<AttemptFacts> {
        for record in &records {
            if record.attempt.kind == Kind::Effect && record.is_unsettled() {
                let seen = Seen {
                    seen_by: run.to_owned(),
                    seen: now(),
                };
                // What could not be noted is told again: better than not at all.
                let _ = attempts::mark_seen(self.store.dir(), &record.attempt.id, &seen);
            }
        }
        records.into_iter().map(facts).collect()
    }
}

fn facts(record: Record) -> AttemptFacts {
    let standing = match record.standing {
        Standing::Running => AttemptStanding::Running,
        Standing::Unknown => AttemptStanding::Unknown {
            detail: "its agent died".to_owned(),
        },
        Standing::Ended(end) => match end.verdict {
            Verdict::Good => AttemptStanding::Good,
            Verdict::NotStarted => AttemptStanding::NotStarted,
            Verdict::Killed => AttemptStanding::Unknown {
                detail: end.outcome,
            },
            Verdict::Bad | Verdict::Cancelled => AttemptStanding::Bad {
                outcome: end.outcome,
                exit: end.exit,
            },
        },
    };
    AttemptFacts {
        id: record.attempt.id,
        node: record.attempt.node,
        run: record.attempt.run,
        started: record.attempt.started,
        standing,
    }
}
