//! One line for a request of HTTP and its response: the request waits for its response for a while.

use crate::{
    flow::{Flow, Http, L7FlowType, Verdict, layer4::Protocol, layer7::Record},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long a request waits.
const LONGEST: Duration = Duration::from_secs(1);
/// The most that wait.
const MOST: usize = 1024;

/// Requests that wait for their responses.
#[derive(Debug, Default)]
pub struct Joined {
    waiting: VecDeque<(Instant, GetFlowsResponse)>,
}

impl Joined {
    /// Takes a response of the server in, at this time, and gives what is to be printed: a request once its response is known.
    pub fn take(
        &mut self,
        response: &GetFlowsResponse,
        now: Instant,
        print: &mut impl FnMut(&GetFlowsResponse),
    ) {
        self.give_up(Some(now), print);
        self.outlived(response, print);
        match http(response) {
            Some((L7FlowType::Request, ..)) => {
                self.waiting.push_back((now, response.clone()));
                if self.waiting.len() > MOST
                    && let Some((_, oldest)) = self.waiting.pop_front()
                {
                    print(&alone(oldest));
                }
            }
            Some((L7FlowType::Response, flow, answer)) => {
                let place = self.waiting.iter().position(|(_, asked)| is_answered(asked, flow, answer));
                match place.and_then(|place| self.waiting.remove(place)) {
                    Some((_, asked)) => print(&joined(asked, flow, answer)),
                    None => print(response),
                }
            }
            _ => print(response),
        }
    }

    /// Gives those that this flow is more than a second younger than: what a server has kept of hours comes at once, and would have
    /// them wait till its end.
    fn outlived(&mut self, response: &GetFlowsResponse, print: &mut impl FnMut(&GetFlowsResponse)) {
        let Some(now) = nanos(response) else { return };
        while self
            .waiting
            .front()
            .and_then(|(_, asked)| nanos(asked))
            .is_some_and(|asked| now - asked > LONGEST.as_nanos() as i128)
            && let Some((_, asked)) = self.waiting.pop_front()
        {
            print(&alone(asked));
        }
    }

    /// When the next one has waited long enough.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since + LONGEST)
    }

    /// Gives those that have waited long enough; without a time all.
    pub fn give_up(&mut self, now: Option<Instant>, print: &mut impl FnMut(&GetFlowsResponse)) {
        while self.due().is_some_and(|due| now.is_none_or(|now| due <= now))
            && let Some((_, asked)) = self.waiting.pop_front()
        {
            print(&alone(asked));
        }
    }
}

fn http(response: &GetFlowsResponse) -> Option<(L7FlowType, &Flow, &Http)> {
    let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return None };
    let l7 = flow.l7.as_ref()?;
    let Some(Record::Http(http)) = &l7.record else { return None };
    Some((L7FlowType::try_from(l7.r#type).ok()?, flow, http))
}

/// The flow's own time.
fn nanos(response: &GetFlowsResponse) -> Option<i128> {
    let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return None };
    let time = flow.time.as_ref()?;
    Some(i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos))
}

fn is_answered(asked: &GetFlowsResponse, flow: &Flow, answer: &Http) -> bool {
    http(asked).is_some_and(|(_, request, http)| {
        let reversed = ends(flow).map(|[source, destination]| [destination, source]);
        (&http.method, &http.url) == (&answer.method, &answer.url) && ends(request) == reversed
    })
}

/// Source and destination.
fn ends(flow: &Flow) -> Option<[(&str, u32); 2]> {
    let ip = flow.ip.as_ref()?;
    let Some(Protocol::Tcp(tcp)) = &flow.l4.as_ref()?.protocol else { return None };
    Some([(&*ip.source, tcp.source_port), (&*ip.destination, tcp.destination_port)])
}

#[expect(deprecated, reason = "Hubble still fills the field, and texts show it")]
fn joined(mut asked: GetFlowsResponse, flow: &Flow, answer: &Http) -> GetFlowsResponse {
    if let Some(ResponseTypes::Flow(request)) = &mut asked.response_types {
        request.summary =
            format!("{} {} {} {}", answer.protocol, answer.code, answer.method, path(&answer.url));
        // What policies say stands with the request; what some proxies refuse, with the response.
        if !matches!(request.verdict(), Verdict::Dropped | Verdict::Audit) {
            request.verdict = flow.verdict;
        }
    }
    asked
}

#[expect(deprecated, reason = "as above")]
fn alone(mut asked: GetFlowsResponse) -> GetFlowsResponse {
    let summary =
        http(&asked).map(|(.., http)| format!("{} {} {}", http.protocol, http.method, path(&http.url)));
    if let (Some(ResponseTypes::Flow(request)), Some(summary)) = (&mut asked.response_types, summary) {
        request.summary = summary;
    }
    asked
}

