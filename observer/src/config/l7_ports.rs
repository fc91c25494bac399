//! `--l7-ports`: where what is read inside connections is looked for.

use super::L7;
use observer_ebpf::{MOST_PAYLOAD_PORTS, PayloadPort, PayloadPorts};
use std::collections::BTreeMap;

/// Reads `dns=53,5353 http=80`, where this is read inside connections.
pub(super) fn read(text: &str, l7: L7) -> Result<PayloadPorts, String> {
    let mut limited = 0;
    let mut ports: BTreeMap<u16, u16> = BTreeMap::new();
    for part in text.split_whitespace() {
        let (name, list) =
            part.split_once('=').ok_or_else(|| format!("`{part}` has no `=`: write it as `http=80,8080`"))?;
        let bit = match name {
            "dns" => observer_ebpf::l7::DNS,
            "http" => observer_ebpf::l7::HTTP,
            "tls" => observer_ebpf::l7::TLS,
            _ => return Err(format!("`{name}` is none of dns, http and tls")),
        };
        if limited & bit != 0 {
            return Err(format!("`{name}` is there twice"));
        }
        if l7 != L7::Off && l7.bits() & bit == 0 {
            return Err(format!("`{name}` is not read: --l7 asks for other things"));
        }
        limited |= bit;
        for port in list.split(',') {
            let number = port.parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| format!("`{port}` of `{name}` is no port: 1 to 65535"))?;
            *ports.entry(number).or_default() |= bit as u16;
        }
    }
    if ports.len() > MOST_PAYLOAD_PORTS {
        return Err(format!("{} ports are too many: {MOST_PAYLOAD_PORTS} at most", ports.len()));
    }
    let mut found = PayloadPorts { limited, ..PayloadPorts::default() };
    for (place, (port, l7)) in found.ports.iter_mut().zip(ports) {
        *place = PayloadPort { port, l7 };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_of_protocols() {
        let found = read("dns=53,5353  http=80,53", L7::All).unwrap();
        assert_eq!(found.limited, observer_ebpf::l7::DNS | observer_ebpf::l7::HTTP);
        let ports = [(53, 3), (80, 2), (5353, 1), (0, 0)].map(|(port, l7)| PayloadPort { port, l7 });
        assert_eq!(found.ports[..4], ports);
        assert_eq!(read("", L7::All), Ok(PayloadPorts::default()));
        assert!(read("tls=443", L7::Off).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = (1..=17).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
        for (text, problem) in [
            ("80", "`80` has no `=`: write it as `http=80,8080`"),
            ("ftp=21", "`ftp` is none of dns, http and tls"),
            ("dns=53 dns=54", "`dns` is there twice"),
            ("http=80", "`http` is not read: --l7 asks for other things"),
            ("dns=53,0", "`0` of `dns` is no port: 1 to 65535"),
            ("dns=", "`` of `dns` is no port: 1 to 65535"),
            ("dns=65536", "`65536` of `dns` is no port: 1 to 65535"),
            (&format!("dns={many}"), "17 ports are too many: 16 at most"),
        ] {
            assert_eq!(read(text, L7::Dns).unwrap_err(), problem);
        }
    }
}
