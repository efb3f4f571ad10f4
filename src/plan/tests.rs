//! Decisions, on hand-made and random graphs.

use proptest::prelude::*;

use super::closure::tests::Files;
use super::*;
use crate::nix::derivation::{Kvm, Level, Systems};
use crate::nix::{Outputs, Wanted};

pub(crate) fn systems() -> Systems {
    Systems::x86_64_linux(Level::V1, Kvm::Absent)
}

pub(crate) fn wanted(name: &str, drv: &StorePath, outputs: &[&str]) -> Wanted {
    let outputs = match outputs {
        [] => Outputs::All,
        names => Outputs::Names(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    Wanted {
        name: name.to_owned(),
        drv: drv.clone(),
        outputs,
    }
}

pub(crate) fn graph(files: &Files, wanted: &[Wanted]) -> Graph {
    let roots: Vec<&StorePath> = wanted.iter().map(|wanted| &wanted.drv).collect();
    Graph::new(files.load(&roots).unwrap(), wanted).unwrap()
}

pub(crate) fn output(graph: &Graph, drv: &StorePath, name: &str) -> StorePath {
    graph.node(graph.find(drv).unwrap()).parsed.outputs[name]
        .clone()
        .unwrap()
}

fn decision<'a>(graph: &Graph, plan: &'a Plan, drv: &StorePath) -> &'a Decision {
    &plan.node(graph.find(drv).unwrap()).decision
}

fn names(graph: &Graph, order: &[NodeIndex]) -> Vec<String> {
    order
        .iter()
        .map(|node| graph.node(*node).parsed.name().to_owned())
        .collect()
}

#[test]
fn nothing_valid_means_everything_is_built_critical_path_first() {
    let mut files = Files::default();
    let deep = files.add("z-deep", &["out"], &[]);
    let middle = files.add("middle", &["out"], &[(&deep, &["out"])]);
    let side = files.add("a-side", &["out"], &[]);
    let top = files.add("top", &["out"], &[(&middle, &["out"]), (&side, &["out"])]);
    let graph = graph(&files, &[wanted("top", &top, &[])]);
    let plan = decide(&graph, &BTreeSet::new(), &systems());
    assert_eq!(
        names(&graph, &plan.order),
        ["z-deep", "a-side", "middle", "top"]
    );
    assert_eq!(plan.node(graph.find(&deep).unwrap()).height, 2);
    assert_eq!(
        plan.counts(),
        Counts {
            derivations: 4,
            build: 4,
            ..Counts::default()
        }
    );
    assert_eq!(plan.imports, BTreeSet::from([deep, middle, side, top]));
    assert_eq!(
        plan.caches,
        Caches {
            missing: 4,
            allowed: 4
        }
    );
}

#[test]
fn inputs_of_what_is_valid_are_not_looked_at() {
    let mut files = Files::default();
    let low = files.add("low", &["out"], &[]);
    let top = files.add("top", &["out", "dev"], &[(&low, &["out"])]);
    let graph = graph(&files, &[wanted("top", &top, &["out"])]);
    let valid = BTreeSet::from([output(&graph, &top, "out")]);
    let plan = decide(&graph, &valid, &systems());
    assert_eq!(decision(&graph, &plan, &top), &Decision::Valid);
    assert_eq!(decision(&graph, &plan, &low), &Decision::Unneeded);
    assert!(plan.imports.is_empty() && plan.order.is_empty());
}

#[test]
fn one_missing_wanted_output_is_enough_and_says_which() {
    let mut files = Files::default();
    let low = files.add("low", &["out", "dev"], &[]);
    let top = files.add("top", &["out"], &[(&low, &["dev"])]);
    let wants = [wanted("top", &top, &[]), wanted("low", &low, &["out"])];
    let graph = graph(&files, &wants);
    let valid = BTreeSet::from([output(&graph, &low, "out")]);
    let plan = decide(&graph, &valid, &systems());
    let low = graph.find(&low).unwrap();
    let decided = plan.node(low);
    let missing = decided.decision.missing().unwrap();
    assert_eq!(missing.0.iter().collect::<Vec<_>>(), ["dev"]);
    let top = graph.find(&top).unwrap();
    assert_eq!(decided.wanted_by, [Wanter::Root(1), Wanter::Node(top)]);
    assert_eq!(plan.node(top).waits_for, [low]);
}

