//! Ends, ports and requests as people write them.

use observer_policy::model::{ICMP, ICMPV6, SCTP, TCP, UDP};
use observer_proto::control::{
    PolicyEnd, PolicyHttpHeader, PolicyHttpRequest, explain_policy_request::Request, policy_end::End,
};
use std::net::IpAddr;

/// `namespace/pod`, an address, or an entity such as `host`.
pub(crate) fn end(text: &str) -> PolicyEnd {
    let end = if text.parse::<IpAddr>().is_ok() {
        End::Address(text.to_owned())
    } else if text.contains('/') {
        End::Pod(text.to_owned())
    } else {
        End::Entity(text.to_owned())
    };
    PolicyEnd { end: Some(end), at: String::new() }
}

/// `80/TCP`, `80` for TCP, or `8/ICMP`: the protocol's number and the port, or ICMP's type.
pub(crate) fn port(text: &str) -> Result<(u8, u16), String> {
    let wrong = || format!("{text:?} is no port; write one such as 80/TCP, 53/UDP or 8/ICMP (its type)");
    let (port, name) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = match name.to_ascii_uppercase().as_str() {
        "TCP" => TCP,
        "UDP" => UDP,
        "SCTP" => SCTP,
        "ICMP" => ICMP,
        "ICMPV6" => ICMPV6,
        _ => return Err(wrong()),
    };
    let port: u16 = port.parse().map_err(|_| wrong())?;
    match protocol {
        ICMP | ICMPV6 if port > 255 => Err(wrong()),
        TCP | UDP | SCTP if port == 0 => Err(wrong()),
        _ => Ok((protocol, port)),
    }
}

/// `GET /x`, `GET host/x Name:value`, or `QUERY name` for DNS.
pub(crate) fn request(text: &str) -> Result<Request, String> {
    let wrong = || {
        format!("{text:?} is no request; write one such as 'GET /x', 'GET shop/x Name:value' or 'QUERY name'")
    };
    let mut words = text.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(wrong()) };
    if method == "QUERY" {
        return if words.next().is_none() { Ok(Request::Dns(target.to_owned())) } else { Err(wrong()) };
    }
    let (host, path) = target.split_at(target.find('/').ok_or_else(wrong)?);
    let header = |word: &str| {
        let (name, value) = word.split_once(':').ok_or_else(wrong)?;
        Ok(PolicyHttpHeader { name: name.to_owned(), value: value.to_owned() })
    };
    Ok(Request::Http(PolicyHttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        host: host.to_owned(),
        headers: words.map(header).collect::<Result<_, String>>()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_requests_are_read_or_refused() {
        for (text, expected) in [
            ("80/TCP", Some((6, 80))),
            ("53/udp", Some((17, 53))),
            ("80", Some((6, 80))),
            ("8/ICMP", Some((1, 8))),
            ("0/ICMP", Some((1, 0))),
            ("128/ICMPv6", Some((58, 128))),
            ("0/TCP", None),
            ("300/ICMP", None),
            ("70000/TCP", None),
            ("80/X", None),
            ("", None),
        ] {
            assert_eq!(port(text).ok(), expected, "{text}");
        }
        let Ok(Request::Http(http)) = request("GET shop.example/x?y=1 X-Token:a") else { panic!() };
        assert_eq!(
            (http.method.as_str(), http.host.as_str(), http.path.as_str()),
            ("GET", "shop.example", "/x?y=1")
        );
        assert_eq!((http.headers[0].name.as_str(), http.headers[0].value.as_str()), ("X-Token", "a"));
        assert_eq!(request("QUERY a.example"), Ok(Request::Dns("a.example".into())));
        for text in ["", "GET", "GET x", "GET /x y", "QUERY a b"] {
            assert!(request(text).is_err(), "{text}");
        }
    }
}
