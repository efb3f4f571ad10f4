//! Who pulls: the logins that `docker login` keeps, for registries that ask (spec §5.6).
//!
//! They are in docker's `config.json`, or with a program it names: `docker-credential-NAME`, which
//! is given the registry on its input and answers with JSON. Either is asked when a daemon asks, so
//! a run that pulls nothing reads nothing. Tokens the daemon fetches itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tonic::{Request, Response, Status};

use super::protocol::moby::filesync::v1::auth_server::Auth;
use super::protocol::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};

/// What docker calls its own registry.
const HUB: &str = "https://index.docker.io/v1/";
/// What helpers answer as user where the secret is a token.
const TOKEN: &str = "<token>";

/// Where logins are.
#[derive(Debug, Clone, Default)]
pub struct Keychain {
    /// Docker's `config.json`; none means no logins.
    pub config: Option<PathBuf>,
}

/// A login cannot be had. No text has anything of a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}")]
    Read(std::io::Error),
    /// The file is not docker's.
    #[error("`{}` is not docker's configuration: line {line}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        line: usize,
    },
    /// A login is not in docker's form.
    #[error("`{}` has a login for `{host}` that cannot be read", path.display())]
    Login {
        /// The file.
        path: PathBuf,
        /// The registry.
        host: String,
    },
    /// A program that keeps logins does not give this one.
    #[error("`{program}` gives no login for `{host}`: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// The registry.
        host: String,
        /// What it says.
        reason: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Login>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Login {
    auth: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Keychain {
    /// Finds the login for a registry; an empty one where there is none.
    fn find(&self, host: &str) -> Result<CredentialsResponse, Error> {
        let Some(path) = &self.config else {
            return Ok(CredentialsResponse::default());
        };
        let bytes = match fs_err::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(CredentialsResponse::default());
            }
            other => other.map_err(Error::Read)?,
        };
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| Error::Parse {
            path: path.clone(),
            line: error.line(),
        })?;
        let key = if matches!(host, "registry-1.docker.io" | "docker.io") {
            HUB
        } else {
            host
        };
        let helper = config.cred_helpers.get(key).unwrap_or(&config.creds_store);
        if !helper.is_empty() {
            return helped(helper, key);
        }
        let own = config.auths.iter();
        let mut own = own.filter(|(name, _)| *name == key || bare(name) == key);
        match own.next() {
            Some((_, login)) => login.read(path, host),
            None => Ok(CredentialsResponse::default()),
        }
    }
}

/// A registry's name without what old configurations have around it.
fn bare(name: &str) -> &str {
    let name = name.strip_prefix("https://").unwrap_or(name);
    let name = name.strip_prefix("http://").unwrap_or(name);
    name.split('/').next().unwrap_or(name)
}

impl Login {
    fn read(&self, path: &Path, host: &str) -> Result<CredentialsResponse, Error> {
        if !self.identitytoken.is_empty() {
            return Ok(CredentialsResponse {
                username: String::new(),
                secret: self.identitytoken.clone(),
            });
        }
        if self.auth.is_empty() {
            return Ok(CredentialsResponse::default());
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = text.as_deref().and_then(|text| text.split_once(':'));
        let (username, secret) = parts.ok_or_else(|| Error::Login {
            path: path.to_owned(),
            host: host.to_owned(),
        })?;
        Ok(CredentialsResponse {
            username: username.to_owned(),
            secret: secret.trim_end_matches('\0').to_owned(),
        })
    }
}

/// Asks a program that keeps logins.
fn helped(helper: &str, host: &str) -> Result<CredentialsResponse, Error> {
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| Error::Helper {
        program: program.clone(),
        host: host.to_owned(),
        reason,
    };
    let asked = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| {
            // One that does not listen says by its answer what it thinks.
            let _ = child
                .stdin
                .take()
                .map(|mut input| input.write_all(host.as_bytes()));
            child.wait_with_output()
        });
    let output = asked.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said.contains("credentials not found") {
            return Ok(CredentialsResponse::default());
        }
        return Err(failed(said));
    }
    let answer: Helped = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed("its answer is not what docker expects".to_owned()))?;
    let username = Some(answer.username).filter(|name| name != TOKEN);
    Ok(CredentialsResponse {
        username: username.unwrap_or_default(),
        secret: answer.secret,
    })
}

#[tonic::async_trait]
impl Auth for Keychain {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let keychain = self.clone();
        // A program may ask the user first.
        let found = tokio::task::spawn_blocking(move || keychain.find(&request.get_ref().host));
        match found.await {
            Ok(Ok(login)) => Ok(Response::new(login)),
            Ok(Err(error)) => Err(Status::failed_precondition(error.to_string())),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keychain(text: &str) -> (tempfile::TempDir, Keychain) {
        let place = tempfile::tempdir().unwrap();
        let config = place.path().join("config.json");
        fs_err::write(&config, text).unwrap();
        let keychain = Keychain {
            config: Some(config),
        };
        (place, keychain)
    }

    fn login(keychain: &Keychain, host: &str) -> String {
        match keychain.find(host) {
            Ok(found) => format!("{}:{}", found.username, found.secret),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn finds_logins_where_docker_keeps_them() {
        let (_place, keychain) = keychain(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnc6b3Jk"},
                "https://old.example/v2/": {"auth": "b2xkOnBhc3M="},
                "plain.example:5000": {"auth": "", "identitytoken": "token"},
                "none.example": {}
            }, "psFormat": "x"}"#,
        );
        for (host, expected) in [
            ("registry-1.docker.io", "hub:w:ord"),
            ("old.example", "old:pass"),
            ("plain.example:5000", ":token"),
            ("none.example", ":"),
            ("unknown.example", ":"),
        ] {
            assert_eq!(login(&keychain, host), expected, "{host}");
        }
        assert_eq!(login(&Keychain::default(), "x"), ":");
        let config = Some(PathBuf::from("/nowhere/config.json"));
        assert_eq!(login(&Keychain { config }, "x"), ":");
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_secret() {
        let (_place, broken) = keychain("{\n\"auths\": hush");
        let said = login(&broken, "x");
        assert!(
            said.contains("config.json") && said.contains("line 2"),
            "{said}"
        );
        let (_place, broken) = keychain(r#"{"auths": {"x": {"auth": "hush"}}}"#);
        let said = login(&broken, "x");
        assert!(said.contains("`x`") && !said.contains("hush"), "{said}");
        let (_place, helped) = keychain(r#"{"credHelpers": {"x": "of-no-such-name"}}"#);
        let said = login(&helped, "x");
        assert!(said.contains("docker-credential-of-no-such-name"), "{said}");
    }
}
