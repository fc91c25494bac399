//! nf_conntrack over netlink: its events, and dumps at the start and after a loss.

use super::connection::Update;
use super::ctnetlink::{Message, dump_request, messages};
use crate::decode::Clock;
use hashbrown::HashSet;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// `nfnetlink_groups` of the kernel. The group of updates is left out: the tuples of a connection never change after the
/// event that told of it (`nf_conntrack_alter_reply` is for unconfirmed ones), and updates are most of the events.
const GROUP_NEW: u32 = 1;
const GROUP_DESTROY: u32 = 3;
/// The kernel fills at most 32 KiB of one datagram in a dump.
const DATAGRAM: usize = 64 * 1024;
/// Datagrams read of a dump in one call, so that a large table doesn't hold up the events.
const DUMP_DATAGRAMS: u32 = 128;
/// Events read in one call, likewise.
const EVENT_DATAGRAMS: u32 = 32_768;
/// `MSG_TRUNC`: tell the datagram's true length.
const MSG_TRUNC: i32 = 0x20;

/// How to listen.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions {
    /// Receive buffer in bytes; the kernel doubles it. One event takes about 1 KiB of it.
    pub receive_buffer: usize,
    /// Shortest time between two dumps, so that losing events doesn't become dumping without end.
    pub dump_pause: Duration,
    /// Time after which the table is compared with a dump although nothing was lost: since Linux 5.19 the kernel tells
    /// of no end of connections that are older than its listener.
    pub dump_interval: Duration,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            receive_buffer: 8 << 20,
            dump_pause: Duration::from_secs(1),
            dump_interval: Duration::from_mins(2),
        }
    }
}

/// Why there is no conntrack to listen to; services are then known by their address only.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// A system call was refused.
    #[error("nf_conntrack: cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// The kernel answered the request for a dump with an error.
    #[error("nf_conntrack: the kernel refuses a dump ({0}); is the module nf_conntrack_netlink there?")]
    Refused(#[source] io::Error),
    /// Events are off.
    #[error("nf_conntrack: events are off; set net.netfilter.nf_conntrack_events to 1 or 2")]
    EventsOff,
}

/// What was received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounters {
    /// Events of new and ended connections.
    pub events: u64,
    /// Connections told by dumps.
    pub dumped: u64,
    /// Whole dumps.
    pub dumps: u64,
    /// Dumps that broke off.
    pub broken_dumps: u64,
    /// Times that the kernel dropped events because the buffer was full; how many it dropped it doesn't tell.
    pub overruns: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Other errors of the socket.
    pub errors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    Idle,
    Running,
}

/// Takes what the kernel tells.
type Sink<'a> = &'a mut dyn FnMut(Update);

/// The sockets. Opened in the network namespace of the calling thread.
#[derive(Debug)]
pub struct ConntrackSource {
    options: SourceOptions,
    events: Socket,
    /// A socket of its own: an overrun of events breaks no dump.
    dumps: Socket,
    buffer: Vec<u8>,
    dump: Dump,
    /// The events may have missed something.
    dump_wanted: bool,
    dump_began_ns: u64,
    /// By number, those of the first dump of which the kernel only guesses who opened them.
    guessed: HashSet<u32>,
    counters: SourceCounters,
}

impl ConntrackSource {
    /// Listens, then gives the connections that are there to `each`.
    pub fn open(options: SourceOptions, each: Sink<'_>) -> Result<Self, Unavailable> {
        // Absent where the module isn't loaded; the dump's answer tells then.
        if std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_events")
            .is_ok_and(|value| value.trim() == "0")
        {
            return Err(Unavailable::EventsOff);
        }
        let refused = |what| move |error| Unavailable::System(what, error);
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let events = open().map_err(refused("open a netlink socket"))?;
        set_receive_buffer(&events, options.receive_buffer).map_err(refused("set the receive buffer"))?;
        for group in [GROUP_NEW, GROUP_DESTROY] {
            events.add_membership(group).map_err(refused("listen to events (CAP_NET_ADMIN is needed)"))?;
        }
        let dumps = open().map_err(refused("open a netlink socket"))?;
        let mut source = Self {
            options,
            events,
            dumps,
            buffer: Vec::with_capacity(DATAGRAM),
            dump: Dump::Idle,
            dump_wanted: false,
            dump_began_ns: 0,
            guessed: HashSet::new(),
            counters: SourceCounters::default(),
        };
        source.first_dump(each)?;
        Ok(source)
    }

    /// Readable when there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Of what was told at the opening, the numbers of connections of which the kernel only guesses who opened them.
    pub fn take_guessed(&mut self) -> HashSet<u32> {
        std::mem::take(&mut self.guessed)
    }

    /// What was received so far.
    pub fn counters(&self) -> SourceCounters {
        self.counters
    }

