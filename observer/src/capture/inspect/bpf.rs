//! Questions to the kernel that aya doesn't ask, by bpf(2).
#![expect(unsafe_code, reason = "aya keeps its own calls of bpf(2) to itself")]

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::maps::{MapData, MapError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Of linux/bpf.h.
const MAP_LOOKUP_ELEM: c_long = 1;
const MAP_GET_NEXT_KEY: c_long = 4;
const OBJ_GET_INFO_BY_FD: c_long = 15;
const PROG_QUERY: c_long = 16;
const TCX: [u32; 2] = [46, 47];
/// More programs can't be on one hook (`BPF_MPROG_MAX`).
const MOST_ON_A_HOOK: usize = 64;

/// A program on a tcx hook, and its attachment: ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnTcx {
    pub(super) program: u32,
    /// 0 where it was attached without a link.
    pub(super) link: u32,
}

/// The programs on a tcx hook of a link of this thread's namespace, in the order in which they run; `hook` is 0 for
/// ingress and 1 for egress.
pub(super) fn on_tcx(ifindex: u32, hook: usize) -> io::Result<Vec<OnTcx>> {
    #[derive(FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    struct Query {
        ifindex: u32,
        attach_type: u32,
        flags: [u32; 2],
        programs: u64,
        count: u32,
        pad: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    let (mut programs, mut links) = ([0_u32; MOST_ON_A_HOOK], [0_u32; MOST_ON_A_HOOK]);
    let mut query = Query {
        ifindex,
        attach_type: TCX[hook],
        flags: [0; 2],
        programs: programs.as_mut_ptr() as u64,
        count: MOST_ON_A_HOOK as u32,
        pad: 0,
        program_flags: 0,
        links: links.as_mut_ptr() as u64,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes `count` numbers at most to each of the two arrays.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let found = programs.into_iter().zip(links).take(query.count as usize);
    Ok(found.map(|(program, link)| OnTcx { program, link }).collect())
}

/// Whether the kernel knows the types of a map's keys and values.
pub(super) fn has_btf(map: BorrowedFd<'_>) -> io::Result<bool> {
    /// The start of the kernel's `bpf_map_info`.
    #[derive(FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    struct Info {
        other: [u64; 8],
        btf: u32,
        key_type: u32,
        value_type: u32,
        pad: u32,
    }
    #[derive(FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    struct Ask {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info { other: [0; 8], btf: 0, key_type: 0, value_type: 0, pad: 0 };
    let length = size_of::<Info>() as u32;
    let mut ask = Ask { fd: number(map), length, info: (&raw mut info) as u64 };
    // SAFETY: the kernel writes `length` bytes at most to `info`, which may hold any.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(info.btf != 0 && info.value_type != 0)
}

/// The id of a map that stands in an array of maps.
pub(super) fn inner(array: &MapData, index: u32) -> io::Result<u32> {
    #[derive(FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    struct Lookup {
        map: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let info = array.info().map_err(io::Error::other)?;
    if (info.key_size(), info.value_size()) != (4, 4) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut id = 0_u32;
    let (key, value) = ((&raw const index) as u64, (&raw mut id) as u64);
    let mut lookup = Lookup { map: number(array.fd().as_fd()), pad: 0, key, value, flags: 0 };
    // SAFETY: the kernel reads four bytes of `index` and writes as many to `id`, as was looked up.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut lookup) }?;
    Ok(id)
}

/// The keys of a map, one after the other. A key that goes while it is the walk's place starts it anew.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    map: BorrowedFd<'a>,
    /// The last one; empty before the first.
    last: Vec<u8>,
    /// Of each key, as the kernel says it.
    length: usize,
}

impl<'a> Keys<'a> {
    pub(super) fn of(map: &'a MapData) -> Result<Self, MapError> {
        let length = map.info()?.key_size() as usize;
        Ok(Self { map: map.fd().as_fd(), last: Vec::new(), length })
    }
}

impl Iterator for Keys<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        #[derive(FromBytes, IntoBytes, Immutable)]
        #[repr(C)]
        struct Step {
            map: u32,
            pad: u32,
            key: u64,
            next: u64,
        }
        let mut next = vec![0; self.length];
        let key = if self.last.is_empty() { 0 } else { self.last.as_ptr() as u64 };
        let mut step = Step { map: number(self.map), pad: 0, key, next: next.as_mut_ptr() as u64 };
        // SAFETY: the kernel reads a key of `length` bytes, or none, and writes one of so many.
        unsafe { bpf(MAP_GET_NEXT_KEY, &mut step) }.ok()?;
        self.last.clone_from(&next);
        Some(next)
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // An open file's number is never negative.
    fd.as_raw_fd().unsigned_abs()
}

/// # Safety
///
/// What `attributes` point to must be as large as the kernel takes it to be for this command.
unsafe fn bpf<T: FromBytes + IntoBytes>(command: c_long, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the kernel reads and writes as many bytes of `attributes` as it is told, and any bytes are a `T`.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, (&raw mut *attributes).cast::<u8>(), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
