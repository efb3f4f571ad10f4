//! What people and programs are shown of a plan.

use serde_json::Value;

use super::*;
use crate::pipeline::{Reference, Root, StoreView};
use crate::plan::closure::tests::Files;
use crate::plan::decide;
use crate::plan::effects::{Effect, Effects};
use crate::plan::tests::{graph, output, systems, wanted};

/// `app` needs `lib` (valid) and `tool` (not); `lib` needs `seed`, which nothing else does.
fn with_view(check: impl FnOnce(&View<'_>)) {
    let mut files = Files::default();
    let seed = files.add("seed", &["out"], &[]);
    let lib = files.add("lib", &["out", "dev"], &[(&seed, &["out"])]);
    let tool = files.add_with("tool", &["out"], &[], |builder| {
        builder.environment("preferLocalBuild", "1")
    });
    let app = files.add("app", &["out"], &[(&lib, &["dev"]), (&tool, &["out"])]);
    let graph = graph(&files, &[wanted(".#app", &app, &[])]);
    let valid = [output(&graph, &lib, "dev")];
    let plan = decide(&graph, &valid, &systems());
    let gate = [("app".to_owned(), graph.find(&app).unwrap())].into();
    let deploy = Effect {
        name: "deploy".to_owned(),
        gate,
        after: ["announce".to_owned()].into(),
        needs: Vec::new(),
        sources: [].into(),
        root: Root::Image(Reference::parse("busybox").unwrap()),
        store: StoreView::Whole,
    };
    let announce = Effect {
        name: "announce".to_owned(),
        after: [].into(),
        root: Root::Empty,
        store: StoreView::Closure,
        ..deploy.clone()
    };
    let effects = Effects {
        effects: vec![announce, deploy],
    };
    let evaluated = [StorePath::from_parts([1; 20], "generated.nix").unwrap()];
    check(&View {
        graph: &graph,
        plan: &plan,
        effects: &effects,
        built_while_evaluating: &evaluated,
    });
}

#[test]
fn text_says_what_and_why() {
    with_view(|view| {
        let expected = "\
2 to build, 1 valid, 1 not needed (4 derivations)
will be built, most urgent first:
  tool: out is missing, wanted by app
  app: out is missing, wanted by .#app
4 paths will be imported
built by nix while evaluating:
  /nix/store/04081040g2081040g2081040g2081040-generated.nix
effects:
  announce: once good: app
  deploy: once good: app; after: announce; root: image docker.io/library/busybox:latest; store: whole
binary caches are not consulted yet: 2 of the 2 outputs to build might have been downloaded
";
        let text = text(view, Detail::Summary);
        let evaluated = view.built_while_evaluating[0].to_string();
        let example = "/nix/store/04081040g2081040g2081040g2081040-generated.nix";
        assert_eq!(text, expected.replace(example, &evaluated));
    });
}

#[test]
fn text_of_all_has_what_is_idle() {
    with_view(|view| {
        let text = text(view, Detail::All);
        assert!(
            text.contains("  lib: valid, all wanted outputs are valid\n"),
            "{text}"
        );
        assert!(text.contains("  seed: unneeded, nothing that will be built needs it\n"));
    });
}

#[test]
fn long_lists_are_cut_in_a_summary() {
    let mut files = Files::default();
    let drvs: Vec<StorePath> = (0..30)
        .map(|at| files.add(&format!("n{at}"), &["out"], &[]))
        .collect();
    let wants: Vec<_> = drvs.iter().map(|drv| wanted("n", drv, &[])).collect();
    let graph = graph(&files, &wants);
    let plan = decide(&graph, &[], &systems());
    let effects = Effects::default();
    let view = View {
        graph: &graph,
        plan: &plan,
        effects: &effects,
        built_while_evaluating: &[],
    };
    assert!(text(&view, Detail::Summary).contains("\n  … and 10 more\n"));
    assert!(!text(&view, Detail::All).contains('…'));
}

#[test]
fn json_has_every_node() {
    with_view(|view| {
        let document: Value = serde_json::from_str(&json(view)).unwrap();
        assert_eq!(document["version"], 1);
        assert_eq!(document["counts"]["build"], 2);
        assert_eq!(document["caches"]["consulted"], false);
        assert_eq!(document["caches"]["might_have_been_downloaded"], 2);
        let nodes = document["nodes"].as_array().unwrap();
        let find = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap();
        assert_eq!(find("seed")["decision"], "unneeded");
        assert_eq!(find("lib")["decision"], "valid");
        assert_eq!(find("lib")["wanted"], serde_json::json!(["dev"]));
        assert_eq!(find("app")["decision"], "build");
        assert_eq!(
            find("app")["wanted_by"],
            serde_json::json!([{"root": ".#app"}])
        );
        assert_eq!(find("app")["missing"], serde_json::json!(["out"]));
        assert_eq!(find("app")["waits_for"][0], find("tool")["drv"]);
        assert_eq!(find("app")["inputs"].as_array().unwrap().len(), 2);
        assert_eq!(document["order"][0], find("tool")["drv"]);
        assert_eq!(document["effects"][1]["after"][0], "announce");
        let root = serde_json::json!({ "image": "docker.io/library/busybox:latest" });
        assert_eq!(document["effects"][1]["root"], root);
        assert_eq!(document["effects"][1]["store"], "whole");
        assert_eq!(document["effects"][0]["root"], "empty");
        assert!(
            document["built_while_evaluating"][0]
                .as_str()
                .unwrap()
                .starts_with("/nix/store/")
        );
    });
}

#[test]
fn the_page_of_the_plan_has_every_field_and_no_other() {
    let page = include_str!("../../../docs/json-plan.md");
    let rows = |heading: &str| -> Vec<String> {
        let section = page.split("\n## ").find(|part| part.starts_with(heading));
        let lines = section.unwrap().lines();
        let fields = lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        fields.map(str::to_owned).collect()
    };
    with_view(|view| {
        let document: Value = serde_json::from_str(&json(view)).unwrap();
        for (heading, place) in [
            ("The plan", ""),
            ("Counts", "/counts"),
            ("Caches", "/caches"),
            ("A root", "/roots/0"),
            ("A node", "/nodes/0"),
            ("An effect", "/effects/0"),
        ] {
            let object = document.pointer(place).unwrap().as_object().unwrap();
            let mut documented = rows(heading);
            documented.sort();
            let mut written: Vec<&String> = object.keys().collect();
            written.sort();
            assert_eq!(documented.iter().collect::<Vec<_>>(), written, "{heading}");
        }
    });
}

#[test]
fn dot_has_what_will_happen() {
    with_view(|view| {
        let summary = dot(view, Detail::Summary);
        assert!(summary.starts_with("digraph plan {\n"));
        assert!(summary.contains("[label=\"app\", class=build, style=solid];"));
        assert!(!summary.contains("seed"));
        assert!(summary.contains("\"effect:announce\" -> \"effect:deploy\";"));
        assert!(summary.contains("-app.drv\" -> \"effect:deploy\";"));
        assert_eq!(
            dot(view, Detail::All).matches(" [label=\"").count(),
            4 + 3 + 2
        );
    });
}
