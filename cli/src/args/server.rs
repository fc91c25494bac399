//! Flags that say where the server is and how it is reached.

use super::SERVER;
use clap::Args;
use std::path::PathBuf;

/// Where the server is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = SERVER)]
pub(crate) struct ServerArgs {
    /// unix:///path, host:port or tls://host:port [env: OBSERVE_SERVER, HUBBLE_SERVER] [default: the local socket, else localhost:4245]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub(crate) server: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// How the way to the server is encrypted. Each can be set by the environment too: `OBSERVE_` or `HUBBLE_`, then its name.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = SERVER)]
pub(crate) struct TlsArgs {
    /// Use TLS, as tls:// before the address does [these five in the environment: OBSERVE_TLS, HUBBLE_TLS, ...]
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// CAs of the server's certificate, PEM [default: the machine's]
    #[arg(long, value_name = "FILES", value_delimiter = ',', global = true)]
    pub(crate) tls_ca_cert_files: Vec<PathBuf>,
    /// The name in the server's certificate [default: the host of the address]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) tls_server_name: Option<String>,
    /// Own certificate, PEM, for a server that wants one
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) tls_client_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) tls_client_key_file: Option<PathBuf>,
    // Hidden: it gives up what TLS is for.
    /// Take any certificate: whoever stands in between can read along
    #[arg(long, global = true, hide = true)]
    pub(crate) tls_allow_insecure: bool,
}
