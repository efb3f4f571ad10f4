//! A setting of the installed nix that builds here follow: `sandbox-paths`.

use std::path::Path;
use std::process::Command;

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

fn parse(answer: &[u8]) -> Result<Vec<SandboxPath>, Error> {
    let fail = |reason: String| Error::Answer { reason };
    let answer: serde_json::Value =
        serde_json::from_slice(answer).map_err(|error| fail(error.to_string()))?;
    let paths = answer["sandbox-paths"]["value"]
        .as_array()
        .ok_or_else(|| fail("no list `sandbox-paths`".to_owned()))?;
    let texts = paths.iter().filter_map(serde_json::Value::as_str);
    texts
        .map(|text| SandboxPath::parse(text).map_err(fail))
        .collect()
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
        assert!(parse(b"{}").is_err() && parse(b"").is_err());
    }
}