/// What stands behind scheme and host, whom the line names already.
pub(super) fn path(url: &str) -> &str {
    match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Ip, Layer4, Layer7, Tcp};

    #[expect(deprecated, reason = "as above")]
    fn said(kind: L7FlowType, port: u32, code: u32, url: &str) -> GetFlowsResponse {
        let (a, b) = (("10.0.0.1".to_owned(), port), ("10.0.0.2".to_owned(), 80));
        let (source, destination) = if kind == L7FlowType::Request { (a, b) } else { (b, a) };
        let http = Http {
            code,
            method: "GET".into(),
            url: url.into(),
            protocol: "HTTP/1.1".into(),
            headers: Vec::new(),
        };
        let tcp = Tcp { source_port: source.1, destination_port: destination.1, flags: None };
        let flow = Flow {
            ip: Some(Ip { source: source.0, destination: destination.0, ..Ip::default() }),
            l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
            l7: Some(Layer7 { r#type: kind.into(), latency_ns: 0, record: Some(Record::Http(http)) }),
            summary: format!("{code} {url}"),
            ..Flow::default()
        };
        GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), ..GetFlowsResponse::default() }
    }

    #[expect(deprecated, reason = "as above")]
    fn summary(response: &GetFlowsResponse) -> String {
        let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return String::new() };
        flow.summary.clone()
    }

    #[test]
    fn a_request_is_printed_with_its_status_or_after_a_second() {
        let (mut joined, began) = (Joined::default(), Instant::now());
        let mut printed = Vec::new();
        let mut print = |response: &GetFlowsResponse| printed.push(summary(response));
        let (request, response) = (L7FlowType::Request, L7FlowType::Response);
        for (after_ms, item) in [
            (0, said(request, 1, 0, "http://shop/a?b=/c")),
            (1, said(request, 2, 0, "http://shop/a?b=/c")),
            (2, said(request, 2, 0, "http://shop")),
            (3, said(response, 2, 404, "http://shop/a?b=/c")),
            (4, said(response, 9, 200, "http://shop/unasked")),
            (5, GetFlowsResponse::default()),
            (6, said(response, 2, 204, "http://shop")),
        ] {
            joined.take(&item, began + Duration::from_millis(after_ms), &mut print);
        }
        assert_eq!(joined.due(), Some(began + LONGEST));
        joined.give_up(Some(began + Duration::from_millis(999)), &mut print);
        joined.give_up(Some(began + LONGEST), &mut print);
        joined.take(&said(request, 3, 0, "*"), began, &mut print);
        joined.give_up(None, &mut print);
        assert_eq!(joined.due(), None);
        assert_eq!(
            printed,
            [
                "HTTP/1.1 404 GET /a?b=/c",
                "200 http://shop/unasked",
                "",
                "HTTP/1.1 204 GET /",
                "HTTP/1.1 GET /a?b=/c",
                "HTTP/1.1 GET *",
            ]
        );
    }

    #[test]
    fn the_verdict_is_the_requests_where_policies_gave_one() {
        let (mut joined, now, mut printed) = (Joined::default(), Instant::now(), Vec::new());
        let in_order = [
            (Verdict::Dropped, Verdict::Forwarded, Verdict::Dropped),
            (Verdict::Audit, Verdict::Forwarded, Verdict::Audit),
            (Verdict::Forwarded, Verdict::Dropped, Verdict::Dropped),
            (Verdict::Forwarded, Verdict::Forwarded, Verdict::Forwarded),
        ];
        for (port, (asked, answered, _)) in (0..).zip(in_order) {
            for (kind, verdict) in [(L7FlowType::Request, asked), (L7FlowType::Response, answered)] {
                let mut item = said(kind, port, 0, "/");
                if let Some(ResponseTypes::Flow(flow)) = &mut item.response_types {
                    flow.verdict = verdict.into();
                }
                joined.take(&item, now, &mut |response| {
                    let Some(ResponseTypes::Flow(flow)) = &response.response_types else { return };
                    printed.push(flow.verdict());
                });
            }
        }
        assert_eq!(printed, in_order.map(|(.., wanted)| wanted));
    }

    #[test]
    fn what_was_kept_comes_in_the_order_of_its_time() {
        let (mut joined, now, mut printed) = (Joined::default(), Instant::now(), Vec::new());
        for (port, seconds, nanos) in [(1, 10, 5), (2, 10, 500), (3, 11, 6), (4, 11, 500)] {
            let mut item = said(L7FlowType::Request, port, 0, &format!("/{port}"));
            if let Some(ResponseTypes::Flow(flow)) = &mut item.response_types {
                flow.time = Some(prost_types::Timestamp { seconds, nanos });
            }
            joined.take(&item, now, &mut |response| printed.push(summary(response)));
        }
        assert_eq!(printed, ["HTTP/1.1 GET /1"]);
        assert_eq!(joined.waiting.len(), 3);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let (mut joined, now, mut count) = (Joined::default(), Instant::now(), 0);
        for port in 0..=MOST as u32 {
            joined.take(&said(L7FlowType::Request, port, 0, "/"), now, &mut |_| count += 1);
        }
        assert_eq!((joined.waiting.len(), count), (MOST, 1));
    }
}