#[test]
fn what_is_unsupported_is_refused_only_if_it_must_be_built() {
    let mut files = Files::default();
    let odd = files.add_with("odd", &["out"], &[], |builder| {
        builder.environment("__noChroot", "1")
    });
    let top = files.add("top", &["out"], &[(&odd, &["out"])]);
    let graph = graph(&files, &[wanted("top", &top, &[])]);
    let plan = decide(&graph, &BTreeSet::new(), &systems());
    let refused: Vec<_> = plan.refused().collect();
    assert_eq!(
        refused,
        [(graph.find(&odd).unwrap(), &Unsupported::NoChroot)]
    );
    let valid = BTreeSet::from([output(&graph, &odd, "out")]);
    assert_eq!(decide(&graph, &valid, &systems()).refused().count(), 0);
}

#[test]
fn an_unknown_output_is_refused_by_name() {
    let mut files = Files::default();
    let low = files.add("low", &["out", "dev"], &[]);
    let closure = files.load(&[&low]).unwrap();
    let error = Graph::new(closure, &[wanted(".#low", &low, &["man"])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`.#low`: derivation `{low}` has no output `man`, only `dev`, `out`")
    );
}

#[test]
fn substitutes_that_are_not_allowed_are_not_counted() {
    let mut files = Files::default();
    let local = files.add_with("local", &["out"], &[], |builder| {
        builder.environment("allowSubstitutes", "")
    });
    let top = files.add("top", &["out", "dev"], &[(&local, &["out"])]);
    let graph = graph(&files, &[wanted("top", &top, &["out"])]);
    let plan = decide(&graph, &BTreeSet::new(), &systems());
    assert_eq!(
        plan.caches,
        Caches {
            missing: 2,
            allowed: 1
        }
    );
}

#[test]
fn sources_are_imported_with_the_files_that_name_them() {
    let source = StorePath::from_parts([7; 20], "source").unwrap();
    let other = StorePath::from_parts([8; 20], "other").unwrap();
    let mut files = Files::default();
    let low = files.add_with("low", &["out"], &[], |builder| {
        builder.input_source(other.clone())
    });
    let top = files.add_with("top", &["out"], &[(&low, &["out"])], |builder| {
        builder.input_source(source.clone())
    });
    let graph = graph(&files, &[wanted("top", &top, &[])]);
    // `low` is valid, but the file of `top` refers to that of `low`, and that to its source.
    let valid = BTreeSet::from([output(&graph, &low, "out"), source]);
    let plan = decide(&graph, &valid, &systems());
    assert_eq!(plan.imports, BTreeSet::from([low, top, other]));
}

/// The rule said differently: the smallest set that holds every derivation of which somebody who
/// asks wants an invalid output, where roots and members of the set ask.
fn naive(graph: &Graph, valid: &BTreeSet<StorePath>) -> BTreeSet<NodeIndex> {
    let mut build = BTreeSet::new();
    loop {
        let members = build
            .iter()
            .flat_map(|node: &NodeIndex| graph.node(*node).inputs());
        let requests = members.map(|input| (input.node, input.outputs));
        let roots = graph.roots().iter().map(|root| (root.node, &root.outputs));
        let found: BTreeSet<NodeIndex> = roots
            .chain(requests)
            .filter(|(node, outputs)| {
                let paths = &graph.node(*node).parsed.outputs;
                outputs
                    .iter()
                    .any(|name| !valid.contains(paths[name].as_ref().unwrap()))
            })
            .map(|(node, _)| node)
            .collect();
        if found == build {
            return build;
        }
        build = found;
    }
}

/// Per node: how many outputs it has, which earlier outputs it wants, which of its own are valid.
type Shape = Vec<(usize, u64, u8)>;

fn generated(shape: &Shape, roots: u16) -> (Graph, BTreeSet<StorePath>) {
    const OUTPUTS: [&str; 3] = ["out", "dev", "lib"];
    let mut files = Files::default();
    let mut drvs: Vec<(StorePath, usize)> = Vec::new();
    for (at, (outputs, wants, _)) in shape.iter().enumerate() {
        let inputs: Vec<(StorePath, Vec<&str>)> = drvs
            .iter()
            .enumerate()
            .map(|(input, (drv, count))| {
                let bits = wants >> (4 * input);
                let wanted = (0..*count).filter(|output| bits >> output & 1 == 1);
                (
                    drv.clone(),
                    wanted.map(|output| OUTPUTS[output]).collect::<Vec<_>>(),
                )
            })
            .filter(|(_, wanted)| !wanted.is_empty())
            .collect();
        let inputs: Vec<(&StorePath, &[&str])> = inputs
            .iter()
            .map(|(drv, wanted)| (drv, wanted.as_slice()))
            .collect();
        let drv = files.add(&format!("node-{at}"), &OUTPUTS[..*outputs], &inputs);
        drvs.push((drv, *outputs));
    }
    let chosen = drvs
        .iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || roots >> at & 1 == 1);
    let wants: Vec<Wanted> = chosen
        .map(|(_, (drv, _))| wanted("root", drv, &["out"]))
        .collect();
    let graph = graph(&files, &wants);
    let valid = drvs
        .iter()
        .zip(shape)
        .flat_map(|((drv, count), (_, _, bits))| {
            let known = graph.find(drv).is_some();
            let valid = (0..*count).filter(move |output| known && bits >> output & 1 == 1);
            valid
                .map(|name| output(&graph, drv, OUTPUTS[name]))
                .collect::<Vec<_>>()
        });
    let valid = valid.collect();
    (graph, valid)
}

