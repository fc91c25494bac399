//! Reading a recording: input after input, in bounded memory, believing nothing.

use super::{
    Head, Input, MAGIC, VERSION,
    frame::{self, Cut, CutReason},
};
use observer_ebpf::ABI_VERSION;
use std::{
    io::{self, Read},
    time::Duration,
};

/// Magic, version, version of the kernel's records, a zero.
pub(super) const PREAMBLE: usize = MAGIC.len() + 4;

/// Why a file can't be played at all.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The disk.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("is no recording: it does not begin as `observer record` writes it")]
    Foreign,
    /// Of another layout.
    #[error(
        "is a recording of format {0}, this observer plays format {VERSION}: record it again, or play it with the observer that made it"
    )]
    Version(u16),
    /// Of other programs.
    #[error(
        "holds kernel records of version {0}, this observer reads version {ABI_VERSION}: record it again, or play it with the observer that made it"
    )]
    Abi(u8),
    /// Nothing of it can be played.
    #[error("holds nothing that can be played: {0}")]
    Empty(CutReason),
}

/// A recording that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    head: Head,
    /// The inputs of the frame under way.
    plain: Vec<u8>,
    next: usize,
    /// Where the frame under way begins in the file, and where the next one does.
    frame: u64,
    behind: u64,
    ended: bool,
    /// Nothing comes after a cut.
    cut: Option<Cut>,
}

impl<R: Read> Reader<R> {
    /// Reads what stands before the inputs.
    pub fn open(mut from: R) -> Result<Self, RecordingError> {
        let mut preamble = Vec::with_capacity(PREAMBLE);
        from.by_ref().take(PREAMBLE as u64).read_to_end(&mut preamble)?;
        let Some(&[low, high, abi, zero]) = preamble.strip_prefix(&MAGIC) else {
            return Err(RecordingError::Foreign);
        };
        match u16::from_le_bytes([low, high]) {
            VERSION => {}
            other => return Err(RecordingError::Version(other)),
        }
        if abi != ABI_VERSION {
            return Err(RecordingError::Abi(abi));
        }
        if zero != 0 {
            return Err(RecordingError::Foreign);
        }
        let mut plain = Vec::new();
        let length = frame::unpack(&mut from, &mut plain).map_err(RecordingError::Empty)?;
        if length == 0 {
            return Err(RecordingError::Empty(CutReason::Torn));
        }
        let (head, rest) = postcard::take_from_bytes::<Head>(&plain)
            .map_err(|_| RecordingError::Empty(CutReason::Unreadable))?;
        let next = plain.len() - rest.len();
        let (frame, behind) = (PREAMBLE as u64, (PREAMBLE + length) as u64);
        Ok(Self { from, head, plain, next, frame, behind, ended: false, cut: None })
    }

    /// What stands before the inputs.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next input; nothing after the last one.
    ///
    /// # Errors
    ///
    /// Where the recording was cut or damaged. Nothing comes after that.
    #[expect(
        clippy::should_implement_trait,
        reason = "an input borrows from the reader, which no iterator can say"
    )]
    pub fn next(&mut self) -> Result<Option<Input<'_>>, Cut> {
        if let Some(cut) = self.cut {
            return Err(cut);
        }
        while self.next >= self.plain.len() {
            if !self.next_frame().map_err(|reason| self.cut_here(reason))? {
                return Ok(None);
            }
        }
        let reason = if self.ended { CutReason::BehindEnd } else { CutReason::Unreadable };
        match postcard::take_from_bytes::<Input<'_>>(&self.plain[self.next..]) {
            Ok((input, rest)) if !self.ended => {
                self.next = self.plain.len() - rest.len();
                self.ended = input == Input::End;
                Ok(Some(input))
            }
            _ => Err(*self.cut.insert(Cut { at: self.frame, reason })),
        }
    }

    /// Whether there is one.
    fn next_frame(&mut self) -> Result<bool, CutReason> {
        self.frame = self.behind;
        self.next = 0;
        let length = frame::unpack(&mut self.from, &mut self.plain)?;
        self.behind += length as u64;
        match (length, self.ended) {
            (0, true) => Ok(false),
            (0, false) => Err(CutReason::NoEnd),
            (_, true) => Err(CutReason::BehindEnd),
            (_, false) => Ok(true),
        }
    }

    fn cut_here(&mut self, reason: CutReason) -> Cut {
        *self.cut.insert(Cut { at: self.frame, reason })
    }
}

/// What a recording holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records of the kernel, those of the sweeps included.
    pub records: u64,
    /// Records that the kernel's rings had no room for.
    pub lost: u64,
    /// Inputs of all kinds.
    pub inputs: u64,
    /// Kernel time of the first and the last batch, nanoseconds.
    pub batches: Option<(u64, u64)>,
    /// Where it was cut.
    pub cut: Option<Cut>,
}

impl Totals {
    /// From the first batch to the last.
    pub fn duration(&self) -> Duration {
        self.batches.map_or(Duration::ZERO, |(first, last)| Duration::from_nanos(last.saturating_sub(first)))
    }

    /// Counts one more.
    pub(super) fn add(&mut self, input: &Input<'_>) {
        self.inputs += 1;
        match input {
            Input::Record(_) | Input::Swept(_) => self.records += 1,
            Input::Lost(count, ..) => self.lost += u64::from(*count),
            Input::Batch(now_ns) => {
                self.batches = Some((self.batches.map_or(*now_ns, |(first, _)| first), *now_ns));
            }
            _ => {}
        }
    }
}

/// Reads the whole of a recording and counts what is in it. Any bytes may come in: it doesn't panic, and takes no more
/// memory than a frame may have.
pub fn read_all(bytes: &[u8]) -> Result<Totals, RecordingError> {
    let mut reader = Reader::open(bytes)?;
    let mut totals = Totals::default();
    loop {
        match reader.next() {
            Ok(Some(input)) => totals.add(&input),
            Ok(None) => return Ok(totals),
            Err(cut) => return Ok(Totals { cut: Some(cut), ..totals }),
        }
    }
}
