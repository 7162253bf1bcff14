//! The bytes of a pack, kept while it is decoded: in memory while short, then
//! in a file without a name, or in the pack file that is being written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::git::error::local;
use crate::hydrate::remote::RemoteError;

/// Bytes kept in memory before a file is made: most batches are shorter.
const MEMORY_BYTES: usize = 8 << 20;

/// Bytes collected for one write.
const WRITE_BYTES: usize = 256 << 10;

/// A growing copy of a stream that can be read anywhere.
pub struct Spool {
    /// Bytes after those in the file.
    tail: Vec<u8>,
    file: Option<File>,
    /// Length of the file.
    written: u64,
    directory: Option<PathBuf>,
}

impl Spool {
    /// Starts in memory and goes on in a nameless file in `directory` (default: that for temporary files).
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { tail: Vec::new(), file: None, written: 0, directory }
    }

    /// Writes to `file`, which is empty.
    pub fn into_file(file: File, directory: PathBuf) -> Self {
        Self { tail: Vec::with_capacity(WRITE_BYTES), file: Some(file), written: 0, directory: Some(directory) }
    }

    /// A nameless file beside this one.
    pub(super) fn scratch_file(&self) -> io::Result<File> {
        match &self.directory {
            Some(directory) => tempfile::tempfile_in(directory),
            None => tempfile::tempfile(),
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        self.tail.extend_from_slice(bytes);
        let limit = if self.file.is_some() { WRITE_BYTES } else { MEMORY_BYTES };
        if self.tail.len() >= limit { self.flush() } else { Ok(()) }
    }

    /// Moves everything into the file, making one if there is none.
    pub(crate) fn flush(&mut self) -> Result<(), RemoteError> {
        let mut write = || {
            if self.file.is_none() {
                self.file = Some(self.scratch_file()?);
            }
            let file = self.file.as_ref().expect("made above");
            file.write_all_at(&self.tail, self.written)
        };
        write().map_err(|error| local("cannot write the received pack", &error))?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        // Small from here on: the file takes the bulk.
        self.tail.shrink_to(WRITE_BYTES);
        Ok(())
    }

    /// Reads at `offset`; 0 at the end.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, RemoteError> {
        if let Some(start) = offset.checked_sub(self.written) {
            let start = usize::try_from(start).unwrap_or(usize::MAX).min(self.tail.len());
            let length = out.len().min(self.tail.len() - start);
            out[..length].copy_from_slice(&self.tail[start..start + length]);
            return Ok(length);
        }
        let here = usize::try_from(self.written - offset).unwrap_or(usize::MAX).min(out.len());
        let file = self.file.as_ref().expect("bytes were written to it");
        file.read_at(&mut out[..here], offset).map_err(|error| local("cannot read the received pack again", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_from_memory_and_file_alike() {
        let mut spool = Spool::new(None);
        let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for _ in 0..9 {
            spool.append(&block).expect("room for 9 MiB");
        }
        assert!(spool.file.is_some());
        let mut out = [0; 4];
        for offset in [0, (8 << 20) - 2, (8 << 20) + 254, (9 << 20) - 4] {
            let mut length = 0;
            while length < 4 {
                length += spool.read_at(offset + length as u64, &mut out[length..]).expect("readable");
            }
            let first = u8::try_from(offset & 255).expect("masked");
            assert_eq!(out, [0, 1, 2, 3].map(|step| first.wrapping_add(step)), "at {offset}");
        }
        assert_eq!(spool.read_at(9 << 20, &mut out).expect("the end is no error"), 0);
    }
}
