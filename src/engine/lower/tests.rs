//! What is lowered, op by op.

use super::*;
use crate::pipeline::{Dockerfile, Reference, Root, StoreView};

const NONCE: &str = "0123456789abcdef-1";

fn lowering(shape: Shape) -> Lowering {
    Lowering {
        shape,
        agent: "0123abcd".to_owned(),
        scratch: Scratch::Sized,
        outside: Network::Default,
        sandbox_paths: SandboxPaths::Absent,
    }
}

fn path(name: &str) -> StorePath {
    format!("/nix/store/{name}").parse().unwrap()
}

fn hello() -> StorePath {
    path("0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0.drv")
}

fn shell() -> StorePath {
    path("5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5")
}

/// Compares with the bytes that BuildKit's own Go package writes (`integration/golden`).
fn check(name: &str, ours: &[u8]) {
    let place = format!("{}/tests/golden/{name}.pb", env!("CARGO_MANIFEST_DIR"));
    let theirs = fs_err::read(place).unwrap();
    let text = |bytes| crate::llb::text::render(&crate::llb::decode(bytes).unwrap());
    assert_eq!(text(ours), text(&theirs), "{name}");
    assert_eq!(ours, theirs, "{name}");
}

#[test]
fn a_plain_build_is_the_op_go_writes() {
    let shell = shell();
    let inputs = PlainInputs {
        slot: 3,
        closure: vec![&shell],
    };
    let lowering = lowering(Shape::Plain);
    let op = lowering.build(&hello(), Reach::Nothing, &inputs, NONCE);
    check("lowered-plain", &op.unwrap());
}

#[test]
fn a_strong_build_is_the_op_go_writes() {
    let inputs = PlainInputs::default();
    let lowering = lowering(Shape::Strong);
    let op = lowering.build(&hello(), Reach::Nothing, &inputs, NONCE);
    check("lowered-strong", &op.unwrap());
}

fn check_effect(name: &str, root: &Root, store: StoreView) {
    let shell = shell();
    let effect = EffectInputs {
        name: "deploy",
        root,
        store,
        closure: match store {
            StoreView::Closure => vec![&shell],
            StoreView::Whole => vec![],
        },
        secrets: vec!["TOKEN"],
    };
    let op = lowering(Shape::Plain).effect(&effect, NONCE);
    check(name, &op.unwrap());
}

#[test]
fn an_effect_is_the_op_go_writes() {
    check_effect("lowered-effect", &Root::Empty, StoreView::Closure);
    check_effect("lowered-whole", &Root::Empty, StoreView::Whole);
}

#[test]
fn an_effect_with_another_root_is_the_ops_go_writes() {
    let image = Root::Image(Reference::parse("busybox:1.36").unwrap());
    check_effect("lowered-image", &image, StoreView::Closure);
    let context = InStore::parse(&format!("{}/deploy", shell())).unwrap();
    let build = Root::Dockerfile(Dockerfile {
        context: context.clone(),
        file: "Dockerfile".to_owned(),
        target: Some("last".to_owned()),
        args: [("A".to_owned(), "1".to_owned())].into(),
    });
    check_effect("lowered-dockerfile", &build, StoreView::Whole);
    // The directory is read alike; what is made of it is the engine's affair.
    check_effect(
        "lowered-dockerfile",
        &Root::Layout(context),
        StoreView::Whole,
    );
}

#[test]
fn only_what_may_reach_the_network_has_that_of_the_host_where_there_is_no_other() {
    for shape in [Shape::Plain, Shape::Strong] {
        let lowering = Lowering {
            outside: Network::Host,
            ..lowering(shape)
        };
        let network = |bytes: Vec<u8>| {
            let text = crate::llb::text::render(&crate::llb::decode(&bytes).unwrap());
            text.contains("network host")
        };
        let build = |reach| {
            let inputs = PlainInputs::default();
            lowering.build(&hello(), reach, &inputs, NONCE).unwrap()
        };
        assert!(network(build(Reach::Network)));
        assert!(!network(build(Reach::Nothing)));
        assert!(!network(lowering.store(NONCE).unwrap()));
    }
}

#[test]
fn the_store_is_the_op_go_writes() {
    check(
        "embedded-agent",
        &lowering(Shape::Strong).store(NONCE).unwrap(),
    );
}
