//! A graph of derivations with nixpkgs' shape, made without evaluating anything.
//!
//! What makes planning slow is not how many derivations there are but what is in them: how much
//! text, how many inputs, how deep. So the graph has what that of a desktop system has, and says
//! so: the full one is asserted to be [`DESKTOP`].
//!
//! ```text
//! layer 0    bash, which fails when it is built, so that an import can be timed alone
//! layer n    packages: each needs one of layer n - 1, bash, stdenv, and libraries from below
//! beside     every second package has a source, a fixed output that bash and curl fetch
//! ```
//!
//! A third of each layer are roots, which nobody needs; all others are needed. The texts are noise
//! of a fixed seed, with as many quotes and lines as shell has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use fs_err as fs;
use nix_derivation::{
    CAHash, ContentAddressMethod, Derivation, DerivationBuilder, HashAlgorithm, InputDerivation,
    InputDerivationHash, Output, StoreDir, StorePath,
};
use sha2::{Digest as _, Sha256};

/// How many derivations the full graph has.
pub const SIZE: usize = 27_773;

/// What the full graph is.
pub const DESKTOP: Facts = Facts {
    derivations: SIZE,
    roots: 6_028,
    edges: 248_348,
    depth: 244,
    fixed: 9_257,
    bytes: 84_114_736,
};

const LAYERS: usize = 241;
/// Bytes of a builder's text, on average: they bring the average file to 3 kB.
const TEXT: usize = 820;
const SYSTEM: &str = "x86_64-linux";

/// What a graph is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many derivations.
    pub derivations: usize,
    /// Those that nobody needs.
    pub roots: usize,
    /// How often one needs another.
    pub edges: usize,
    /// Derivations on the longest way down.
    pub depth: usize,
    /// Fixed outputs.
    pub fixed: usize,
    /// Of all `.drv` files.
    pub bytes: usize,
}

/// A graph in a store.
pub struct Graph {
    /// Paths of the roots' `.drv` files.
    pub roots: Vec<String>,
    /// What it is.
    pub facts: Facts,
}

/// A derivation that is in the store.
struct Made {
    path: StorePath,
    outputs: BTreeMap<String, StorePath>,
    hash: InputDerivationHash,
    depth: usize,
}

/// Writes a graph into a new store, and has `load` (`nix-store --load-db`) register it.
pub fn make(root: &Path, size: usize, load: &mut Command) -> Graph {
    let store = root.join("nix/store");
    fs::create_dir_all(&store).expect("the directory is ours");
    let mut maker = Maker {
        store: &store,
        registrations: String::new(),
        noise: Noise(1),
        facts: Facts::default(),
    };
    let roots = maker.graph(size);
    register(load, &maker.registrations);
    if size == SIZE {
        assert_eq!(maker.facts, DESKTOP);
    }
    Graph {
        roots,
        facts: maker.facts,
    }
}

/// Nix checks every output path when it registers a derivation, so the graph is a real one.
fn register(load: &mut Command, registrations: &str) {
    let mut child = load.stdin(Stdio::piped()).spawn().expect("nix starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(registrations.as_bytes())
        .expect("nix reads");
    drop(stdin);
    let ended = child.wait().expect("nix was started");
    assert!(ended.success(), "nix refuses the graph");
}

struct Maker<'a> {
    store: &'a Path,
    /// What `nix-store --load-db` reads.
    registrations: String,
    noise: Noise,
    facts: Facts,
}

