//! A daemon that runs only so many ops at a time (`max-parallelism` of a `buildkitd`).
//!
//! The op that has the store takes one place for the whole run. In strong so does each agent that
//! waits for a build; if what is to be built next needs another op, both might wait for ever. So
//! where an op does not begin, agents that have nothing to do give up their places. If it still
//! does not, that is told: nothing else can be done about it from here.

use std::time::Duration;

use crate::event::Event;
use crate::run::conduct::{Conductor, Worker};
use crate::run::course::Job;
use crate::tunnel::ToAgent;

/// How long an op may take to begin before others make room for it.
const SOON: Duration = Duration::from_secs(1);
/// How long a build's op may take to begin before that is told.
const LATE: Duration = Duration::from_secs(10);

impl Conductor<'_, '_, '_> {
    /// Makes room for ops that do not begin.
    pub(super) fn make_room(&mut self) {
        let waits = |worker: &&Worker| worker.speaker.is_none() && worker.job.is_some();
        let late = |worker: &Worker, limit| worker.called.elapsed() >= limit;
        let waiting: Vec<&Worker> = self.workers.values().filter(waits).collect();
        let is_build = |worker: &Worker| matches!(worker.job, Some(Job::Build(_)));
        let none_runs = self.workers.values().all(|worker| worker.speaker.is_none());
        let stuck = none_runs && waiting.iter().any(|one| is_build(one) && late(one, LATE));
        if waiting.iter().any(|one| late(one, SOON)) {
            self.dismiss_idle();
        }
        if stuck && !std::mem::replace(&mut self.stuck, true) {
            self.course.sink.event(&Event::Warning {
                text: format!("the daemon has begun no build for {} s", LATE.as_secs()),
                hint: Some(
                    "it may run no more ops at a time: a run takes two places at least, which \
                     `max-parallelism` in `buildkitd.toml` has to allow"
                        .to_owned(),
                ),
            });
        }
    }

    /// Sends away the agents that wait for a build.
    fn dismiss_idle(&mut self) {
        let idle = |_: &String, worker: &mut Worker| worker.idle;
        for (_, worker) in self.workers.extract_if(.., idle) {
            if let Some(mut speaker) = worker.speaker {
                let _ = speaker.say(&ToAgent::Bye);
            }
        }
    }
}
