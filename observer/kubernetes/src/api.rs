//! The API server: how it is reached, and what it answers instead of what it was asked for.

use crate::{lines::Lines, object::Status, pace::Timing};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How the API server is reached, and by which rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// As kubectl does: `KUBECONFIG`, then `~/.kube/config`; else as pods do, by their service account.
    #[default]
    Usual,
    /// By this kubeconfig.
    Kubeconfig(PathBuf),
    /// A server within the test.
    #[cfg(test)]
    Mock(Mock),
}

/// Asks a server within the test.
#[cfg(test)]
#[derive(Clone)]
pub struct Mock(pub(crate) Client);

#[cfg(test)]
impl std::fmt::Debug for Mock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mock")
    }
}

#[cfg(test)]
impl PartialEq for Mock {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
impl Eq for Mock {}

/// Why something was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// There is no way to it, or nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// The answer is an error.
    #[error("{code} {reason}: {message}")]
    Refused { code: u16, reason: String, message: String, retry_after: Option<Duration> },
    /// What was asked from is not remembered any more.
    #[error("the resource version has expired")]
    Expired,
    /// What comes is nothing that can be read.
    #[error("not readable: {0}")]
    Malformed(String),
    /// The kubeconfig, or what it names.
    #[error("{0}")]
    Access(String),
}

impl Trouble {
    pub(crate) fn refused(status: Status, retry_after: Option<Duration>) -> Self {
        let Status { code, reason, message } = status;
        if code == StatusCode::GONE || reason == "Expired" {
            return Self::Expired;
        }
        let mut message = message.replace(char::is_control, " ");
        if let Some((end, _)) = message.char_indices().nth(MESSAGE) {
            message.truncate(end);
        }
        Self::Refused { code, reason, message, retry_after }
    }

    /// The code of an answer.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Refused { code, .. } => *code,
            _ => 0,
        }
    }

    /// Whether somebody is there, who does not give this.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.code(), 400 | 403 | 404 | 422)
    }

    /// How long the API server wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The most characters of a message that are kept.
const MESSAGE: usize = 300;
/// The most bytes of an answer that is an error.
const ERROR: usize = 64 << 10;
/// The most bytes of a page of a list.
const PAGE: usize = 64 << 20;

/// The API server.
pub(crate) struct Api {
    access: Access,
    timing: Timing,
    client: Mutex<Option<Client>>,
}

impl Api {
    pub(crate) fn new(access: Access, timing: Timing) -> Self {
        Self { access, timing, client: Mutex::default() }
    }

    /// Forgets connections and rights: the next request reads files and tokens anew.
    pub(crate) fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn client(&self) -> Result<Client, Trouble> {
        let known = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let mut config = match &self.access {
            #[cfg(test)]
            Access::Mock(mock) => return Ok(mock.0.clone()),
            Access::Usual => Config::infer().await.map_err(|error| Trouble::Access(chain(&error)))?,
            Access::Kubeconfig(file) => {
                let at = |error| Trouble::Access(format!("{}: {}", file.display(), chain(&error)));
                let kubeconfig = Kubeconfig::read_from(file).map_err(at)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(at)?
            }
        };
        config.connect_timeout = Some(self.timing.answer);
        // A watch is silent for long; each read has a limit of its own.
        config.read_timeout = None;
        config.write_timeout = Some(self.timing.answer);
        // How often is asked again is decided by `Pace`.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| Trouble::Access(chain(&error)))?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// The answer's body as lines.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines<Body>, Trouble> {
        Ok(Lines::new(self.send(get(path)?).await?))
    }

    /// The answer's body as a whole.
    pub(crate) async fn page(&self, path: &str) -> Result<Bytes, Trouble> {
        self.whole(self.send(get(path)?).await?, PAGE).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Body, Trouble> {
        let client = self.client().await?;
        let answer = tokio::time::timeout(self.timing.answer, client.send(request)).await;
        let seconds = self.timing.answer.as_secs_f32();
        let answer = answer.map_err(|_| Trouble::Unreachable(format!("no answer within {seconds} s")))?;
        let (head, body) = answer.map_err(|error| unreachable(&error))?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let retry_after =
            head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let code = head.status.as_u16();
        // It may be any text.
        let status = match self.whole(body, ERROR).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Status::default(),
        };
        let reason = match status.reason.as_str() {
            "" => head.status.canonical_reason().unwrap_or("error").to_owned(),
            reason => reason.to_owned(),
        };
        Err(Trouble::refused(Status { code, reason, ..status }, retry_after.map(Duration::from_secs)))
    }

    async fn whole(&self, mut body: Body, most: usize) -> Result<Bytes, Trouble> {
        let mut all = Vec::new();
        loop {
            let frame = tokio::time::timeout(self.timing.answer, body.frame()).await;
            let frame = frame.map_err(|_| Trouble::Unreachable("silent within an answer".to_owned()))?;
            let Some(frame) = frame else { return Ok(all.into()) };
            let frame = frame.map_err(|error| Trouble::Unreachable(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                if all.len() + data.len() > most {
                    return Err(Trouble::Malformed(format!("an answer of more than {} KiB", most >> 10)));
                }
                all.extend_from_slice(data);
            }
        }
    }
}

fn get(path: &str) -> Result<Request<Body>, Trouble> {
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(Body::empty());
    request.map_err(|error| Trouble::Malformed(error.to_string()))
}

/// What kube says of a request that was not answered; a token that can't be had is a trouble of the rights.
fn unreachable(error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Auth(_) => Trouble::Access(chain(error)),
        _ => Trouble::Unreachable(chain(error)),
    }
}

/// An error with its causes, in one line; each cause that its error says itself is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text.replace(char::is_control, " ")
}