impl Maker<'_> {
    fn graph(&mut self, size: usize) -> Vec<String> {
        let sources = size / 3;
        let count = size - sources;
        let layers = LAYERS.min(count / 8);
        let script = self.write(
            "default-builder.sh",
            b"source $stdenv/setup\ngenericBuild\n",
            &[],
        );
        let wanted = size * DESKTOP.roots / SIZE;
        // Layer 0 is one package; the others share the rest.
        let begins = |layer: usize| match layer {
            0 => 0,
            _ => 1 + (layer - 1) * (count - 1) / (layers - 1),
        };
        let last = begins(layers) - begins(layers - 1);
        // The last layer has nothing but roots, the others what remains.
        let before = |layer: usize| (wanted - last) * layer.saturating_sub(1) / (layers - 2);
        let (mut needed, mut roots) = (Vec::new(), Vec::new());
        let mut below = 0..0;
        for layer in 0..layers {
            let width = begins(layer + 1) - begins(layer);
            let free = match layer {
                0 => 0,
                _ if layer + 1 == layers => width,
                _ => before(layer + 1) - before(layer),
            };
            let first = needed.len();
            let mut made = Vec::new();
            for at in 0..width {
                let number = begins(layer) + at;
                let has_source = number * sources / count < (number + 1) * sources / count;
                let source = has_source.then(|| self.source(number, &needed));
                made.push(self.package(number, at, &below, &needed, source.as_ref(), &script));
            }
            for (at, package) in made.into_iter().enumerate() {
                if at < width - free {
                    needed.push(package);
                } else {
                    roots.push(package.path.to_string());
                }
            }
            below = first..needed.len();
        }
        self.facts.roots = roots.len();
        roots
    }

    /// A package of a layer: `below` are those of the layer below among all that are `needed`.
    fn package(
        &mut self,
        number: usize,
        at: usize,
        below: &Range<usize>,
        needed: &[Made],
        source: Option<&Made>,
        script: &StorePath,
    ) -> Made {
        let mut inputs: BTreeSet<usize> = tools(needed).collect();
        if !below.is_empty() {
            inputs.insert(below.start + at % below.len());
            for _ in 0..2 + self.noise.below(12) {
                inputs.insert(self.noise.below(needed.len()));
            }
        }
        let inputs: Vec<&Made> = inputs.iter().map(|&at| &needed[at]).chain(source).collect();
        let name = format!("package-{number}-1.{}", self.noise.below(40));
        let mut builder = builder(&name).input_source(script.clone());
        for output in ["out", "dev", "man"].iter().take(1 + number % 3) {
            builder = builder.input_addressed_output(*output);
        }
        for (index, variable) in VARIABLES.iter().enumerate() {
            let few = self.noise.below(4);
            let value = if index % 3 == 0 {
                self.noise.words(few)
            } else {
                String::new()
            };
            builder = builder.environment(*variable, value);
        }
        let paths: Vec<String> = inputs
            .iter()
            .map(|made| made.outputs["out"].to_string())
            .collect();
        let length = TEXT / 2 + self.noise.below(TEXT);
        builder = builder
            .argument("-e")
            .argument(script.to_string())
            .environment("buildInputs", paths.join(" "))
            .environment("installPhase", self.noise.shell(length));
        self.add(builder, &inputs)
    }

    /// What bash and curl fetch for a package.
    fn source(&mut self, number: usize, needed: &[Made]) -> Made {
        let digest: [u8; 32] = Sha256::digest(number.to_le_bytes()).into();
        let ca = CAHash::from_parts(ContentAddressMethod::Flat, HashAlgorithm::Sha256, &digest)
            .expect("a digest of this algorithm");
        let name = format!("package-{number}.tar.xz");
        let inputs: Vec<&Made> = tools(needed).map(|at| &needed[at]).collect();
        let mut builder = builder(&name)
            .output("out", Output::Fixed { ca })
            .environment("outputHashAlgo", "sha256")
            .environment(
                "outputHash",
                digest
                    .iter()
                    .fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
            )
            .environment("outputHashMode", "flat")
            .environment(
                "urls",
                format!("https://example.org/{name} mirror://example/{name}"),
            );
        let length = TEXT / 2;
        builder = builder.environment("postFetch", self.noise.shell(length));
        self.facts.fixed += 1;
        self.add(builder, &inputs)
    }

    /// Writes a derivation and registers it.
    fn add(&mut self, mut builder: DerivationBuilder, inputs: &[&Made]) -> Made {
        for (index, input) in inputs.iter().enumerate() {
            let mut wanted = InputDerivation::new(["out"]);
            if index % 2 == 1 && input.outputs.contains_key("dev") {
                wanted.insert_output("dev");
            }
            builder = builder.input_derivation(input.path.clone(), wanted);
        }
        let hashes: BTreeMap<&StorePath, InputDerivationHash> = inputs
            .iter()
            .map(|input| (&input.path, input.hash))
            .collect();
        let derivation = builder
            .build_with_input_hashes(|path| hashes[path])
            .expect("what is made here is valid");
        let derivation: &Derivation = derivation.as_derivation();
        let bytes = derivation.to_aterm_bytes();
        let references: Vec<&StorePath> = derivation
            .input_derivations()
            .keys()
            .chain(derivation.input_sources())
            .collect();
        let path = self.write(&format!("{}.drv", derivation.name()), &bytes, &references);
        let depth = 1 + inputs.iter().map(|input| input.depth).max().unwrap_or(0);
        self.facts.derivations += 1;
        self.facts.edges += inputs.len();
        self.facts.depth = self.facts.depth.max(depth);
        self.facts.bytes += bytes.len();
        let outputs = derivation.resolved_outputs().expect("they were checked");
        Made {
            path,
            outputs: outputs
                .into_iter()
                .map(|(name, output)| (name, output.path.expect("known before the build")))
                .collect(),
            hash: derivation
                .hash_input_derivation_modulo(|path| hashes[path])
                .expect("it was checked"),
            depth,
        }
    }

    /// Writes a file into the store, as Nix does, and notes what is to be registered.
    fn write(&mut self, name: &str, bytes: &[u8], references: &[&StorePath]) -> StorePath {
        let path = StoreDir::default()
            .build_text_path(name, bytes, references.iter().copied())
            .expect("the name is fine");
        let file = self.store.join(path.to_basename());
        fs::write(&file, bytes).expect("the store is ours");
        canonical(&file);
        let nar = archive(bytes);
        let lines = &mut self.registrations;
        let hash: [u8; 32] = Sha256::digest(&nar).into();
        writeln!(lines, "{path}").expect("a string takes all");
        for byte in hash {
            write!(lines, "{byte:02x}").expect("a string takes all");
        }
        write!(lines, "\n{}\n\n{}\n", nar.len(), references.len()).expect("a string takes all");
        for reference in references {
            writeln!(lines, "{reference}").expect("a string takes all");
        }
        path
    }
}

