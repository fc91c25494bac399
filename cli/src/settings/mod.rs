//! What flags, environment and configuration file say together: a flag is stronger than a variable, a variable than the
//! file, the file than the default; `OBSERVE_` is stronger than `HUBBLE_`.

pub(crate) mod file;
mod keys;

pub(crate) use keys::*;

use file::File;
use observer_proto::time;
use std::{fmt, path::PathBuf, time::Duration};

/// Who gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

/// The layers, looked through from the strongest.
pub(crate) struct Layers<'a> {
    /// Flags in the order of the command line.
    pub(crate) flags: &'a [(&'static str, String)],
    pub(crate) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) file: Option<File>,
}

impl Layers<'_> {
    /// A setting's values (several for a list only) and who gave them.
    pub(crate) fn find(&self, key: &Key) -> (Vec<String>, Origin) {
        let split = |text: &str| match key.kind {
            Kind::List => text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            _ => vec![text.to_owned()],
        };
        let given = self.flags.iter().filter(|(name, _)| *name == key.name).map(|(_, value)| value);
        let given: Vec<String> = given.flat_map(|value| split(value)).collect();
        if !given.is_empty() {
            return (given, Origin::Flag);
        }
        for name in key.variables() {
            // As in Hubble, an empty variable is none.
            if let Some(value) = (self.environment)(&name).filter(|value| !value.is_empty()) {
                return (split(&value), Origin::Variable(name));
            }
        }
        if let Some(file) = &self.file
            && let Some(values) = file.values.get(key.name)
        {
            let values = if values.is_list { values.texts.clone() } else { split(&values.texts.concat()) };
            return (values, Origin::File(file.path.clone()));
        }
        let default = if key.default.is_empty() { Vec::new() } else { vec![key.default.to_owned()] };
        (default, Origin::Default)
    }

    fn one(&self, name: &str) -> Result<(String, Origin), String> {
        let key = Key::named(name).ok_or_else(|| format!("unknown key: {name}"))?;
        let (values, origin) = self.find(key);
        let value = values.into_iter().next().unwrap_or_default();
        if origin != Origin::Flag {
            key.check(&value).map_err(|why| format!("{}: {why}", origin.of(key)))?;
        }
        Ok((value, origin))
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        Ok(Some(self.one(name)?.0).filter(|text| !text.is_empty()))
    }

    fn is_on(&self, name: &str) -> Result<bool, String> {
        Ok(truth(&self.one(name)?.0).unwrap_or_default())
    }

    fn duration(&self, name: &str) -> Result<Duration, String> {
        // A negative time is over at once, as in Hubble.
        Ok(duration(&self.one(name)?.0).unwrap_or_default())
    }

    fn list(&self, name: &str) -> Vec<String> {
        Key::named(name).map(|key| self.find(key).0).unwrap_or_default()
    }

    /// Everything, checked.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        // Nothing needs it, but a wrong one is one.
        self.one(PORT_FORWARD_PORT)?;
        let (server, origin) = self.one(SERVER)?;
        let settings = Settings {
            server: (origin != Origin::Default).then_some((server, origin)),
            timeout: self.duration(TIMEOUT)?,
            request_timeout: self.duration(REQUEST_TIMEOUT)?,
            tls: Tls {
                on: self.is_on(TLS)?,
                allow_insecure: self.is_on(TLS_ALLOW_INSECURE)?,
                ca_cert_files: self.list(TLS_CA_CERT_FILES).into_iter().map(Into::into).collect(),
                server_name: self.text(TLS_SERVER_NAME)?,
                client_cert_file: self.text(TLS_CLIENT_CERT_FILE)?.map(Into::into),
                client_key_file: self.text(TLS_CLIENT_KEY_FILE)?.map(Into::into),
            },
            basic_auth: match (self.text(BASIC_AUTH_USERNAME)?, self.text(BASIC_AUTH_PASSWORD)?) {
                (None, None) => None,
                (Some(name), Some(password)) => Some((name, password)),
                _ => {
                    return Err(
                        "invalid flag(s): must specify both basic-auth-username and basic-auth-password"
                            .to_owned(),
                    );
                }
            },
            port_forward: if self.is_on(PORT_FORWARD)? {
                Some(PortForward {
                    context: self.text(KUBE_CONTEXT)?,
                    namespace: self.text(KUBE_NAMESPACE)?.unwrap_or_default(),
                    kubeconfig: self.text(KUBECONFIG)?.map(Into::into),
                })
            } else {
                None
            },
            debug: self.is_on(DEBUG)?,
            allowlist: self.list(ALLOWLIST),
            denylist: self.list(DENYLIST),
        };
        settings.tls.check(settings.server.as_ref())?;
        Ok(settings)
    }
}

impl Origin {
    /// How an error names the place.
    fn of(&self, key: &Key) -> String {
        match self {
            Self::File(path) => format!("{}: {}", path.display(), key.name),
            _ => format!("{self}{}", if *self == Self::Flag { key.name } else { "" }),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("--"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What every command that talks to a server goes by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) server: Option<(String, Origin)>,
    pub(crate) timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) tls: Tls,
    /// Name and password.
    pub(crate) basic_auth: Option<(String, String)>,
    pub(crate) port_forward: Option<PortForward>,
    pub(crate) debug: bool,
    /// Whole filters as JSON.
    pub(crate) allowlist: Vec<String>,
    pub(crate) denylist: Vec<String>,
}

/// How the way to the server is encrypted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) on: bool,
    pub(crate) allow_insecure: bool,
    pub(crate) ca_cert_files: Vec<PathBuf>,
    pub(crate) server_name: Option<String>,
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
}

impl Tls {
    /// Hubble's rules, in its words.
    fn check(&self, server: Option<&(String, Origin)>) -> Result<(), String> {
        let is_on = self.on || server.is_some_and(|(address, _)| address.starts_with("tls://"));
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(_), Some(_)) if !is_on => {
                Err("invalid flag(s): transport layer security required".to_owned())
            }
            (Some(_), None) | (None, Some(_)) => Err(
                "invalid flag(s): certificate and private key are both required, but only one was provided"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// The way to a relay through the Kubernetes API.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "port-forward"), expect(dead_code, reason = "read by the port-forward only"))]
pub(crate) struct PortForward {
    pub(crate) context: Option<String>,
    pub(crate) namespace: String,
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// Go's words for a boolean.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's words for a duration.
fn duration(text: &str) -> Option<Duration> {
    time::parse_duration(text).map(|duration| duration.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests;
