//! The outputs of a plain file: their paths, and the identity of a fixed one.

use sha2::{Digest as _, Sha256};

use super::parts::Declared;
use crate::nix::derivation::{Modulo, OutputPaths};
use crate::nix::{CAHash, ContentAddressMethod, HashAlgorithm, Output, StorePath};

/// The outputs, and the identity of a fixed one.
pub(super) fn outputs(
    name: &str,
    declared: &[Declared<'_>],
) -> Option<(OutputPaths, Option<Modulo>)> {
    if let [output] = declared
        && !output.method.is_empty()
    {
        let (path, modulo) = fixed(name, output)?;
        let outputs = [("out", Some(path))].into_iter().collect();
        return Some((outputs, Some(modulo)));
    }
    let outputs: Option<OutputPaths> = declared
        .iter()
        .map(|output| addressed(name, output))
        .collect();
    outputs
        .filter(|_| !declared.is_empty())
        .map(|outputs| (outputs, None))
}

fn addressed<'a>(name: &str, output: &Declared<'a>) -> Option<(&'a str, Option<StorePath>)> {
    let path: StorePath = output.path.parse().ok()?;
    let is_named_right = match output.name {
        "out" => path.name() == name,
        output => {
            let rest = path.name().strip_prefix(name);
            rest.and_then(|rest| rest.strip_prefix('-')) == Some(output)
        }
    };
    if !(is_named_right && output.method.is_empty() && output.hash.is_empty()) {
        return None;
    }
    Some((output.name, Some(path)))
}

fn fixed(name: &str, output: &Declared<'_>) -> Option<(StorePath, Modulo)> {
    let (method, algorithm) = match output.method.strip_prefix("r:") {
        Some(algorithm) => (ContentAddressMethod::Nar, algorithm),
        None => (ContentAddressMethod::Flat, output.method),
    };
    let parsed: HashAlgorithm = algorithm.parse().ok()?;
    let digest = unhex(output.hash)?;
    let ca = CAHash::from_parts(method, parsed, &digest).ok()?;
    let path = Output::Fixed { ca }.path(name, "out").ok()??;
    let is_plain =
        output.name == "out" && algorithm == parsed.as_str() && output.path == path.to_string();
    let mut hash = Sha256::new();
    for part in [
        "fixed:out:",
        output.method,
        ":",
        output.hash,
        ":",
        output.path,
    ] {
        hash.update(part);
    }
    let modulo = Modulo::fixed_output(<[u8; 32]>::from(hash.finalize()));
    is_plain.then_some((path, modulo))
}

/// Reads pairs of digits as Nix writes them.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs.iter().map(byte).collect()
}
