//! What it costs a packet that payload is looked at: of connections that are neither HTTP nor DNS, of bodies, and of heads, which are
//! copied to the ring.

use super::{FLOW, Failure, NOTHING, OBJECT, Programs, REPEAT, ROUNDS, ethernet, median, report};
use observer_ebpf::l7;

const REQUEST: &[u8] =
    b"GET /api/v1/charges HTTP/1.1\r\nHost: payments-api:8080\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// Copies that the ring has room for.
const COPIES: u32 = 10_000;

pub(super) fn measure() -> Result<(), Failure> {
    let (neither, body) = (segment(&[b'x'; 1000]), segment(&[b'b'; 1400]));
    let (head, nothing) = (segment(REQUEST), segment(b""));
    for (what, bits, first, frame, repeat, aim) in [
        ("payload off, packet of 1000 bytes", 0, &neither, &neither, REPEAT, 80.0),
        ("payload on, packet of 1000 bytes of neither", l7::HTTP | l7::DNS, &neither, &neither, REPEAT, 80.0),
        ("payload on, ACK of HTTP", l7::HTTP | l7::DNS, &head, &nothing, REPEAT, 150.0),
        ("payload on, body of HTTP", l7::HTTP | l7::DNS, &head, &body, REPEAT, 150.0),
        ("payload on, head of HTTP, copied", l7::HTTP | l7::DNS, &head, &head, COPIES, 500.0),
    ] {
        let mut programs = Programs::reading(OBJECT, FLOW, 65_536, bits)?;
        // What it is is found out before the clock runs.
        programs.run(FLOW, first, 4)?;
        let rounds = (0..ROUNDS).map(|_| {
            programs.forget_records();
            let nothing = programs.run(NOTHING, frame, repeat)?;
            Ok(programs.run(FLOW, frame, repeat)? - nothing)
        });
        report(&format!("flow program, {what}"), median(rounds)?, aim);
    }
    Ok(())
}

/// A TCP segment over IPv4 with this inside.
fn segment(payload: &[u8]) -> Vec<u8> {
    let length = (40 + payload.len() as u16).to_be_bytes();
    let mut packet =
        vec![0x45, 0, length[0], length[1], 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 1, 1];
    packet.extend([0x80, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 16, 0, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}
