//! Datagrams with the addresses that they were sent to, and under any address: what the socket API has no safe calls for.
#![expect(unsafe_code, reason = "libc's recvmsg and setsockopt")]

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _},
    ptr,
};

/// A datagram that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// How long it is; more than the buffer has room for where it is cut off.
    pub(super) length: usize,
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// Whom it was sent to, as it arrived: behind the translation of services.
    pub(super) to: SocketAddr,
}

/// What the kernel puts beside a datagram here: a header and an address of IPv6, aligned.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// From now on each datagram comes with the address that it was sent to.
pub(super) fn tell_destinations(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = if is_ipv6 {
        (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
    } else {
        (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
    };
    set(socket, level, option, 1)
}

/// Has the kernel put the checksum of UDP into what a raw socket of IPv6 sends.
pub(super) fn sum_up(socket: &impl AsFd) -> io::Result<()> {
    // Where it stands in the header of UDP.
    set(socket, libc::SOL_IPV6, libc::IPV6_CHECKSUM, 6)
}

fn set(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads an int.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast::<libc::c_void>(),
            size,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads one datagram, if there is one.
pub(super) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 128]);
    // SAFETY: all zeros is such an address, and such a header; the kernel writes no more than it is told there is room for.
    let (from, message, length) = unsafe {
        let mut from: libc::sockaddr_storage = mem::zeroed();
        let mut part =
            libc::iovec { iov_base: buffer.as_mut_ptr().cast::<libc::c_void>(), iov_len: buffer.len() };
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_name = ptr::from_mut(&mut from).cast::<libc::c_void>();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast::<libc::c_void>();
        message.msg_controllen = control.0.len();
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let length = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags);
        (from, message, length)
    };
    let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
    // SAFETY: any bytes are of a `[u8; N]`, and the storage is larger.
    let from: [u8; 28] = unsafe { *ptr::from_ref(&from).cast::<[u8; 28]>() };
    let told = control.0.get(..message.msg_controllen).and_then(destination);
    match (address(&from), told) {
        (Some(from), Some(to)) => Ok(Received { length, from, to }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The address in the control messages (cmsg(3)).
fn destination(mut control: &[u8]) -> Option<SocketAddr> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const WORD: usize = size_of::<usize>();
    while control.len() >= HEADER {
        let length = usize::from_ne_bytes(control[..WORD].try_into().ok()?);
        let number = |at: usize| Some(i32::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?));
        let data = control.get(HEADER..length)?;
        match (number(WORD)?, number(WORD + 4)?) {
            (libc::SOL_IP, libc::IP_ORIGDSTADDR) | (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
                return address(data);
            }
            _ => control = control.get(length.next_multiple_of(WORD)..)?,
        }
    }
    None
}

/// Of `sockaddr_in` or `sockaddr_in6`.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, 0).into())
        }
        _ => None,
    }
}

/// The header of UDP before a datagram of this length, without a checksum.
pub(super) fn udp_header(from: u16, to: u16, length: usize) -> Option<[u8; 8]> {
    let length = u16::try_from(length + 8).ok()?;
    [from, to, length, 0].map(u16::to_be_bytes).concat().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_datagram_says_whom_it_was_sent_to() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(local) else { continue };
            let to = socket.local_addr().unwrap();
            tell_destinations(&socket, to.is_ipv6()).unwrap();
            let mut buffer = [0; 4];
            let error = receive(&socket, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            let other = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
            other.send_to(b"hello", to).unwrap();
            let Received { length, from, to: told } = receive(&socket, &mut buffer).unwrap();
            assert_eq!((length, from, told), (5, other.local_addr().unwrap(), to));
            assert_eq!(&buffer, b"hell", "cut off, and its length tells");
        }
    }

    #[test]
    fn control_messages_of_any_bytes_have_an_end() {
        for length in 0..=64 {
            assert_eq!(destination(&vec![0; length]), None);
            assert_eq!(destination(&vec![u8::MAX; length]), None);
        }
        assert_eq!(udp_header(53, 1025, 1), Some([0, 53, 4, 1, 0, 9, 0, 0]));
        assert_eq!(udp_header(53, 1025, 65_535), None);
    }
}
