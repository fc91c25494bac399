//! `observe policy show`.

use crate::{
    Failure,
    answers::{TextOrJson, once},
    args::Globals,
    policy::{LayoutArgs, Source, SourceArgs, shown},
};
use clap::Args;
use observer_proto::{control::ListPoliciesRequest, json};
use std::io;

/// `observe policy show`.
#[derive(Args)]
pub(super) struct ShowArgs {
    /// Which; all without. KIND is netpol, cnp or ccnp, or the whole name of a kind
    #[arg(value_name = "[KIND/][NAMESPACE/]NAME")]
    name: Option<String>,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) async fn run(globals: &Globals, args: ShowArgs) -> Result<(), Failure> {
    let settings = globals.settings()?;
    let asked = args.name.as_deref().map(request).transpose()?.unwrap_or_default();
    let mut source = Source::open(&args.source, &settings).await?;
    let answer = source.list(&settings, ListPoliciesRequest { rules: true, ..asked }).await?;
    if let Some(name) = args.name.filter(|_| answer.policies.is_empty()) {
        return Err(format!(
            "no policy is named {}\nhint: observe policy list shows all",
            name.escape_debug()
        )
        .into());
    }
    once(&match args.layout.output {
        TextOrJson::Text => shown(&answer),
        TextOrJson::Json => json::line(&answer).map_err(io::Error::other)?,
    })
}

pub(super) fn request(text: &str) -> Result<ListPoliciesRequest, String> {
    let of = |kind: &str, namespace: &str, name: &str| ListPoliciesRequest {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        rules: false,
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        [name] => Ok(of("", "", name)),
        [first, name] => Ok(kind(first).map_or_else(|| of("", first, name), |kind| of(kind, "", name))),
        [first, namespace, name] => match kind(first) {
            Some(kind) => Ok(of(kind, namespace, name)),
            None => Err(format!("{first:?} is no kind of policy; write netpol, cnp or ccnp")),
        },
        _ => Err(format!("{text:?} names no policy; write [KIND/][NAMESPACE/]NAME")),
    }
}

fn kind(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "netpol" | "networkpolicy" => Some("NetworkPolicy"),
        "cnp" | "ciliumnetworkpolicy" => Some("CiliumNetworkPolicy"),
        "ccnp" | "ciliumclusterwidenetworkpolicy" => Some("CiliumClusterwideNetworkPolicy"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_kind_and_namespace_or_without() {
        let read =
            |text: &str| request(text).map_or_else(|why| why, |r| [r.kind, r.namespace, r.name].join("|"));
        for (text, expected) in [
            ("p", "||p"),
            ("web/p", "|web|p"),
            ("ccnp/p", "CiliumClusterwideNetworkPolicy||p"),
            ("NetworkPolicy/web/p", "NetworkPolicy|web|p"),
            ("x/web/p", "\"x\" is no kind of policy; write netpol, cnp or ccnp"),
            ("a/b/c/d", "\"a/b/c/d\" names no policy; write [KIND/][NAMESPACE/]NAME"),
        ] {
            assert_eq!(read(text), expected);
        }
    }
}
