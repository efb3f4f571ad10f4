//! Many attributes of one flake or expression, with few calls of `nix`.
//!
//! A function of ours (`nix/outputs.nix`, `nix/attributes.nix`) walks the paths of all attributes
//! inside one call. As a list of paths is one argument of a process, which Linux limits to 128 KiB,
//! there is one call for each piece of that size.
//!
//! | looked for     | where                                                           |
//! |----------------|-----------------------------------------------------------------|
//! | all attributes | the value of the expression                                     |
//! | all outputs    | `packages.<system>` of the flake                                |
//! | the rest       | `legacyPackages.<system>`                                       |
//! | what is left   | the flake's top (`whole.rs`), where that is to be had; else in    |
//! |                | each first name that several have                                |
//!
//! For a flake this is the order of `nix`. There is no way that every `nix` knows to say that a
//! path begins at the top, so something named `packages` inside of a set would come before the
//! set: this is looked up, and one output is evaluated alone as well. If anything is other than
//! expected, all are evaluated alone: many are what each is by itself. In one thing many are more
//! lenient: newer `nix` also looks where it no longer has to, and fails if that fails.
//!
//! Nothing but the attributes asked for is forced. If a call fails, halves of it tell which
//! attribute is to blame, and the error is what Nix says of that one alone.
//! What this module is not certain to split as `nix` does (`asked.rs`) is evaluated alone.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use super::asked::{Asked, index, quoted};
use super::installable::Installable;
use super::targets::{Answer, Job, read};
use super::{Error, is_absent, quote};
use crate::nix::Wanted;

const ATTRIBUTES: &str = include_str!("../../nix/attributes.nix");
const OUTPUTS: &str = include_str!("../../nix/outputs.nix");

/// The longest argument that Linux takes, with the NUL at its end.
const LONGEST: usize = 128 << 10;
/// So few of a flake are evaluated one by one: together they would take as many calls.
const FEW: usize = 4;
/// The sets of a flake that `nix` looks into before its top.
const SETS: [&str; 2] = ["packages", "legacyPackages"];

/// Why many could not be evaluated together.
enum Halt {
    /// One of them, or `nix`, failed.
    Failed(Error),
    /// It is not certain that each would be found where `nix` finds it alone.
    Doubt,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Something asked for, and where it is from the value that is looked into.
#[derive(Clone, Copy)]
struct Sought<'a> {
    asked: &'a Asked<'a>,
    path: &'a [String],
}

/// A value that attributes are looked for in.
struct Place<'a> {
    /// What `nix eval` is given.
    arguments: Vec<&'a OsStr>,
    /// The output of a flake that this is; it may be absent.
    output: Option<&'a str>,
    /// Our function, which lacks only the list of paths.
    function: String,
}

impl Place<'_> {
    /// The text of a path in the list.
    fn literal(&self, path: &[String]) -> String {
        let name = |name: &String| match index(name) {
            Ok(Some(index)) if self.output.is_none() => index.to_string(),
            _ => quote::string(name),
        };
        let names: Vec<String> = path.iter().map(name).collect();
        format!("[{}]", names.join(" "))
    }

    /// Cuts a list into pieces that can each be an argument.
    fn pieces<'s>(&self, sought: &'s [Sought<'s>]) -> Vec<&'s [Sought<'s>]> {
        let room = LONGEST.saturating_sub(self.function.len() + "( [])\0".len());
        let mut pieces = Vec::new();
        let (mut begin, mut bytes) = (0, 0);
        for (at, one) in sought.iter().enumerate() {
            let length = self.literal(one.path).len();
            if bytes + length > room && at > begin {
                pieces.push(&sought[begin..at]);
                (begin, bytes) = (at, 0);
            }
            bytes += length;
        }
        pieces.push(&sought[begin..]);
        pieces
    }
}