    /// Gives what is there to `each`, without waiting. `now_ns` is kernel time.
    pub fn drain(&mut self, each: Sink<'_>, now_ns: u64) {
        // The dump first: what it tells is older than the events still in the queue.
        if self.dump == Dump::Running
            && let Err(error) = self.read_dump(each, now_ns)
        {
            self.break_dump(&error);
        }
        let drained = self.read_events(each, now_ns);
        // A congested socket drops events without another word until it was empty, so a dump before that misses some.
        if drained && self.dump == Dump::Idle && self.is_dump_due(now_ns) {
            self.begin_dump(each, now_ns);
        }
    }

    fn is_dump_due(&self, now_ns: u64) -> bool {
        let wait = if self.dump_wanted { self.options.dump_pause } else { self.options.dump_interval };
        u128::from(now_ns.saturating_sub(self.dump_began_ns)) >= wait.as_nanos()
    }

    fn begin_dump(&mut self, each: Sink<'_>, now_ns: u64) {
        self.dump_began_ns = now_ns;
        match self.dumps.send_to(&dump_request(), &SocketAddr::new(0, 0), 0) {
            Ok(_) => {
                each(Update::DumpBegins);
                self.dump = Dump::Running;
                self.dump_wanted = false;
            }
            Err(error) => self.break_dump(&error),
        }
    }

    fn break_dump(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a dump of nf_conntrack broke off; it will be repeated");
        self.counters.broken_dumps += 1;
        self.dump = Dump::Idle;
        self.dump_wanted = true;
    }

    /// Waits for the kernel's first answers, so that a missing nf_conntrack shows now and the table is filled before the
    /// first record. A table that takes longer is read on by [`Self::drain`].
    fn first_dump(&mut self, each: Sink<'_>) -> Result<(), Unavailable> {
        const PATIENCE_NS: u64 = 3_000_000_000;
        let began_ns = Clock::kernel_now();
        self.dump_began_ns = began_ns;
        self.dumps
            .send_to(&dump_request(), &SocketAddr::new(0, 0), 0)
            .map_err(|error| Unavailable::System("request a dump", error))?;
        each(Update::DumpBegins);
        self.dump = Dump::Running;
        while self.dump == Dump::Running {
            let now_ns = Clock::kernel_now();
            if now_ns.saturating_sub(began_ns) > PATIENCE_NS {
                break;
            }
            self.read_dump(each, now_ns).map_err(Unavailable::Refused)?;
            if self.dump == Dump::Running {
                let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                // A signal or the time being over only means looking again.
                let _ = poll(&mut [PollFd::new(&self.dumps, PollFlags::IN)], Some(&moment));
            }
        }
        Ok(())
    }

    /// One datagram into the buffer; nothing when there is none.
    fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        match socket.recv(buffer, MSG_TRUNC) {
            Ok(length) if length > buffer.len() => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_dump(&mut self, each: Sink<'_>, now_ns: u64) -> io::Result<()> {
        for _ in 0..DUMP_DATAGRAMS {
            if !Self::receive(&self.dumps, &mut self.buffer)? {
                return Ok(());
            }
            for message in messages(&self.buffer) {
                match message {
                    Ok(Message::New(entry, is_guess)) => {
                        if is_guess && self.counters.dumps == 0 {
                            self.guessed.insert(entry.id);
                        }
                        self.counters.dumped += 1;
                        each(Update::New(entry));
                    }
                    Ok(Message::Done) => {
                        self.counters.dumps += 1;
                        self.dump = Dump::Idle;
                        each(Update::DumpEnds(now_ns));
                        return Ok(());
                    }
                    Ok(Message::Error(code)) => return Err(io::Error::from_raw_os_error(code)),
                    Ok(Message::End { .. } | Message::Other) => {}
                    Err(_) => self.counters.malformed += 1,
                }
            }
        }
        Ok(())
    }

    /// Whether the queue was read to its end.
    fn read_events(&mut self, each: Sink<'_>, now_ns: u64) -> bool {
        for _ in 0..EVENT_DATAGRAMS {
            match Self::receive(&self.events, &mut self.buffer) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    self.counters.overruns += 1;
                    each(Update::Overrun);
                    self.dump_wanted = true;
                    continue;
                }
                Err(error) => {
                    self.counters.errors += 1;
                    self.dump_wanted = true;
                    tracing::debug!(%error, "an event of nf_conntrack could not be received");
                    continue;
                }
            }
            for message in messages(&self.buffer) {
                match message {
                    Ok(Message::New(entry, _)) => {
                        self.counters.events += 1;
                        each(Update::New(entry));
                    }
                    Ok(Message::End { id, original }) => {
                        self.counters.events += 1;
                        each(Update::End(id, original, now_ns));
                    }
                    Ok(Message::Done | Message::Error(_) | Message::Other) => {}
                    Err(_) => self.counters.malformed += 1,
                }
            }
        }
        false
    }
}

/// Beyond `net.core.rmem_max`, where the rights allow it.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
    set_socket_recv_buffer_size_force(socket, bytes)
        .or_else(|_| set_socket_recv_buffer_size(socket, bytes))
        .map_err(io::Error::from)
}
