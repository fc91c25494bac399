//! The table of the settings: what a flag, the environment and the configuration file may say alike.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Of the flag, without the dashes, and in the file.
    pub(crate) name: &'static str,
    /// One-letter form of the flag.
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    /// How help calls the value.
    pub(crate) value: &'static str,
    /// As a user would write it; empty = none.
    pub(crate) default: &'static str,
    /// One line of help.
    pub(crate) help: &'static str,
    pub(crate) shown: Shown,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Switch,
    /// `90s`, `1h30m`.
    Duration,
    Port,
    /// Separated by commas.
    List,
    /// Whole filters, which have commas of their own; given by flags of their own.
    Filters,
}

/// Where help shows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Server,
    Other,
    /// Nowhere: its use is no advice.
    Hidden,
    /// It is no flag of every command.
    NoFlag,
}

const fn text(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, short: None, kind: Kind::Text, value, default, help, shown: Shown::Server }
}

const fn switch(name: &'static str, help: &'static str) -> Key {
    Key { kind: Kind::Switch, ..text(name, "BOOL", "false", help) }
}

/// All settings, in the order that help shows them in.
pub(crate) const KEYS: &[Key] = &[
    text(
        SERVER,
        "ADDRESS",
        "",
        "unix:///path, host:port or tls://host:port [default: the local socket, else localhost:4245]",
    ),
    Key { kind: Kind::Duration, ..text(TIMEOUT, "DURATION", "5s", "How long connecting may take") },
    Key {
        kind: Kind::Duration,
        ..text(
            REQUEST_TIMEOUT,
            "DURATION",
            "12s",
            "How long a single answer may take; streams are not limited",
        )
    },
    switch(TLS, "Use TLS, as tls:// before the address does"),
    Key {
        kind: Kind::List,
        ..text(
            TLS_CA_CERT_FILES,
            "FILES",
            "",
            "CAs of the server's certificate, PEM [default: the machine's]",
        )
    },
    text(
        TLS_SERVER_NAME,
        "NAME",
        "",
        "The name in the server's certificate [default: the host of the address]",
    ),
    text(TLS_CLIENT_CERT_FILE, "FILE", "", "Own certificate, PEM, for a server that wants one"),
    text(TLS_CLIENT_KEY_FILE, "FILE", "", "Its key"),
    // It gives up what TLS is for.
    Key {
        shown: Shown::Hidden,
        ..switch(TLS_ALLOW_INSECURE, "Take any certificate: whoever stands in between can read along")
    },
    text(BASIC_AUTH_USERNAME, "NAME", "", "User name for a server that asks for one, over TLS only"),
    text(BASIC_AUTH_PASSWORD, "PASSWORD", "", "Its password; better in $OBSERVE_BASIC_AUTH_PASSWORD"),
    Key {
        short: Some('P'),
        ..switch(PORT_FORWARD, "Reach hubble-relay in the cluster by a port-forward of our own")
    },
    Key {
        kind: Kind::Port,
        ..text(
            PORT_FORWARD_PORT,
            "PORT",
            "4245",
            "Taken for Hubble's sake: --port-forward opens no local port",
        )
    },
    text(KUBE_CONTEXT, "NAME", "", "The context of the kubeconfig, for --port-forward"),
    text(KUBE_NAMESPACE, "NS", "kube-system", "Where the service hubble-relay is, for --port-forward"),
    text(
        KUBECONFIG,
        "FILE",
        "",
        "The kubeconfig, for --port-forward [default: $KUBECONFIG, else ~/.kube/config]",
    ),
    Key {
        shown: Shown::Other,
        ..text(
            CONFIG,
            "FILE",
            "",
            "The configuration file [default: the first that `observe config --help` lists]",
        )
    },
    Key {
        short: Some('D'),
        shown: Shown::Other,
        ..switch(DEBUG, "Also show which nodes a relay is connected to")
    },
    Key { kind: Kind::Filters, shown: Shown::NoFlag, ..text(ALLOWLIST, "JSON", "", "") },
    Key { kind: Kind::Filters, shown: Shown::NoFlag, ..text(DENYLIST, "JSON", "", "") },
];

pub(crate) const SERVER: &str = "server";
pub(crate) const TIMEOUT: &str = "timeout";
pub(crate) const REQUEST_TIMEOUT: &str = "request-timeout";
pub(crate) const TLS: &str = "tls";
pub(crate) const TLS_CA_CERT_FILES: &str = "tls-ca-cert-files";
pub(crate) const TLS_SERVER_NAME: &str = "tls-server-name";
pub(crate) const TLS_CLIENT_CERT_FILE: &str = "tls-client-cert-file";
pub(crate) const TLS_CLIENT_KEY_FILE: &str = "tls-client-key-file";
pub(crate) const TLS_ALLOW_INSECURE: &str = "tls-allow-insecure";
pub(crate) const BASIC_AUTH_USERNAME: &str = "basic-auth-username";
pub(crate) const BASIC_AUTH_PASSWORD: &str = "basic-auth-password";
pub(crate) const PORT_FORWARD: &str = "port-forward";
pub(crate) const PORT_FORWARD_PORT: &str = "port-forward-port";
pub(crate) const KUBE_CONTEXT: &str = "kube-context";
pub(crate) const KUBE_NAMESPACE: &str = "kube-namespace";
pub(crate) const KUBECONFIG: &str = "kubeconfig";
pub(crate) const CONFIG: &str = "config";
pub(crate) const DEBUG: &str = "debug";
pub(crate) const ALLOWLIST: &str = "allowlist";
pub(crate) const DENYLIST: &str = "denylist";

impl Key {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its variables, the stronger one first: our prefix, then Hubble's.
    pub(crate) fn variables(&self) -> [String; 2] {
        let name = self.name.to_uppercase().replace('-', "_");
        ["OBSERVE", "HUBBLE"].map(|prefix| format!("{prefix}_{name}"))
    }

    /// Whether a value is one, in the words of Hubble's parser.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Text | Kind::List | Kind::Filters => Ok(()),
            Kind::Switch => {
                super::truth(value).map(|_| ()).ok_or_else(|| refused("ParseBool", value, "invalid syntax"))
            }
            Kind::Duration => {
                super::duration(value).map(|_| ()).ok_or_else(|| format!("time: invalid duration {value:?}"))
            }
            Kind::Port => match value.parse::<u128>() {
                Ok(port) if port <= u16::MAX.into() => Ok(()),
                Ok(_) => Err(refused("ParseUint", value, "value out of range")),
                Err(_) => Err(refused("ParseUint", value, "invalid syntax")),
            },
        }
    }
}

fn refused(function: &str, value: &str, why: &str) -> String {
    format!("strconv.{function}: parsing {value:?}: {why}")
}
