//! A setting of the installed nix that builds here follow: `sandbox-paths`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::settings::SandboxPath;

/// Why a setting is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run.
    #[error("cannot run `{program}`")]
    Run {
        /// What.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It failed.
    #[error("`nix show-config` fails: {said}")]
    Failed {
        /// What it says, each time it was asked.
        said: String,
    },
    /// Its answer is not what every version answers.
    #[error("`nix show-config` answers something else: {reason}")]
    Answer {
        /// Where it differs.
        reason: String,
    },
}

/// Asks nix for `sandbox-paths`, with settings as given on the command line. Newer versions have
/// renamed the command and still know it by its old name, or say that they do not.
pub fn sandbox_paths(nix: &Path, options: &[(String, String)]) -> Result<Vec<SandboxPath>, Error> {
    let mut said = vec![];
    for words in [&["show-config"][..], &["config", "show"]] {
        let output = Command::new(nix)
            .args(words)
            .args(["--json", "--extra-experimental-features", "nix-command"])
            .args(
                options
                    .iter()
                    .flat_map(|(name, value)| ["--option", name, value]),
            )
            .output()
            .map_err(|source| Error::Run {
                program: nix.display().to_string(),
                source,
            })?;
        if output.status.success() {
            return parse(&output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        said.extend(text.lines().next().map(str::to_owned));
    }
    Err(Error::Failed {
        said: said.join("; "),
    })
}

/// Reads the setting: a list of texts, or in newer versions what each target comes from.
fn parse(answer: &[u8]) -> Result<Vec<SandboxPath>, Error> {
    let fail = |reason: String| Error::Answer { reason };
    let answer: Value = serde_json::from_slice(answer).map_err(|error| fail(error.to_string()))?;
    let texts: Option<Vec<String>> = match &answer["sandbox-paths"]["value"] {
        Value::Array(texts) => texts
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect(),
        Value::Object(sources) => sources.iter().map(written).collect(),
        _ => None,
    };
    let texts = texts.ok_or_else(|| fail("no `sandbox-paths` as Nix has them".to_owned()))?;
    texts
        .iter()
        .map(|text| SandboxPath::parse(text).map_err(fail))
        .collect()
}

/// A path as the setting has it in a file.
fn written((target, from): (&String, &Value)) -> Option<String> {
    let mark = if from["optional"].as_bool()? { "?" } else { "" };
    Some(format!("{target}={}{mark}", from["source"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_setting() {
        let answer =
            br#"{"sandbox-paths":{"value":["/bin/sh=/bin/dash","/b?"],"defaultValue":[]}}"#;
        let paths = parse(answer).unwrap();
        assert_eq!((paths.len(), paths[1].optional), (2, true));
        let newer = br#"{"sandbox-paths":{"defaultValue":{},"value":{
            "/b":{"optional":true,"source":"/b"},
            "/bin/sh":{"optional":false,"source":"/bin/dash"}
        }}}"#;
        let mut found = parse(newer).unwrap();
        found.reverse();
        assert_eq!(found, paths);
        assert!(parse(br#"{"sandbox-paths":{"value":{"/b":"/b"}}}"#).is_err());
        assert!(parse(b"{}").is_err() && parse(b"").is_err());
    }
}
