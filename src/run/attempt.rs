//! Attempts whose end was not heard: what their records say, and what that means for the run.
//!
//! The tunnel tells how a node ended. When it is gone the store is asked for the attempt's record
//! (`pontoon/attempts/`), which the agent writes also when nobody listens:
//!
//! | on record | an effect |
//! |---|---|
//! | a good end | succeeded |
//! | another end | failed |
//! | nothing was started, or no record | is started again |
//! | no end, its lock held | is waited for: its lifeline ends it |
//! | no end, or ended by force | is unknown, and never started again in this run |
//!
//! A build may always be built again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::event::{Event, Failure, Outcome};
use crate::plan::NodeIndex;
use crate::run::Error;
use crate::run::course::{Course, EffectState, Job};
use crate::run::outcome::machine;
use crate::run::session::Session;
use crate::tunnel::{AttemptFacts, AttemptStanding};

/// How long an attempt may go on after its lifeline has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that ran when its session was lost.
#[derive(Debug, Clone)]
pub(super) struct Adrift {
    pub(super) job: Job,
    /// Its attempt's id.
    pub(super) attempt: String,
    /// Whether it was heard that it started.
    pub(super) heard: bool,
    /// The copy of the store that has its record.
    pub(super) instance: String,
    pub(super) started: Option<Instant>,
    /// The last lines of its log.
    pub(super) tail: Vec<String>,
}

impl Adrift {
    /// What the same agent may have gone on with, unheard; its attempts are numbered.
    pub(super) fn followed_by(&self, next: NodeIndex) -> Option<Self> {
        let (agent, number) = self.attempt.rsplit_once('-')?;
        let number: u32 = number.parse().ok().filter(|_| self.heard)?;
        Some(Self {
            job: Job::Build(next),
            attempt: format!("{agent}-{}", number.checked_add(1)?),
            heard: false,
            instance: self.instance.clone(),
            started: None,
            tail: Vec::new(),
        })
    }

    /// How long it ran, as far as anybody knows.
    pub(super) fn seconds(&self) -> f64 {
        self.started
            .map_or(0.0, |started| started.elapsed().as_secs_f64())
    }

    /// What an effect has come to by its record; none if nothing of it was ever started.
    pub(super) fn outcome(&self, standing: Option<&AttemptStanding>) -> Option<Outcome> {
        let unknown = |detail: &str| {
            Some(Outcome::Unknown {
                detail: detail.to_owned(),
            })
        };
        match standing {
            Some(AttemptStanding::Good) => Some(Outcome::Succeeded),
            Some(AttemptStanding::Bad { outcome, exit }) => Some(Outcome::Failed {
                failure: exit.map_or_else(
                    || machine(outcome),
                    |code| Failure::ExitCode {
                        code,
                        transient: true,
                    },
                ),
                tail: self.tail.clone(),
            }),
            Some(AttemptStanding::Unknown { detail }) => unknown(detail),
            Some(AttemptStanding::Running) => unknown("it goes on without its lifeline"),
            None if self.heard => unknown("it had started, and its record is gone"),
            Some(AttemptStanding::NotStarted) | None => None,
        }
    }
}

