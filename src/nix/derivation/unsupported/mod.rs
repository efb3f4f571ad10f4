//! What a derivation may ask for that is not built yet, each thing by its name.
//!
//! Asked before anything runs, and only of derivations that must be built: a valid output is fine
//! whatever made it. What Nix itself ignores is ignored here too: `impureEnvVars` of a derivation
//! without a fixed output, blank lists where a blank list means nothing.

use std::collections::{BTreeMap, BTreeSet};

use nix_derivation::StructuredAttrs;

use crate::nix::{ContentAddressMethod, Derivation, Output};

/// Which systems and features there are to build for and with (Nix spec §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Systems {
    /// Values of `system` that can be built.
    pub names: BTreeSet<String>,
    /// What `requiredSystemFeatures` may name.
    pub features: BTreeSet<String>,
}

/// The `x86_64` microarchitecture level of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every `x86_64` processor.
    V1,
    /// With SSE4.2 and what goes with it.
    V2,
    /// With AVX2 and what goes with it.
    V3,
}

/// Whether builders can use `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kvm {
    /// It can be read and written.
    Usable,
    /// It is not there, or not for us.
    Absent,
}

impl Systems {
    /// What Nix supports by default on an `x86_64-linux` machine.
    pub fn x86_64_linux(level: Level, kvm: Kvm) -> Self {
        let levels = [
            (Level::V1, "x86_64-v1-linux"),
            (Level::V2, "x86_64-v2-linux"),
            (Level::V3, "x86_64-v3-linux"),
        ];
        let levels = levels.into_iter().filter(|(needed, _)| *needed <= level);
        let names = ["x86_64-linux", "i686-linux"]
            .into_iter()
            .chain(levels.map(|(_, name)| name));
        let kvm = (kvm == Kvm::Usable).then_some("kvm");
        let features = ["nixos-test", "benchmark", "big-parallel"]
            .into_iter()
            .chain(kvm);
        Self {
            names: names.map(ToOwned::to_owned).collect(),
            features: features.map(ToOwned::to_owned).collect(),
        }
    }
}

/// Something a derivation asks for that is not built yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The path of an output follows from its content.
    #[error("its outputs are content-addressed (`__contentAddressed`), which is not supported yet")]
    ContentAddressed,
    /// Every build makes new outputs.
    #[error("it is impure (`__impure`), which is not supported yet")]
    Impure,
    /// An input is a derivation that another derivation builds.
    #[error("it depends on a derivation that is built first (dynamic), which is not supported yet")]
    Dynamic,
    /// Its output paths follow from inputs that must be built first.
    #[error("its output paths depend on content-addressed inputs, which is not supported yet")]
    Deferred,
    /// A fixed output is hashed in a way that is not supported.
    #[error("its output is hashed by method `{method}`, which is not supported yet")]
    FixedMethod {
        /// The method's name.
        method: String,
    },
    /// It runs inside the build program.
    #[error("its builder `{builder}` is built into Nix, which is not supported yet")]
    Builtin {
        /// The builder.
        builder: String,
    },
    /// It is for another kind of machine.
    #[error(
        "it is for system `{system}`; this machine builds for {}",
        list(supported)
    )]
    System {
        /// What it asks for.
        system: String,
        /// What there is.
        supported: BTreeSet<String>,
    },
    /// It needs a machine with properties that this one does not have.
    #[error(
        "it requires the system features {}, which this machine does not have",
        list(missing)
    )]
    Features {
        /// Those it asks for and there are not.
        missing: BTreeSet<String>,
    },
    /// It wants to run without a sandbox.
    #[error("it asks to be built without a sandbox (`__noChroot`), which is refused")]
    NoChroot,
    /// It wants to see paths of the machine.
    #[error("it asks for paths of the machine (`__impureHostDeps`), which is refused")]
    ImpureHostDeps,
    /// Its environment is to hold variables of the caller.
    #[error("it asks for variables of the caller (`impureEnvVars`), which is not supported yet")]
    ImpureEnvVars,
    /// What its outputs refer to, or their size, is to be checked.
    #[error("it asks for a check of its outputs (`{attribute}`), which is not supported yet")]
    OutputCheck {
        /// The attribute that asks.
        attribute: &'static str,
    },
    /// Its builder is to be given descriptions of closures.
    #[error("it asks for `exportReferencesGraph`, which is not supported yet")]
    ExportReferencesGraph,
    /// Its attributes are given as JSON.
    #[error("it uses structured attributes (`__structuredAttrs`), which is not supported yet")]
    StructuredAttributes,
}

