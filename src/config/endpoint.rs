//! Addresses that settings name: where metrics are served, and where spans are sent.
//!
//! Refuses to serve metrics where other machines could ask: nothing there tells who asks.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the daemon answers for its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A port of this machine, for every user of it.
    Port(SocketAddr),
    /// A Unix socket, for this user.
    Socket(PathBuf),
}

impl Listen {
    pub(super) const EXPECTED: &'static str = "must be an address like \"127.0.0.1:9478\" or \"unix:/path\"";
    pub(super) const RANGE: &'static str = "a loopback address with its port, or unix: and an absolute path";
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Self::Socket(path))
            } else {
                Err("must have an absolute path after \"unix:\"".to_owned())
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| Self::EXPECTED.to_owned())?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "must be an address of this machine alone, like 127.0.0.1:{}, not {}",
                address.port(),
                address.ip()
            ));
        }
        Ok(Self::Port(address))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => write!(out, "{address}"),
            Self::Socket(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// The address of an OpenTelemetry collector, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    pub(super) const EXPECTED: &'static str = "must be an address like \"http://127.0.0.1:4318\"";
    pub(super) const RANGE: &'static str = "http:// or https://";

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match rest {
            Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !text.contains(char::is_whitespace) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_served() {
        for text in ["127.0.0.1:9478", "[::1]:9478", "127.8.9.1:1", "unix:/run/user/1/m.sock"] {
            assert_eq!(text.parse::<Listen>().map(|listen| listen.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0.0.0.0:9478", "192.168.1.2:80", "[::]:80", "localhost:80", ":80", "unix:m.sock", "unix:/"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_collector_is_reached_over_http() {
        for text in ["http://127.0.0.1:4318", "https://collector.example.org/otlp"] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "127.0.0.1:4318", "grpc://x:1", "http://", "http:///v1", "http://a b"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
