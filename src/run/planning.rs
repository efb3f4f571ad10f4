//! Planning without running: while the derivations are read the store wakes, and is asked what is
//! valid.
//!
//! There are two questions. *Which of these?* can be asked once everything is read, and takes as
//! long as there is much to ask about. *What have you got?* can be asked before, and takes as long as
//! there is much in the store. So the second is asked as soon as the derivations that were read
//! alone would be the longer question, and the first one if it never comes to that.
//!
//! What is wrong with what was read comes before what is wrong with the store.

use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::event::Sink;
use crate::nix::{StorePath, Wanted};
use crate::pipeline::Pipeline;
use crate::plan::closure::Remains;
use crate::plan::{self, Effects, Graph};
use crate::run::session::Session;
use crate::run::{Error, Options, Planned, Waking, connect, effects, read_graph, touched, waking};

/// From so many derivations on the store is asked what it has.
const MANY: usize = 1 << 10;
/// So many names fit into an answer, however long they are.
const MOST: usize = 200_000;
/// How many valid paths are named in the time that it takes to ask about one derivation.
const NAMED_FOR_ONE: usize = 6;

/// Plans without running: what would be built, and why; and what can be cleared away.
pub fn plan(
    waking: Waking<'_>,
    wanted: &[Wanted],
    pipeline: Option<&Pipeline>,
    sink: &mut dyn Sink,
) -> Result<(Planned, Remains), Error> {
    let options = waking.options();
    let (tell, read) = channel();
    let (known, asked) = thread::scope(|scope| {
        let asking = scope.spawn(move || Asked::early(waking, &read));
        let known = known(options, wanted, pipeline, move |count| {
            // Nobody hears it once that is asked, or has failed.
            let _ = tell.send(count);
        });
        (known, asking.join().expect("it only asks"))
    });
    let (graph, effects, remains) = match known {
        Ok(known) => known,
        Err(error) => {
            if let Ok(Asked::Already(session, _)) = asked {
                session.close();
            }
            return Err(error);
        }
    };
    let (mut session, valid) = match asked? {
        Asked::Already(session, valid) => (session, valid),
        Asked::NotYet(waking) => {
            let late = || sink.event(&waking::late());
            (Box::new(waking.take(late).0?), None)
        }
    };
    effects::admit_there(&session, &effects)?;
    let valid = match valid {
        Some(valid) => valid,
        None => Vec::from_iter(session.valid(touched(&graph, &effects))?),
    };
    // Nothing was used, so nothing was protected.
    let leaving = session.leave();
    let plan = plan::decide(&graph, &valid, &options.systems);
    leaving.wait();
    let planned = Planned {
        graph,
        plan,
        effects,
    };
    Ok((planned, remains))
}

/// What is to be decided about.
fn known(
    options: &Options,
    wanted: &[Wanted],
    pipeline: Option<&Pipeline>,
    count: impl Fn(usize) + Sync,
) -> Result<(Graph, Effects, Remains), Error> {
    let (graph, remains) = read_graph(options, wanted, pipeline, count)?;
    let effects = connect(&graph, pipeline)?;
    effects::admit(options, &effects)?;
    Ok((graph, effects, remains))
}

/// What is known of a store.
enum Asked<'a> {
    /// It wakes, and was asked nothing.
    NotYet(Waking<'a>),
    /// All that is valid, if that is not too much.
    Already(Box<Session<'a>>, Option<Vec<StorePath>>),
}

impl<'a> Asked<'a> {
    /// Asks what is valid once so many derivations were read that it pays.
    fn early(waking: Waking<'a>, read: &Receiver<usize>) -> Result<Self, Error> {
        loop {
            match read.recv() {
                Ok(count) if count >= MANY => break,
                Ok(_) => {}
                Err(_) => return Ok(Self::NotYet(waking)),
            }
        }
        let mut session = waking.take(|| ()).0?;
        let mut valid = None;
        while valid.is_none()
            && let Ok(count) = read.recv()
        {
            valid = session.all_valid((count * NAMED_FOR_ONE).min(MOST))?;
        }
        Ok(Self::Already(Box::new(session), valid))
    }
}