fn list(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The first thing, in a fixed order, that `drv` asks for and that is not built.
pub fn unsupported(drv: &Derivation, systems: &Systems) -> Option<Unsupported> {
    Demands::of(drv).unsupported(drv.system(), systems)
}

/// What a derivation asks of who builds it, as far as it may be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demands {
    /// What no machine has, whatever its system.
    first: Option<Box<Unsupported>>,
    /// What the machine must have, sorted.
    features: Box<[String]>,
    /// What no machine of its system has.
    then: Option<Box<Unsupported>>,
}

impl Demands {
    /// Reads them.
    pub fn of(drv: &Derivation) -> Self {
        let mut kinds = drv.outputs().values();
        let fixed = kinds.any(|output| output.fixed_content_address().is_some());
        let mut demands = Self::of_plain(drv.builder(), fixed, Attributes::of(drv));
        if let Some(first) = outputs(drv) {
            demands.first = Some(Box::new(first));
        }
        demands
    }

    /// Reads those of a derivation whose inputs and outputs are nothing special.
    pub(super) fn of_plain(builder: &str, fixed: bool, attributes: Attributes<'_>) -> Self {
        let features: BTreeSet<String> = attributes
            .strings("requiredSystemFeatures")
            .unwrap_or_default()
            .into_iter()
            .collect();
        let then = isolation(attributes, fixed)
            .or_else(|| checks(attributes))
            .or_else(|| structured(attributes))
            .or_else(|| exported(attributes));
        Self {
            first: builtin(builder).map(Box::new),
            features: features.into_iter().collect(),
            then: then.map(Box::new),
        }
    }

    /// The first thing, in a fixed order, that there is not.
    pub fn unsupported(&self, system: &str, systems: &Systems) -> Option<Unsupported> {
        self.first
            .as_deref()
            .cloned()
            .or_else(|| self.machine(system, systems))
            .or_else(|| self.then.as_deref().cloned())
    }

    fn machine(&self, system: &str, systems: &Systems) -> Option<Unsupported> {
        if !systems.names.contains(system) {
            return Some(Unsupported::System {
                system: system.to_owned(),
                supported: systems.names.clone(),
            });
        }
        let missing = self
            .features
            .iter()
            .filter(|feature| !systems.features.contains(*feature));
        let missing: BTreeSet<String> = missing.cloned().collect();
        (!missing.is_empty()).then_some(Unsupported::Features { missing })
    }
}

fn outputs(drv: &Derivation) -> Option<Unsupported> {
    if drv
        .input_derivations()
        .values()
        .any(nix_derivation::InputDerivation::is_dynamic)
    {
        return Some(Unsupported::Dynamic);
    }
    drv.outputs().values().find_map(|output| match output {
        Output::InputAddressed { .. } => None,
        Output::Fixed { ca } => match ca.method() {
            ContentAddressMethod::Flat | ContentAddressMethod::Nar => None,
            method => Some(Unsupported::FixedMethod {
                method: method.to_string(),
            }),
        },
        Output::Floating { .. } => Some(Unsupported::ContentAddressed),
        Output::Deferred => Some(Unsupported::Deferred),
        Output::Impure { .. } => Some(Unsupported::Impure),
    })
}

fn builtin(builder: &str) -> Option<Unsupported> {
    builder
        .starts_with("builtin:")
        .then(|| Unsupported::Builtin {
            builder: builder.to_owned(),
        })
}

fn structured(attributes: Attributes<'_>) -> Option<Unsupported> {
    matches!(attributes, Attributes::Structured(_)).then_some(Unsupported::StructuredAttributes)
}

