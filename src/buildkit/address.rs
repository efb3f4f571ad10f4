//! Where a daemon is, and which kind of daemon it is.

use std::fmt;
use std::path::PathBuf;

/// A daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What is to listen there.
    pub service: Service,
    /// Where.
    pub socket: Socket,
}

/// The two kinds of daemon that have `BuildKit` in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `buildkitd`: gRPC from the first byte.
    BuildKitd,
    /// `dockerd`: HTTP, with gRPC behind an upgrade, or beside it in newer ones.
    Dockerd,
}

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, without TLS: `host:port`.
    Tcp(String),
}

impl Address {
    /// The socket a `buildkitd` of root listens on if it is told nothing else.
    pub fn usual() -> Self {
        Self {
            service: Service::BuildKitd,
            socket: Socket::Unix(PathBuf::from("/run/buildkit/buildkitd.sock")),
        }
    }

    /// The socket a `dockerd` listens on if it is told nothing else.
    pub fn usual_dockerd() -> Self {
        Self {
            service: Service::Dockerd,
            socket: Socket::Unix(PathBuf::from("/var/run/docker.sock")),
        }
    }

    /// Reads what users write.
    ///
    /// # Errors
    ///
    /// The text names nothing that can be reached.
    pub fn parse(service: Service, text: &str) -> Result<Self, Error> {
        let own = || text.to_owned();
        let socket = if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(Error::Socket { text: own() });
            }
            Socket::Unix(PathBuf::from(path))
        } else {
            let place = text.strip_prefix("tcp://");
            let place = place.ok_or_else(|| Error::Scheme { text: own() })?;
            match place.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Socket::Tcp(place.to_owned())
                }
                _ => return Err(Error::Port { text: own() }),
            }
        };
        Ok(Self { service, socket })
    }
}

/// The text names no daemon that can be reached.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No path, or a relative one.
    #[error("`{text}` names no socket: write it as unix:///PATH")]
    Socket {
        /// The text.
        text: String,
    },
    /// No host, or no port.
    #[error("`{text}` names no port: write it as tcp://HOST:PORT")]
    Port {
        /// The text.
        text: String,
    },
    /// Another way to reach a daemon.
    #[error("`{text}` is not unix:///PATH or tcp://HOST:PORT")]
    Scheme {
        /// The text.
        text: String,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Unix(path) => write!(f, "unix://{}", path.display()),
            Socket::Tcp(place) => write!(f, "tcp://{place}"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BuildKitd => "buildkitd",
            Self::Dockerd => "dockerd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["unix:///run/b.sock", "tcp://[::1]:1234", "tcp://host:1"] {
            let address = Address::parse(Service::Dockerd, text).unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_it_cannot_reach() {
        for text in [
            "",
            "/run/b.sock",
            "unix://b.sock",
            "unix://",
            "tcp://host",
            "tcp://:1",
            "tcp://host:port",
            "docker-container://b",
            "ssh://host",
        ] {
            let parsed = Address::parse(Service::BuildKitd, text);
            assert!(parsed.is_err(), "{text}");
        }
    }
}
