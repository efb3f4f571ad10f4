//! Where a daemon is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, without TLS: `host:port`.
    Tcp(String),
}

impl Address {
    /// The socket a daemon of root listens on if it is told nothing else.
    pub fn usual() -> Self {
        Self::Unix(PathBuf::from("/run/buildkit/buildkitd.sock"))
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

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let own = || text.to_owned();
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(Error::Socket { text: own() })
            };
        }
        let Some(place) = text.strip_prefix("tcp://") else {
            return Err(Error::Scheme { text: own() });
        };
        match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(place.to_owned()))
            }
            _ => Err(Error::Port { text: own() }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp://{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["unix:///run/b.sock", "tcp://[::1]:1234", "tcp://host:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
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
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