fn isolation(attributes: Attributes<'_>, fixed: bool) -> Option<Unsupported> {
    let asks = |name| {
        let values = attributes.strings(name);
        values.is_some_and(|values| !values.is_empty())
    };
    if attributes.is_true("__noChroot") {
        Some(Unsupported::NoChroot)
    } else if asks("__impureHostDeps") {
        Some(Unsupported::ImpureHostDeps)
    } else if fixed && asks("impureEnvVars") {
        Some(Unsupported::ImpureEnvVars)
    } else {
        None
    }
}

fn checks(attributes: Attributes<'_>) -> Option<Unsupported> {
    let variables = match attributes {
        Attributes::Structured(attributes) => {
            // Nix spec §5.9: the lists at the top mean nothing here.
            let attribute = "outputChecks";
            return attributes
                .get(attribute)
                .map(|_| Unsupported::OutputCheck { attribute });
        }
        Attributes::Variables(variables) => variables,
    };
    // An empty `allowed…` list allows nothing; an empty `disallowed…` list forbids nothing.
    let allowed = ["allowedReferences", "allowedRequisites"]
        .into_iter()
        .find(|name| asked(variables, name).is_some());
    let disallowed = ["disallowedReferences", "disallowedRequisites"]
        .into_iter()
        .find(|name| {
            let values = attributes.strings(name);
            values.is_some_and(|values| !values.is_empty())
        });
    allowed
        .or(disallowed)
        .map(|attribute| Unsupported::OutputCheck { attribute })
}

fn exported(attributes: Attributes<'_>) -> Option<Unsupported> {
    let asked = attributes
        .strings("exportReferencesGraph")
        .filter(|values| !values.is_empty());
    asked.map(|_| Unsupported::ExportReferencesGraph)
}

/// Where a derivation says what it asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attributes<'a> {
    /// In JSON.
    Structured(&'a StructuredAttrs),
    /// In variables; of these, none matters but [`ASKED`].
    Variables(&'a BTreeMap<String, Vec<u8>>),
}

/// Every variable that [`Attributes`] are asked for, sorted.
pub(super) const ASKED: [&str; 10] = [
    "__impureHostDeps",
    "__noChroot",
    "allowSubstitutes",
    "allowedReferences",
    "allowedRequisites",
    "disallowedReferences",
    "disallowedRequisites",
    "exportReferencesGraph",
    "impureEnvVars",
    "requiredSystemFeatures",
];

impl<'a> Attributes<'a> {
    pub(super) fn of(drv: &'a Derivation) -> Self {
        match drv.structured_attrs() {
            Some(attributes) => Self::Structured(attributes),
            None => Self::Variables(drv.environment()),
        }
    }

    /// An attribute that is a list: from JSON, or a variable's words (Nix spec §4.6).
    fn strings(self, name: &str) -> Option<Vec<String>> {
        match self {
            Self::Structured(attributes) => attributes.get(name)?.as_array().map(|values| {
                values
                    .iter()
                    .filter_map(|value| value.as_str().map(ToOwned::to_owned))
                    .collect()
            }),
            Self::Variables(variables) => asked(variables, name).map(words),
        }
    }

    fn is_true(self, name: &str) -> bool {
        self.bool(name) == Some(true)
    }

    /// An attribute that is a truth value; a variable is true if it is `1`.
    pub(super) fn bool(self, name: &str) -> Option<bool> {
        match self {
            Self::Structured(attributes) => attributes.get(name)?.as_bool(),
            Self::Variables(variables) => asked(variables, name).map(|value| value == b"1"),
        }
    }
}

fn asked<'a>(variables: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Option<&'a [u8]> {
    debug_assert!(ASKED.contains(&name), "`{name}` is not among those kept");
    variables.get(name).map(Vec::as_slice)
}

fn words(value: &[u8]) -> Vec<String> {
    value
        .split(|byte| b" \t\n\r".contains(byte))
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

#[cfg(test)]
mod tests;
