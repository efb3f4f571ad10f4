//! What a builder is given: program, arguments, environment and files (Nix spec §4.3 to §4.5).
//!
//! A [`Recipe`] depends on the derivation, the build directory and the number of cores, and on
//! nothing of the machine. Outputs are built at their final paths, so the only rewriting is that
//! of the derivation's own placeholders. Left out: structured attributes, `impureEnvVars` and
//! whatever else [`unsupported`](super::unsupported()) refuses.

use std::collections::{BTreeMap, BTreeSet};

use nix_derivation::nixbase32;
use nix_derivation::store_path::hash_placeholder;
use sha2::{Digest, Sha256};

use super::{Error, Parsed};
use crate::nix::rewrite::Rewrites;
use crate::nix::{CAHash, STORE_DIR, StorePath};

/// Everything about a build that follows from its derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The program; it is not searched for, and a relative one starts at the build directory.
    pub builder: String,
    /// `argv` as a whole: the builder's base name, then the arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Every variable, in the order the builder finds them; no bytes but these, never a NUL.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Files of the build directory that must exist before: plain name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// What must exist afterwards, by output name. *All* outputs are built, wanted or not.
    pub outputs: BTreeMap<String, OutputSpec>,
    /// What it sees of the network.
    pub network: Network,
    /// What kind of machine the kernel claims to be.
    pub personality: Personality,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// Where the builder makes it, and where it stays.
    pub path: StorePath,
    /// For a fixed output, how its content must hash.
    pub fixed: Option<CAHash>,
}

/// What a builder sees of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// That of the machine: fixed outputs only.
    Host,
    /// A loopback interface of its own.
    Isolated,
}

/// What `uname -m` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// The truth.
    Native,
    /// A 32-bit machine (`PER_LINUX32`).
    Linux32,
}

impl Recipe {
    /// Derives the recipe. `build_dir` is the build directory as the builder sees it.
    ///
    /// # Errors
    /// An output path that is not known, or a NUL byte where the kernel takes none.
    pub fn of(parsed: &Parsed, build_dir: &str, cores: u32) -> Result<Self, Error> {
        let drv = &parsed.derivation;
        let outputs = outputs(parsed)?;
        let fixed = outputs.values().any(|output| output.fixed.is_some());
        let rewrites = placeholders(&outputs);
        let environment = Environment::new(cores)
            .attributes(parsed, build_dir, &rewrites)
            .finish(build_dir, fixed);
        let recipe = Self {
            builder: drv.builder().to_owned(),
            arguments: arguments(parsed, &rewrites),
            environment: rewritten(environment.variables, &rewrites),
            files: environment.files,
            outputs,
            network: if fixed {
                Network::Host
            } else {
                Network::Isolated
            },
            personality: match drv.system() {
                "i686-linux" => Personality::Linux32,
                _ => Personality::Native,
            },
        };
        recipe.check_nul(&parsed.path)?;
        Ok(recipe)
    }

    /// Whether the derivation has a fixed output.
    pub fn is_fixed_output(&self) -> bool {
        self.outputs.values().any(|output| output.fixed.is_some())
    }

