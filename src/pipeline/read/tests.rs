//! What is read, and everything that may be wrong with it.

use serde_json::{Value, json};

use super::*;

const DRV: &str = "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-d.drv";

fn effect_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut effect = json!({
        "command": ["/bin/deploy"], "tools": [], "environment": {}, "after": [], "gate": null,
        "secrets": {}, "timeout": null, "image": null, "dockerfile": null,
        "store": null, "needs": [], "sources": [],
    });
    change(&mut effect);
    effect
}

fn read(effects: &Value) -> Result<Read, Error> {
    let answer = json!({
        "version": 1, "found": true, "names": ["release"], "facts": ["rev"],
        "errors": [], "missing": [], "effects": effects,
        "builds": { "d": { "drvPath": DRV, "name": "d", "system": "x86_64-linux",
                           "outputs": ["out", "dev"], "wanted": ["out"] } },
    });
    from_json("release", answer.to_string().as_bytes())
}

fn fault(change: impl FnOnce(&mut Value)) -> String {
    read(&json!({ "deploy": effect_with(change) }))
        .unwrap_err()
        .to_string()
}

#[test]
fn an_effect_waits_for_all_builds_unless_it_says_otherwise() {
    let narrow = effect_with(|effect| effect["gate"] = json!([]));
    let read = read(&json!({ "a": effect_with(|_| ()), "b": narrow })).unwrap();
    assert_eq!(
        read.pipeline.effects["a"].gate,
        BTreeSet::from(["d".into()])
    );
    assert_eq!(read.pipeline.effects["b"].gate, BTreeSet::new());
    assert_eq!(read.facts, BTreeSet::from(["rev".into()]));
    assert_eq!(read.pipeline.builds["d"].drv.to_string(), DRV);
}

#[test]
fn reads_secrets_timeouts_and_needs() {
    let effect = effect_with(|effect| {
        effect["secrets"] = json!({ "A": { "env": null, "file": null },
                                        "B": { "env": "X", "file": null },
                                        "C": { "env": null, "file": "/run/c" } });
        effect["timeout"] = json!({ "text": "1h30m" });
        effect["needs"] = json!([{ "drv": DRV, "outputs": ["dev"], "all": false },
                                     { "drv": DRV, "outputs": [], "all": true }]);
    });
    let read = read(&json!({ "deploy": effect })).unwrap();
    let effect = &read.pipeline.effects["deploy"];
    assert_eq!(effect.secrets["A"], Secret::Variable("A".into()));
    assert_eq!(effect.secrets["B"], Secret::Variable("X".into()));
    assert_eq!(effect.secrets["C"], Secret::File("/run/c".into()));
    assert_eq!(effect.timeout, Some(Duration::from_mins(90)));
    assert_eq!(
        effect.needs[0].outputs,
        Outputs::Names(BTreeSet::from(["dev".into()]))
    );
    assert_eq!(
        (effect.needs[1].name.as_str(), &effect.needs[1].outputs),
        ("d", &Outputs::All)
    );
}

#[test]
fn reads_roots() {
    const PLACE: &str = "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-d/oci";
    let root = |change: fn(&mut Value)| {
        let read = read(&json!({ "deploy": effect_with(change) })).unwrap();
        let effect = read.pipeline.effects["deploy"].clone();
        (effect.root, effect.store)
    };
    assert_eq!(root(|_| ()), (Root::Empty, StoreView::Closure));
    let (image, store) = root(|e| {
        e["image"] = json!({ "reference": "busybox" });
        e["store"] = json!("whole");
    });
    assert_eq!(image.to_string(), "image docker.io/library/busybox:latest");
    assert_eq!(store, StoreView::Whole);
    let (layout, _) = root(|e| e["image"] = json!({ "layout": PLACE }));
    assert_eq!(layout, Root::Layout(InStore::parse(PLACE).unwrap()));
    let (build, _) = root(|e| {
        e["dockerfile"] = json!({ "context": PLACE, "file": null, "target": "tools",
                                      "args": { "A": "1" } });
    });
    let expected = format!("Dockerfile of {PLACE}, stage tools");
    assert_eq!(build.to_string(), expected);
}

#[test]
fn names_what_is_wrong_with_a_root() {
    let build = |file: &str, args: Value| {
        let context = "/nix/store/hp4acm5j27vjrxkv7g67dwsiqrdn44jr-d";
        json!({ "context": context, "file": file, "target": null, "args": args })
    };
    for (field, value, expected) in [
        ("image", json!({ "reference": "A B" }), "image` is no name"),
        (
            "image",
            json!({ "layout": "/tmp/x" }),
            "image` is not in the store",
        ),
        (
            "dockerfile",
            build("../x", json!({})),
            "dockerfile.file` must be a file below",
        ),
        (
            "dockerfile",
            build("/x", json!({})),
            "dockerfile.file` must be a file below",
        ),
        (
            "dockerfile",
            build("x", json!({ "A=": "1" })),
            "dockerfile.args.A=` names `A=`",
        ),
        ("store", json!("half"), "store` must be \"whole\""),
    ] {
        let message = fault(|effect| effect[field] = value);
        assert!(
            message.contains(&format!("`effects.deploy.{expected}")),
            "{message}"
        );
    }
    let both = fault(|effect| {
        effect["image"] = json!({ "reference": "busybox" });
        effect["dockerfile"] = build("Dockerfile", json!({}));
    });
    assert!(both.contains("has both `image` and `dockerfile`"), "{both}");
}

#[test]
fn names_what_is_wrong() {
    let cases = [
        (
            fault(|e| e["command"] = json!([])),
            "`effects.deploy.command` is empty",
        ),
        (fault(|e| e["command"] = json!(["a\0"])), "contains a NUL"),
        (
            fault(|e| e["after"] = json!(["x"])),
            "names `x`, which is no effect",
        ),
        (
            fault(|e| e["after"] = json!(["deploy"])),
            "deploy after deploy",
        ),
        (
            fault(|e| e["gate"] = json!(["x"])),
            "names `x`, which is no build",
        ),
        (
            fault(|e| e["timeout"] = json!({ "text": "10" })),
            "`effects.deploy.timeout` must be seconds",
        ),
        (
            fault(|e| e["timeout"] = json!({ "seconds": 0 })),
            "`effects.deploy.timeout` must be seconds",
        ),
        (
            fault(|e| e["environment"] = json!({ "A=B": "" })),
            "cannot be a variable",
        ),
        (
            fault(|e| e["secrets"] = json!({ "a/b": { "env": "A", "file": null } })),
            "cannot be a file name",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn carries_the_faults_of_nix_and_missing_facts() {
    let answer = json!({ "version": 1, "found": true, "names": [], "missing": ["tag", "rev"] });
    let error = from_json("p", answer.to_string().as_bytes()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the fact `tag` and the fact `rev`"),
        "{error}"
    );
    let faults = json!([{ "at": "groups", "message": "is not a field" }]);
    let answer = json!({ "version": 1, "found": true, "names": [], "errors": faults });
    let error = from_json("p", answer.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "pipeline `p`: `groups` is not a field");
    let answer = json!({ "version": 1, "found": false, "names": ["a", "b"] });
    let error = from_json("p", answer.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no pipeline is called `p`; there are: a, b"
    );
}