proptest! {
    #[test]
    fn decides_as_the_rule_says(
        shape in prop::collection::vec((1_usize..4, any::<u64>(), any::<u8>()), 1..14),
        roots in any::<u16>(),
    ) {
        let (graph, valid) = generated(&shape, roots);
        let plan = decide(&graph, &valid, &systems());
        let build: BTreeSet<NodeIndex> = plan.order.iter().copied().collect();
        prop_assert_eq!(&build, &naive(&graph, &valid));
        for (node, _) in graph.nodes() {
            let decided = plan.node(node);
            prop_assert_eq!(build.contains(&node), decided.decision.missing().is_some());
            prop_assert_eq!(decided.wanted_by.is_empty(), decided.decision == Decision::Unneeded);
        }
        for (at, node) in plan.order.iter().enumerate() {
            let waits_for = &plan.node(*node).waits_for;
            prop_assert!(waits_for.iter().all(|input| plan.order[..at].contains(input)));
        }
    }
}

#[test]
fn a_large_and_deep_graph_is_decided() {
    let mut files = Files::default();
    let mut drvs: Vec<StorePath> = Vec::new();
    for at in 0..28_000_usize {
        let inputs = [at / 2, at * 2 / 3, at.saturating_sub(1)];
        let inputs: BTreeSet<&StorePath> = inputs.iter().filter_map(|&at| drvs.get(at)).collect();
        let inputs: Vec<(&StorePath, &[&str])> = inputs
            .into_iter()
            .map(|input| (input, &["out"][..]))
            .collect();
        let drv = files.add(&format!("node-{at}"), &["out"], &inputs);
        drvs.push(drv);
    }
    let top = drvs.last().unwrap();
    let graph = graph(&files, &[wanted("top", top, &[])]);
    let plan = decide(&graph, &BTreeSet::new(), &systems());
    assert_eq!(plan.order.len(), 28_000);
    assert_eq!(plan.node(plan.order[0]).height, 27_999);
}