impl Session<'_> {
    /// Asks how attempts stand, and waits for those that go on, but not for ever.
    pub(super) fn standings(
        &mut self,
        ids: &[String],
    ) -> Result<BTreeMap<String, AttemptStanding>, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let facts = self.attempts(ids)?;
            let all = facts.into_iter().map(|fact| (fact.id, fact.standing));
            let all: BTreeMap<String, AttemptStanding> = all.collect();
            let is_running = |standing: &AttemptStanding| *standing == AttemptStanding::Running;
            let stops = self.options.cancel.load(Ordering::Relaxed);
            if !all.values().any(is_running) || stops || Instant::now() > deadline {
                return Ok(all);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Course<'_> {
    /// Finds out what became of everything that ran when the last session was lost.
    ///
    /// # Errors
    ///
    /// This session is lost too; nothing is concluded then.
    pub(super) fn settle_adrift(&mut self, session: &mut Session<'_>) -> Result<(), Error> {
        let known = self.adrift.iter();
        let known = known.filter(|adrift| adrift.instance == session.instance);
        let ids: Vec<String> = known.map(|adrift| adrift.attempt.clone()).collect();
        let standings = if ids.is_empty() {
            BTreeMap::new()
        } else {
            session.standings(&ids)?
        };
        for mut adrift in std::mem::take(&mut self.adrift) {
            let standing = standings.get(&adrift.attempt);
            // Nobody can tell whether a record in another store is there.
            adrift.heard |= adrift.instance != session.instance;
            match adrift.job {
                Job::Build(node) if standing == Some(&AttemptStanding::Good) => {
                    self.built.insert(node);
                }
                Job::Build(_) if adrift.started.is_none() => {}
                Job::Build(_) => self.again(&adrift.job, "it was lost while it ran"),
                Job::Effect(index) => {
                    if let Some(outcome) = adrift.outcome(standing) {
                        self.conclude(&adrift.job, outcome, adrift.seconds());
                    } else {
                        self.again(&adrift.job, "nothing of it was started");
                        self.effects[index] = EffectState::Waiting;
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells of effects of the pipeline that is about to run and that an earlier run of it has left
    /// in the dark.
    pub(super) fn tell_of_unsettled(&mut self, session: &mut Session<'_>) -> Result<(), Error> {
        let Some(run) = self.pipeline else {
            return Ok(());
        };
        let effects: Vec<String> = run.pipeline.effects.keys().cloned().collect();
        for fact in session.unsettled(&run.origin, &effects)? {
            self.sink.event(&warning(&fact, &effects));
        }
        Ok(())
    }
}

fn warning(fact: &AttemptFacts, effects: &[String]) -> Event {
    let AttemptFacts {
        node, run, started, ..
    } = fact;
    let detail = match &fact.standing {
        AttemptStanding::Unknown { detail } => format!(" ({detail})"),
        _ => String::new(),
    };
    Event::Warning {
        text: format!(
            "the outcome of the effect `{node}` of run `{run}` is unknown: it started at {} and \
             nobody saw its end{detail}",
            date(*started)
        ),
        hint: Some(format!(
            "it may or may not have happened: look at its target; {}",
            if effects.contains(node) {
                "this run starts it anew"
            } else {
                "the pipeline has no effect of this name any more"
            }
        )),
    }
}

/// Writes milliseconds since the epoch as a date and time of day, in UTC.
fn date(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last of its year; 719 468 days are from
    // such a year 0 to the epoch, 146 097 make 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adrift(heard: bool) -> Adrift {
        Adrift {
            job: Job::Effect(0),
            attempt: "r-1-1".to_owned(),
            heard,
            instance: "i".to_owned(),
            started: None,
            tail: vec!["last words".to_owned()],
        }
    }

    #[test]
    fn a_record_decides_what_nobody_heard() {
        let bad = |exit| AttemptStanding::Bad {
            outcome: "failed".to_owned(),
            exit,
        };
        let unknown = AttemptStanding::Unknown {
            detail: "killed".to_owned(),
        };
        let told = |heard, standing: Option<&AttemptStanding>| adrift(heard).outcome(standing);
        assert_eq!(
            told(true, Some(&AttemptStanding::Good)),
            Some(Outcome::Succeeded)
        );
        for exit in [Some(3), None] {
            let outcome = told(false, Some(&bad(exit)));
            assert!(
                matches!(&outcome, Some(Outcome::Failed { tail, .. }) if tail == &["last words"]),
                "{outcome:?}"
            );
        }
        for (heard, standing) in [
            (true, Some(&unknown)),
            (false, Some(&unknown)),
            (true, Some(&AttemptStanding::Running)),
            (true, None),
        ] {
            let outcome = told(heard, standing);
            assert!(
                matches!(outcome, Some(Outcome::Unknown { .. })),
                "{outcome:?}"
            );
        }
        // Only what was surely never started is started again.
        assert_eq!(told(false, None), None);
        assert_eq!(told(true, Some(&AttemptStanding::NotStarted)), None);
    }

    #[test]
    fn an_agents_attempts_are_numbered() {
        let next = |heard| adrift(heard).followed_by(NodeIndex(7));
        let next_heard = next(true).unwrap();
        assert_eq!(next_heard.attempt, "r-1-2");
        assert_eq!(next_heard.job, Job::Build(NodeIndex(7)));
        assert!(!next_heard.heard && next_heard.started.is_none());
        // Which one it began with is not known.
        assert!(next(false).is_none());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dates = [0, 951_782_400, 951_868_800, 1_234_567_890, 4_102_444_799];
        assert_eq!(
            dates.map(|seconds| date(seconds * 1000)),
            [
                "1970-01-01 00:00:00 UTC",
                "2000-02-29 00:00:00 UTC",
                "2000-03-01 00:00:00 UTC",
                "2009-02-13 23:31:30 UTC",
                "2099-12-31 23:59:59 UTC",
            ]
        );
    }
}