impl Job<'_> {
    /// Evaluates what was typed, in that order where one fails.
    pub(super) fn installables(&mut self, all: &[Installable]) -> Result<Vec<Wanted>, Error> {
        let mut wanted: Vec<Option<Wanted>> = all.iter().map(Installable::direct).collect();
        let asked: Vec<Option<Asked<'_>>> = all.iter().map(Asked::of_flake).collect();
        let mut flakes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, one) in asked.iter().enumerate() {
            if let Some(one) = one.as_ref().filter(|one| one.path.is_some()) {
                flakes.entry(one.flake).or_default().push(at);
            }
        }
        flakes.retain(|_, members| members.len() > FEW);
        for (at, one) in asked.iter().enumerate() {
            let Some(one) = one.as_ref().filter(|_| wanted[at].is_none()) else {
                continue;
            };
            match flakes.get(one.flake).filter(|_| one.path.is_some()) {
                None => wanted[at] = Some(self.alone(one)?),
                Some(members) => {
                    let some: Vec<_> = members
                        .iter()
                        .filter_map(|&at| asked[at].as_ref())
                        .collect();
                    for (&at, one) in members.iter().zip(self.flake(one.flake, &some)?) {
                        wanted[at] = Some(one);
                    }
                }
            }
        }
        Ok(wanted.into_iter().flatten().collect())
    }

    /// Evaluates attributes of an expression, or its value.
    pub(super) fn expression(
        &mut self,
        text: &str,
        attributes: &[String],
    ) -> Result<Vec<Wanted>, Error> {
        let asked = attributes
            .iter()
            .map(|attribute| Asked::of_expression(text, attribute));
        let asked: Vec<Asked<'_>> = asked.collect::<Result<_, _>>()?;
        let asked: Vec<&Asked<'_>> = asked.iter().collect();
        let together = match asked.iter().filter(|one| one.path.is_some()).count() {
            0 | 1 => Err(Halt::Doubt),
            _ => self.selected(text, &asked),
        };
        self.rest(&asked, together)
    }

    fn selected(&mut self, text: &str, asked: &[&Asked<'_>]) -> Result<Vec<Option<Wanted>>, Halt> {
        let place = Place {
            arguments: vec![OsStr::new("--expr"), OsStr::new(text)],
            output: None,
            function: format!("({ATTRIBUTES}) ({}) ({})", self.call(), self.target()),
        };
        let mut found = vec![None; asked.len()];
        self.fill(&place, asked, 0, &mut found)?;
        Ok(found)
    }

    /// Evaluates outputs of one flake.
    fn flake(&mut self, flake: &str, asked: &[&Asked<'_>]) -> Result<Vec<Wanted>, Error> {
        // A flake that cannot be fetched is an error after one attempt.
        let first = self.alone(asked[0])?;
        let together = self.provided(flake, asked, &first);
        self.rest(asked, together)
    }

    /// Looks for outputs of a flake where `nix` does.
    fn provided(
        &mut self,
        flake: &str,
        asked: &[&Asked<'_>],
        first: &Wanted,
    ) -> Result<Vec<Option<Wanted>>, Halt> {
        let mut found = vec![None; asked.len()];
        for set in SETS {
            if found.iter().all(Option::is_some) {
                break;
            }
            self.unshadowed(flake, set)?;
            let output = format!("{set}.{}", self.request.system);
            self.look(flake, &output, asked, 0, &mut found)?;
        }
        self.look_at_top(flake, asked, &mut found)?;
        let certain = match found.iter().position(Option::is_some) {
            None => true,
            Some(0) if found[0].as_ref() == Some(first) => true,
            // What was evaluated first may have written a lock file that the others saw.
            Some(at) => found[at] == Some(self.alone(asked[at])?),
        };
        certain.then_some(found).ok_or(Halt::Doubt)
    }

    /// Looks for what is missing at the top of a flake: in all of it, or in each output that several
    /// begin with.
    fn look_at_top(
        &mut self,
        flake: &str,
        asked: &[&Asked<'_>],
        found: &mut [Option<Wanted>],
    ) -> Result<(), Halt> {
        if by_first_name(asked, found).len() > FEW
            && let Some(text) = self.whole(flake)?
        {
            self.look_in_whole(&text, asked, found)?;
        }
        let names = by_first_name(asked, found);
        for (name, members) in names.into_iter().filter(|(_, members)| members.len() > 1) {
            let some: Vec<_> = members.iter().map(|&at| asked[at]).collect();
            let mut these = vec![None; some.len()];
            self.look(flake, &quoted(name), &some, 1, &mut these)?;
            for (at, this) in members.into_iter().zip(these) {
                found[at] = this;
            }
        }
        Ok(())
    }

    /// Looks for what is missing in a value that is a flake's outputs, and makes sure that one of
    /// them is what it is alone.
    fn look_in_whole(
        &mut self,
        text: &str,
        asked: &[&Asked<'_>],
        found: &mut [Option<Wanted>],
    ) -> Result<(), Halt> {
        let missing: Vec<usize> = (0..found.len()).filter(|&at| found[at].is_none()).collect();
        let place = Place {
            arguments: ["--expr", text].map(OsStr::new).to_vec(),
            output: Some(text),
            function: format!("({OUTPUTS}) ({})", self.target()),
        };
        self.fill(&place, asked, 0, found)?;
        match missing.into_iter().find(|&at| found[at].is_some()) {
            Some(at) if found[at] != Some(self.alone(asked[at])?) => Err(Halt::Doubt),
            _ => Ok(()),
        }
    }

    /// Makes sure that a path which begins with this set's name does not begin inside of a set,
    /// where `nix` looks first.
    fn unshadowed(&mut self, flake: &str, set: &str) -> Result<(), Halt> {
        for outer in SETS {
            let inner = format!("{flake}#{outer}.{}.{set}", self.request.system);
            match self.eval(&inner, &[OsStr::new(&inner)], "_: null") {
                Ok(_) => return Err(Halt::Doubt),
                // If it fails otherwise than by absence, so will what follows.
                Err(Error::Failed { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    fn look(
        &mut self,
        flake: &str,
        output: &str,
        asked: &[&Asked<'_>],
        walked: usize,
        found: &mut [Option<Wanted>],
    ) -> Result<(), Halt> {
        let reference = format!("{flake}#{output}");
        let place = Place {
            arguments: vec![OsStr::new(&reference)],
            output: Some(output),
            function: format!("({OUTPUTS}) ({})", self.target()),
        };
        self.fill(&place, asked, walked, found)
    }

    /// Looks for all that is not found yet; the first names of their paths are walked already.
    fn fill(
        &mut self,
        place: &Place<'_>,
        asked: &[&Asked<'_>],
        walked: usize,
        found: &mut [Option<Wanted>],
    ) -> Result<(), Halt> {
        let missing = |(at, one): (usize, &&'_ Asked<'_>)| {
            (found[at].is_none() && one.path.is_some()).then_some(at)
        };
        let missing: Vec<usize> = asked.iter().enumerate().filter_map(missing).collect();
        let sought = missing.iter().map(|&at| Sought {
            asked: asked[at],
            path: &asked[at].path.as_deref().unwrap_or_default()[walked..],
        });
        let sought: Vec<Sought<'_>> = sought.collect();
        let mut these = Vec::with_capacity(sought.len());
        for piece in place.pieces(&sought) {
            these.extend(self.look_at_once(place, piece)?);
        }
        for (at, this) in missing.into_iter().zip(these) {
            found[at] = this;
        }
        Ok(())
    }

    /// Looks with one call, and with halves if that fails.
    fn look_at_once(
        &mut self,
        place: &Place<'_>,
        sought: &[Sought<'_>],
    ) -> Result<Vec<Option<Wanted>>, Halt> {
        let paths: String = sought.iter().map(|one| place.literal(one.path)).collect();
        let function = format!("({} [{paths}])", place.function);
        let subject = format!("{} attributes", sought.len());
        match self.eval(&subject, &place.arguments, &function) {
            Ok(stdout) => {
                let answers: Vec<Option<Answer>> = read(&subject, &stdout)?;
                Ok(judged(&subject, sought, answers)?)
            }
            Err(Error::Failed { text, .. })
                if place.output.is_some_and(|output| is_absent(&text, output)) =>
            {
                Ok(vec![None; sought.len()])
            }
            Err(Error::Failed { .. } | Error::Run { .. }) => match sought {
                [one] => {
                    self.alone(one.asked)?;
                    Err(Halt::Doubt)
                }
                many => {
                    let (first, second) = many.split_at(many.len() / 2);
                    let mut found = self.look_at_once(place, first)?;
                    found.extend(self.look_at_once(place, second)?);
                    Ok(found)
                }
            },
            Err(other) => Err(other.into()),
        }
    }

    /// Evaluates alone what is not found together.
    fn rest(
        &mut self,
        asked: &[&Asked<'_>],
        together: Result<Vec<Option<Wanted>>, Halt>,
    ) -> Result<Vec<Wanted>, Error> {
        let found = match together {
            Ok(found) => found,
            Err(Halt::Doubt) => vec![None; asked.len()],
            Err(Halt::Failed(error)) => return Err(error),
        };
        let all = asked.iter().zip(found);
        all.map(|(one, found)| found.map_or_else(|| self.alone(one), Ok))
            .collect()
    }

    fn alone(&mut self, asked: &Asked<'_>) -> Result<Wanted, Error> {
        let function = format!("({})", self.target());
        let stdout = self.eval(&asked.subject, &asked.arguments, &function)?;
        asked.wanted(read(&asked.subject, &stdout)?)
    }
}

/// What is missing, by the first names of the paths.
fn by_first_name<'a>(
    asked: &[&'a Asked<'_>],
    found: &[Option<Wanted>],
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, one) in asked.iter().enumerate() {
        if let (None, Some([first, ..])) = (&found[at], one.path.as_deref()) {
            names.entry(first).or_default().push(at);
        }
    }
    names
}

fn judged(
    subject: &str,
    sought: &[Sought<'_>],
    answers: Vec<Option<Answer>>,
) -> Result<Vec<Option<Wanted>>, Error> {
    if answers.len() != sought.len() {
        return Err(Error::Answer {
            subject: subject.to_owned(),
            answer: format!("{} answers", answers.len()),
        });
    }
    let answers = sought.iter().zip(answers);
    answers
        .map(|(one, answer)| answer.map(|answer| one.asked.wanted(answer)).transpose())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_expressions_have_lists() {
        let asked = |attribute| Asked::of_expression("e", attribute).unwrap().path;
        assert_eq!(asked("a.007^dev"), Some(names(&["a", "007"])));
        assert_eq!(asked("a.4294967296"), None);
        let place = |output| Place {
            arguments: vec![],
            output,
            function: String::new(),
        };
        let path = names(&["a", "007"]);
        assert_eq!(place(None).literal(&path), "[\"a\" 7]");
        assert_eq!(place(Some("packages")).literal(&path), "[\"a\" \"007\"]");
    }

    #[test]
    fn a_piece_is_one_argument() {
        let attribute = "x".repeat(LONGEST / 3);
        let asked = Asked::of_expression("e", &attribute).unwrap();
        let sought = [Sought {
            asked: &asked,
            path: asked.path.as_deref().unwrap(),
        }; 5];
        let place = Place {
            arguments: vec![],
            output: None,
            function: "f".repeat(LONGEST / 4),
        };
        let pieces = place.pieces(&sought);
        assert_eq!(
            pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(),
            [2, 2, 1]
        );
        let long = "x".repeat(2 * LONGEST);
        let asked = Asked::of_expression("e", &long).unwrap();
        let path = asked.path.as_deref().unwrap();
        let sought = [Sought {
            asked: &asked,
            path,
        }; 2];
        assert_eq!(place.pieces(&sought).len(), 2);
    }
}