    fn check_nul(&self, drv: &StorePath) -> Result<(), Error> {
        let names = self
            .environment
            .iter()
            .map(|(name, _)| ("variable's name", name.as_slice()));
        let values = self
            .environment
            .iter()
            .map(|(_, value)| ("environment", value.as_slice()));
        let arguments = self
            .arguments
            .iter()
            .map(|value| ("argument", value.as_slice()));
        let builder = std::iter::once(("builder", self.builder.as_bytes()));
        match names
            .chain(values)
            .chain(arguments)
            .chain(builder)
            .find(|(_, s)| s.contains(&0))
        {
            Some((field, _)) => Err(Error::NulByte {
                drv: drv.clone(),
                field: field.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

fn outputs(parsed: &Parsed) -> Result<BTreeMap<String, OutputSpec>, Error> {
    let kinds = parsed.derivation.outputs();
    parsed
        .outputs
        .iter()
        .map(|(name, path)| {
            let path = path.clone().ok_or_else(|| Error::UnknownOutputPath {
                drv: parsed.path.clone(),
                output: name.clone(),
            })?;
            let fixed = kinds
                .get(name)
                .and_then(|kind| kind.fixed_content_address().cloned());
            Ok((name.clone(), OutputSpec { path, fixed }))
        })
        .collect()
}

/// The derivation's own placeholders (Nix spec §4.4), in input- and fixed-output builds too.
fn placeholders(outputs: &BTreeMap<String, OutputSpec>) -> Rewrites {
    let mut rewrites = Rewrites::default();
    for (name, output) in outputs {
        rewrites.insert(hash_placeholder(name), output.path.to_string());
    }
    rewrites
}

fn arguments(parsed: &Parsed, rewrites: &Rewrites) -> Vec<Vec<u8>> {
    let drv = &parsed.derivation;
    let builder = drv.builder();
    let base = builder.rsplit('/').next().unwrap_or(builder);
    std::iter::once(base.as_bytes().to_vec())
        .chain(
            drv.arguments()
                .iter()
                .map(|argument| rewrites.apply(argument.as_bytes())),
        )
        .collect()
}

/// Nix rewrites `name=value` after sorting by the name as it was before.
fn rewritten(
    environment: BTreeMap<Vec<u8>, Vec<u8>>,
    rewrites: &Rewrites,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    environment
        .into_iter()
        .map(|(name, value)| (rewrites.apply(&name), rewrites.apply(&value)))
        .collect()
}

/// The environment while it is put together: later steps override earlier ones.
struct Environment {
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    files: Vec<(String, Vec<u8>)>,
}

impl Environment {
    fn new(cores: u32) -> Self {
        let mut environment = Self {
            variables: BTreeMap::new(),
            files: Vec::new(),
        };
        environment.set("PATH", "/path-not-set");
        environment.set("HOME", "/homeless-shelter");
        environment.set("NIX_STORE", STORE_DIR);
        environment.set("NIX_BUILD_CORES", cores.to_string());
        environment
    }

    fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.variables
            .insert(name.as_bytes().to_vec(), value.as_ref().to_vec());
    }

    fn attributes(mut self, parsed: &Parsed, build_dir: &str, rewrites: &Rewrites) -> Self {
        let attributes = parsed.derivation.environment();
        let as_file: BTreeSet<&[u8]> = attributes
            .get("passAsFile")
            .map(|value| value.split(|byte| b" \t\n\r".contains(byte)).collect())
            .unwrap_or_default();
        for (name, value) in attributes {
            if as_file.contains(name.as_bytes()) {
                let digest = Sha256::digest(name.as_bytes());
                let file = format!(".attr-{}", nixbase32::encode(&digest));
                self.set(&format!("{name}Path"), format!("{build_dir}/{file}"));
                self.files.push((file, rewrites.apply(value)));
            } else {
                self.set(name, value);
            }
        }
        self
    }

    fn finish(mut self, build_dir: &str, fixed: bool) -> Self {
        for name in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
            self.set(name, build_dir);
        }
        if fixed {
            self.set("NIX_OUTPUT_CHECKED", "1");
        }
        self.set("NIX_LOG_FD", "2");
        self.set("TERM", "xterm-256color");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::super::tests::vector;
    use super::*;

    fn recipe_of(name: &str, change: impl Fn(String) -> String) -> Result<Recipe, Error> {
        let (path, bytes) = vector(name);
        let bytes = change(String::from_utf8(bytes).unwrap());
        Recipe::of(&decode(&path, bytes.as_bytes()).unwrap(), "/build", 1)
    }

    fn recipe(name: &str) -> Recipe {
        recipe_of(name, |text| text).unwrap()
    }

    fn environment(recipe: &Recipe) -> String {
        recipe
            .environment
            .iter()
            .fold(String::new(), |text, (name, value)| {
                let name = String::from_utf8_lossy(name);
                text + &format!("{name}={}\n", String::from_utf8_lossy(value))
            })
    }

    #[test]
    fn environment_is_what_a_builder_of_nix_saw() {
        // The content of the vector's output, made by Nix.
        let expected = "HOME=/overridden\nNIX_BUILD_CORES=1\nNIX_BUILD_TOP=/build\nNIX_LOG_FD=2\n\
            NIX_STORE=/nix/store\nPATH=/bin\nPWD=/build\nTEMP=/build\nTEMPDIR=/build\n\
            TERM=xterm-256color\nTMP=/build\nTMPDIR=/build\nZ=last\na=lower\nbuilder=/bin/sh\n\
            name=env-dump\nout=/nix/store/ppkhmmifh5s6nn8hgihbyniy3fw6q4dg-env-dump\n\
            system=x86_64-linux\n";
        let recipe = recipe("env-dump");
        assert_eq!(environment(&recipe), expected);
        assert_eq!(recipe.network, Network::Isolated);
        assert_eq!(recipe.personality, Personality::Native);
        assert_eq!(recipe.arguments[..3], [&b"sh"[..], b"-e", b"-c"]);
    }

    #[test]
    fn attributes_passed_as_files_are_files() {
        let recipe = recipe("pass-file");
        let big = ".attr-1lak0mvllw8rv9i9ygkglvhqsq19qi9ynl4bi7gbf69ab5nzw89a";
        let small = ".attr-0c41b8ldiqfvr7ibjdm2gmaay20cdsvr5am6sim6r766pfxqxnw1";
        let content = b"B /nix/store/f210kq1k7qa29dy2czc1sj1yw21y6940-pass-file B\n".to_vec();
        assert_eq!(
            recipe.files,
            [(big.to_owned(), content), (small.to_owned(), Vec::new())]
        );
        let environment = environment(&recipe);
        assert!(environment.contains(&format!("\nbigPath=/build/{big}\n")));
        assert!(environment.contains(&format!("\nsmallPath=/build/{small}\n")));
        assert!(environment.contains("\npassAsFile=big small\n"));
        assert!(!environment.contains("\nbig="));
    }

    #[test]
    fn own_placeholders_become_paths_in_names_values_and_arguments() {
        let placeholder = hash_placeholder("out");
        let out = "/nix/store/k0fma2f8wp2dq7zg22g5ihczkf6w6q56-placeholders";
        let recipe = recipe_of("placeholders", |text| {
            text.replacen("(\"a\",", &format!("(\"{placeholder}\",\"v\"),(\"a\","), 1)
        })
        .unwrap();
        assert!(environment(&recipe).contains(&format!("\na=pre-{out}/sub-post\n")));
        assert!(environment(&recipe).starts_with(&format!("{out}=v\n")));
        assert_eq!(
            recipe.arguments[3],
            format!("echo \"$a|{out}\" > $out").as_bytes()
        );
    }

    #[test]
    fn raw_bytes_reach_the_builder() {
        let (path, bytes) = vector("raw-bytes");
        let recipe = Recipe::of(&decode(&path, &bytes).unwrap(), "/build", 4).unwrap();
        assert!(
            recipe
                .environment
                .iter()
                .any(|(_, value)| value.contains(&0xff))
        );
        assert!(environment(&recipe).contains("NIX_BUILD_CORES=4\n"));
    }

    #[test]
    fn fixed_outputs_have_network_and_a_hash() {
        let recipe = recipe("fod-rec");
        assert!(recipe.is_fixed_output());
        assert_eq!(recipe.network, Network::Host);
        assert!(environment(&recipe).contains("NIX_OUTPUT_CHECKED=1\n"));
        assert!(matches!(recipe.outputs["out"].fixed, Some(CAHash::Nar(_))));
    }

    #[test]
    fn a_32_bit_system_has_its_personality() {
        assert_eq!(recipe("i686").personality, Personality::Linux32);
    }

    #[test]
    fn a_nul_byte_is_refused() {
        let error = recipe_of("env-dump", |text| text.replacen("last", "la\0st", 1)).unwrap_err();
        assert!(matches!(error, Error::NulByte { .. }));
    }

    #[test]
    fn unknown_output_paths_are_refused() {
        let error = recipe_of("ca", |text| text).unwrap_err();
        assert!(matches!(error, Error::UnknownOutputPath { .. }));
    }
}
