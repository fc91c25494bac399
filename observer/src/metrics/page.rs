//! What a scraper gets: Prometheus' text format, or OpenMetrics.

use super::histogram::Exemplar;
use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
};

/// The form of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Form {
    /// What the scraper would rather have.
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        let wants = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if wants { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Families one after the other.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    form: Form,
    name: &'static str,
}

impl Page {
    pub(super) fn new(form: Form) -> Self {
        Self { text: String::new(), form, name: "" }
    }

    /// Begins a family of counters; its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, "counter", help);
    }

    /// Begins a family of gauges.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "gauge", help);
    }

    /// Begins a family of histograms; their samples have names of their own.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str) {
        self.begin(name, "histogram", help);
    }

    /// Begins a family of sums and counts.
    pub(super) fn summary(&mut self, name: &'static str, help: &str) {
        self.begin(name, "summary", help);
    }

    fn begin(&mut self, name: &'static str, kind: &str, help: &str) {
        let family = match self.form {
            Form::OpenMetrics if kind == "counter" => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        self.name = name;
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}");
    }

    /// A sample of the family that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.written("", &labels.join(","), value, None);
    }

    /// A sample whose labels are written already, and whose name has something behind the family's.
    pub(super) fn written(
        &mut self,
        suffix: &str,
        labels: &str,
        value: impl Display,
        exemplar: Option<&Exemplar>,
    ) {
        let name = self.name;
        // Writing to a String can't fail.
        let _ = match labels {
            "" => write!(self.text, "{name}{suffix} {value}"),
            labels => write!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
        // The older form has none.
        if let (Form::OpenMetrics, Some(exemplar)) = (self.form, exemplar) {
            let (trace, value, seconds) = (exemplar.trace(), exemplar.value, exemplar.seconds());
            let _ = write!(self.text, " # {{traceID=\"{trace}\"}} {value} {seconds:.3}");
        }
        self.text.push('\n');
    }

    /// The upper bound of a bucket, as Prometheus' client for Go writes it.
    pub(super) fn bound(&self, bound: f64) -> String {
        if self.form == Form::OpenMetrics { format!("{bound:?}") } else { bound.to_string() }
    }

    /// The whole page.
    pub(super) fn end(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The value of a label between its quotes.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}
