//! An op that ended without a word: started again, settled by its record, or failed.

use std::time::Instant;

use crate::engine::{OpEnd, tells_of_lost_store};
use crate::event::Outcome;
use crate::run::Error;
use crate::run::conduct::Conductor;
use crate::run::course::{EffectState, Job};
use crate::run::outcome::machine;
use crate::run::session::describe;

impl Conductor<'_, '_, '_> {
    /// Decides what becomes of a job whose op has ended, and nobody said what came of it.
    pub(super) fn ended_silently(&mut self, end: &OpEnd) {
        let nonce = end.nonce.as_str();
        let Some(worker) = self.workers.get(nonce) else {
            return;
        };
        let Some(job) = worker.job else { return };
        if tells_of_lost_store(&end.how) {
            return self.lose_store(nonce, describe(end));
        }
        let reason = format!("the op ended before its job did: {}", describe(end));
        match job {
            Job::Effect(_) if worker.given => self.settle_by_record(nonce, &reason),
            _ if self.course.is_stopping() => self.finish(nonce, Outcome::Cancelled),
            job => self.start_again_or_fail(nonce, &job, &reason),
        }
    }

    /// A worker found that the store is not the one that was probed.
    pub(super) fn lose_store(&mut self, nonce: &str, reason: String) {
        self.set_adrift(nonce);
        self.lost = Some(Error::StoreLost { reason });
    }

    fn start_again_or_fail(&mut self, nonce: &str, job: &Job, reason: &str) {
        if !self.course.may_retry(job) {
            let outcome = self.failed(nonce, machine(reason));
            return self.finish(nonce, outcome);
        }
        self.flush_log(nonce);
        self.release(nonce);
        self.course.again(job, reason);
        match job {
            Job::Build(node) => {
                self.course.schedule.put_back(*node, Instant::now());
            }
            Job::Effect(index) => self.course.effects[*index] = EffectState::Waiting,
        }
    }

    /// Asks the store what came of an effect whose agent died or is not to be believed.
    pub(super) fn settle_by_record(&mut self, nonce: &str, reason: &str) {
        let Some(adrift) = self.adrift(nonce) else {
            return;
        };
        let standings = match self
            .session
            .standings(std::slice::from_ref(&adrift.attempt))
        {
            Ok(standings) => standings,
            Err(error) => {
                // The next session asks.
                self.set_adrift(nonce);
                self.lost = Some(error);
                return;
            }
        };
        match adrift.outcome(standings.get(&adrift.attempt)) {
            Some(Outcome::Unknown { detail }) => {
                let detail = format!("{reason}; {detail}");
                self.finish(nonce, Outcome::Unknown { detail });
            }
            Some(outcome) => self.finish(nonce, outcome),
            None => self.start_again_or_fail(nonce, &adrift.job, reason),
        }
    }
}
