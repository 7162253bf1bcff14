//! Inflating one entry: exactly as many bytes as its header says, never one more.

use flate2::{Decompress, FlushDecompress, Status};

use super::input::Feed;
use crate::hydrate::remote::RemoteError;

/// Bytes handed on at once when a blob is streamed.
const CHUNK_BYTES: usize = 128 << 10;

/// A decompressor that is used again for each entry.
pub(super) struct Inflater {
    state: Decompress,
    chunk: Box<[u8]>,
}

/// What one step did.
struct Step {
    made: usize,
    ended: bool,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self { state: Decompress::new(true), chunk: Box::default() }
    }

    /// Fills `out`.
    pub(super) fn fill(&mut self, feed: &mut dyn Feed, out: &mut [u8]) -> Result<(), RemoteError> {
        self.state.reset(true);
        let mut done = 0;
        loop {
            let step = if done < out.len() {
                step(&mut self.state, feed, &mut out[done..])?
            } else {
                surplus(&mut self.state, feed)?
            };
            done += step.made;
            if step.ended {
                return if done == out.len() { Ok(()) } else { Err(feed.refuse("is shorter than it says")) };
            }
        }
    }

    /// Hands `size` bytes to `take`, piece by piece.
    pub(super) fn stream(
        &mut self,
        feed: &mut dyn Feed,
        size: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        self.state.reset(true);
        self.chunk = std::mem::take(&mut self.chunk).into_vec().into_boxed_slice();
        if self.chunk.is_empty() {
            self.chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        }
        let (mut left, mut filled) = (size, 0);
        loop {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.chunk.len() - filled);
            let step = if room > 0 {
                step(&mut self.state, feed, &mut self.chunk[filled..filled + room])?
            } else {
                surplus(&mut self.state, feed)?
            };
            filled += step.made;
            left -= step.made as u64;
            if filled == self.chunk.len() || step.ended || left == 0 {
                take(&self.chunk[..filled])?;
                filled = 0;
            }
            if step.ended {
                return if left == 0 { Ok(()) } else { Err(feed.refuse("is shorter than it says")) };
            }
        }
    }
}

/// Inflates into `out`, which has room.
fn step(state: &mut Decompress, feed: &mut dyn Feed, out: &mut [u8]) -> Result<Step, RemoteError> {
    let (read, written) = (state.total_in(), state.total_out());
    let input = feed.fill()?;
    let status = state.decompress(input, out, FlushDecompress::None);
    let used = usize::try_from(state.total_in() - read).unwrap_or(usize::MAX);
    let made = usize::try_from(state.total_out() - written).unwrap_or(usize::MAX);
    feed.consume(used);
    match status {
        Ok(Status::StreamEnd) => Ok(Step { made, ended: true }),
        Ok(_) if used > 0 || made > 0 => Ok(Step { made, ended: false }),
        _ => Err(feed.refuse("is not valid zlib data")),
    }
}

/// Goes on to the end of the stream, in which no byte of content may come any more.
fn surplus(state: &mut Decompress, feed: &mut dyn Feed) -> Result<Step, RemoteError> {
    let step = step(state, feed, &mut [0])?;
    if step.made > 0 { Err(feed.refuse("is longer than it says")) } else { Ok(step) }
}
