//! What is refused, and by which name.

use super::super::decode;
use super::super::tests::vector;
use super::*;

fn systems() -> Systems {
    Systems::x86_64_linux(Level::V2, Kvm::Absent)
}

fn of_vector(name: &str) -> Option<Unsupported> {
    let (path, bytes) = vector(name);
    unsupported(&decode(&path, &bytes).unwrap().derivation, &systems())
}

/// The vector `name` with one more variable, and the text `from` replaced by `to`.
fn changed(name: &str, variable: (&str, &str), from: &str, to: &str) -> Option<Unsupported> {
    let (path, bytes) = vector(name);
    let text = String::from_utf8(bytes).unwrap().replacen(from, to, 1);
    let text = text.strip_suffix("])").unwrap();
    let text = format!("{text},({:?},{:?})])", variable.0, variable.1);
    unsupported(
        &decode(&path, text.as_bytes()).unwrap().derivation,
        &systems(),
    )
}

fn with(name: &str, value: &str) -> Option<Unsupported> {
    changed("simple", (name, value), "", "")
}

#[test]
fn ordinary_and_fixed_derivations_are_supported() {
    for name in [
        "simple",
        "multi",
        "deps",
        "fod-flat",
        "fod-rec",
        "fod-sha512",
        "i686",
    ] {
        // Some vectors occur twice under one name; either will do.
        assert_eq!(of_vector(name), None, "{name}");
    }
}

#[test]
fn what_vectors_ask_for_is_refused_by_name() {
    assert_eq!(of_vector("ca"), Some(Unsupported::ContentAddressed));
    assert_eq!(of_vector("impure"), Some(Unsupported::Impure));
    assert_eq!(of_vector("deferred2"), Some(Unsupported::Deferred));
    assert_eq!(
        of_vector("structured"),
        Some(Unsupported::StructuredAttributes)
    );
    assert_eq!(
        of_vector("ref-graph"),
        Some(Unsupported::ExportReferencesGraph)
    );
    assert!(matches!(
        of_vector("fetch-file"),
        Some(Unsupported::Builtin { .. })
    ));
    let attribute = "allowedReferences";
    assert_eq!(
        of_vector("bad-allowed-refs"),
        Some(Unsupported::OutputCheck { attribute })
    );
    let attribute = "disallowedRequisites";
    assert_eq!(
        of_vector("bad-disallowed-req"),
        Some(Unsupported::OutputCheck { attribute })
    );
}

#[test]
fn a_dynamic_input_is_refused() {
    let (path, bytes) = vector("dep-dev-only");
    let text = String::from_utf8(bytes).unwrap();
    let text = text
        .replacen("Derive(", "DrvWithVersion(\"xp-dyn-drv\",", 1)
        .replacen(r#"["dev"]"#, r#"([],[("dev",["out"])])"#, 1);
    let parsed = decode(&path, text.as_bytes()).unwrap();
    assert_eq!(
        unsupported(&parsed.derivation, &systems()),
        Some(Unsupported::Dynamic)
    );
}

#[test]
fn attributes_are_refused_by_name() {
    assert_eq!(with("__noChroot", "1"), Some(Unsupported::NoChroot));
    assert_eq!(with("__noChroot", ""), None);
    assert_eq!(
        with("__impureHostDeps", "/dev/x"),
        Some(Unsupported::ImpureHostDeps)
    );
    for attribute in ["allowedReferences", "allowedRequisites"] {
        assert_eq!(
            with(attribute, ""),
            Some(Unsupported::OutputCheck { attribute })
        );
    }
    for attribute in ["disallowedReferences", "disallowedRequisites"] {
        assert_eq!(with(attribute, " "), None);
        assert_eq!(
            with(attribute, "out"),
            Some(Unsupported::OutputCheck { attribute })
        );
    }
    assert_eq!(with("exportReferencesGraph", " "), None);
}

#[test]
fn variables_of_the_caller_are_refused_where_they_would_be_given() {
    assert_eq!(with("impureEnvVars", "http_proxy"), None);
    let fixed = changed("fod-flat", ("impureEnvVars", "http_proxy"), "", "");
    assert_eq!(fixed, Some(Unsupported::ImpureEnvVars));
}

#[test]
fn features_and_systems_that_are_not_there_are_refused() {
    assert_eq!(
        with("requiredSystemFeatures", "big-parallel benchmark"),
        None
    );
    let refused = with("requiredSystemFeatures", "big-parallel kvm").unwrap();
    assert_eq!(
        refused.to_string(),
        "it requires the system features `kvm`, which this machine does not have"
    );
    let other = |system| changed("simple", ("x", ""), "\"x86_64-linux\"", system);
    assert_eq!(other("\"x86_64-v2-linux\""), None);
    let refused = other("\"x86_64-v3-linux\"").unwrap().to_string();
    assert_eq!(
        refused,
        "it is for system `x86_64-v3-linux`; this machine builds for `i686-linux`, \
             `x86_64-linux`, `x86_64-v1-linux`, `x86_64-v2-linux`"
    );
}
