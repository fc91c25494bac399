//! Why capture can't start or go on, each in one line that says what to do.

use std::io;

use super::kernel::btf::BtfError;

/// An error of [`super::Capture`].
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel's types.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A capability the daemon has not.
    #[error(
        "no right to load eBPF programs: {missing} missing; run as root or grant CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"
    )]
    NoRights {
        /// The capabilities by name, with `is` or `are`.
        missing: String,
    },
    /// The object was refused as a whole.
    #[error("the kernel refused the eBPF maps: {0}")]
    Object(String),
    /// A map is not in the object, or not as it should be.
    #[error("eBPF map {name}: {error}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel says.
        error: String,
    },
    /// More policies than fit.
    #[error("the policies need {wanted} entries of {name}, and at most {most} fit")]
    PolicyTable {
        /// Its name.
        name: &'static str,
        /// How many it would have.
        wanted: usize,
        /// How many it may have.
        most: usize,
    },
    /// No program at all could be loaded.
    #[error("no eBPF program could be loaded: {0}")]
    NoProgram(String),
    /// A name in the configuration.
    #[error(
        "ignored drop reason '{0}' is unknown to this kernel and to the default list: names are as in `skb_drop_reason`, without SKB_DROP_REASON_"
    )]
    UnknownReason(String),
    /// Netlink or the threads.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

impl CaptureError {
    pub(super) fn map(name: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |error| Self::Map { name, error: chain(&error) }
    }

    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System { what, error }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    // A verifier's log has hundreds of lines; its end, before the statistics, has the reason.
    let statistic =
        |line: &str| ["processed ", "stack depth ", "verification time "].iter().any(|s| line.starts_with(s));
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !statistic(line)).collect();
    match lines.as_slice() {
        [first, .., a, b] if lines.len() > 4 => format!("{first} ... {a} {b}"),
        all => all.join(" "),
    }
}

/// The capabilities that capture needs and this process has not, from `CapEff` of `/proc/self/status`.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
    const SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let missing = |(_, bit): &&(&str, u32)| effective & (1 << bit) == 0;
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let covered = |(name, _): &&(&str, u32)| *name == "CAP_NET_ADMIN" || effective & SYS_ADMIN == 0;
    NEEDED.iter().filter(missing).filter(covered).map(|(name, _)| *name).collect()
}