/// Bash, curl and stdenv, as far as they are there.
fn tools(needed: &[Made]) -> impl Iterator<Item = usize> + use<> {
    let count = needed.len();
    [0, 120, 300].into_iter().filter(move |&at| at < count)
}

fn builder(name: &str) -> DerivationBuilder {
    DerivationBuilder::new(name, SYSTEM, "/bin/false")
        .environment("name", name)
        .environment("system", SYSTEM)
        .environment("builder", "/bin/false")
}

/// Nix takes files that everybody may read and nobody write, from the beginning of time.
fn canonical(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let handle = fs::File::open(file).expect("it was just written");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    handle.file().set_modified(time).expect("it is ours");
    let mode = std::fs::Permissions::from_mode(0o444);
    fs::set_permissions(file, mode).expect("it is ours");
}

/// The archive of a file.
fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::with_capacity(bytes.len() + 120);
    let parts: [&[u8]; 7] = [
        b"nix-archive-1",
        b"(",
        b"type",
        b"regular",
        b"contents",
        bytes,
        b")",
    ];
    for part in parts {
        archive.extend_from_slice(&(part.len() as u64).to_le_bytes());
        archive.extend_from_slice(part);
        archive.resize(archive.len().next_multiple_of(8), 0);
    }
    archive
}

/// Variables that nearly every package of nixpkgs has.
const VARIABLES: [&str; 24] = [
    "cmakeFlags",
    "configureFlags",
    "depsBuildBuild",
    "depsBuildBuildPropagated",
    "depsBuildTarget",
    "depsBuildTargetPropagated",
    "depsHostHost",
    "depsHostHostPropagated",
    "depsTargetTarget",
    "depsTargetTargetPropagated",
    "doCheck",
    "doInstallCheck",
    "enableParallelBuilding",
    "makeFlags",
    "mesonFlags",
    "nativeBuildInputs",
    "outputs",
    "patches",
    "pname",
    "postPatch",
    "propagatedBuildInputs",
    "propagatedNativeBuildInputs",
    "strictDeps",
    "version",
];

/// Numbers and texts that are the same each time (`SplitMix64`).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a usize has 64 bits");
        usize::try_from(self.next() % bound).expect("it is below a usize")
    }

    fn words(&mut self, count: usize) -> String {
        let words = (0..count).map(|_| format!("--with-{:x}", self.below(1 << 24)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Lines of shell, about so many bytes.
    fn shell(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            let words = self.words(3);
            text.push_str("if [ -n \"$prefix\" ]; then\n  make install ");
            text.push_str(&words);
            text.push_str("\nfi\n");
        }
        text
    }
}
