//! The write-ahead file: operations acknowledged and not yet in redb.
//!
//! A record is handed to the operating system before the operation is answered, so it outlives the process; it is made
//! durable when something is fsynced. One file takes records while the one before it is folded into redb; its number is
//! in its name (`journal.N`).
//!
//! ```text
//! file    b"larderj1", then records
//! record  u32 length of the payload, u32 CRC-32 of length and payload, payload (postcard of `Change`)
//! ```
//! (little-endian). A record that is cut short or fails its check ends the file: it was never acknowledged, or the
//! machine lost power before it was fsynced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Change;

const MAGIC: &[u8; 8] = b"larderj1";

/// Longest record that is read: the longest paths and the largest extended attributes stay far below.
const RECORD_BYTES: usize = 16 << 20;

/// The file that takes records.
pub(super) struct Wal {
    file: Arc<File>,
    number: u64,
    length: u64,
    buffer: Vec<u8>,
}

impl Wal {
    /// Starts the file `number` in `directory`.
    pub(super) fn create(directory: &Path, number: u64) -> io::Result<Self> {
        let path = path(directory, number);
        // Its first bytes come with the first record: on a full disk a file can often be made, but not written to.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file: Arc::new(file), number, length: 0, buffer: Vec::new() })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes in it.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// For making it durable while others append.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Appends one record: all of it, or an error and nothing.
    pub(super) fn append(&mut self, change: &Change) -> io::Result<()> {
        self.buffer.clear();
        if self.length == 0 {
            self.buffer.extend_from_slice(MAGIC);
        }
        let head = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 8]);
        self.buffer = postcard::to_extend(change, std::mem::take(&mut self.buffer)).map_err(io::Error::other)?;
        let length = self.buffer.len() - head - 8;
        let length = u32::try_from(length).ok().filter(|length| (*length as usize) < RECORD_BYTES);
        let length = length.ok_or_else(|| io::Error::other("one operation changes too much to be written down"))?;
        let record = &mut self.buffer[head..];
        record[..4].copy_from_slice(&length.to_le_bytes());
        let check = check(&record[..4], &record[8..]);
        record[4..8].copy_from_slice(&check.to_le_bytes());
        // At a position of our own: what a failed write left half-done is written over by the next record.
        if let Err(error) = self.file.write_all_at(&self.buffer, self.length) {
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += self.buffer.len() as u64;
        Ok(())
    }
}

/// The numbers of the files in `directory`, oldest first.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix("journal.")).and_then(|number| number.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes the file `number`, whose records are in redb.
pub(super) fn remove(directory: &Path, number: u64) -> io::Result<()> {
    std::fs::remove_file(path(directory, number))
}

/// Reads the records of the file `number` up to the first that is not whole; true when there was such a one.
pub(super) fn replay(directory: &Path, number: u64, mut apply: impl FnMut(Change)) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(path(directory, number))?.read_to_end(&mut bytes)?;
    // A file that a killed process had just created.
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return Ok(!bytes.is_empty()) };
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let head_word = |at: usize| head[at..].first_chunk::<4>().map_or(0, |word| u32::from_le_bytes(*word));
        let (length, sum) = (head_word(0) as usize, head_word(4));
        let Some(payload) = tail.get(..length).filter(|_| length < RECORD_BYTES) else { return Ok(true) };
        if check(&head[..4], payload) != sum {
            return Ok(true);
        }
        match postcard::from_bytes(payload) {
            Ok(change) => apply(change),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        rest = &tail[length..];
    }
    Ok(!rest.is_empty())
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("journal.{number}"))
}

fn check(length: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(length);
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sequence: u64) -> Change {
        Change { sequence, paths: vec![Box::from(&b"a/b"[..])], ..Change::default() }
    }

    #[test]
    fn records_end_at_the_first_that_is_not_whole() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut wal = Wal::create(directory.path(), 7).expect("created");
        let mut ends = Vec::new();
        for sequence in 1..=3 {
            wal.append(&change(sequence)).expect("appended");
            ends.push(wal.length());
        }
        let whole = std::fs::read(path(directory.path(), 7)).expect("read");
        let read = |bytes: &[u8]| {
            std::fs::write(path(directory.path(), 8), bytes).expect("written");
            let mut found = Vec::new();
            let torn = replay(directory.path(), 8, |change| found.push(change.sequence)).expect("readable");
            (found.len() as u64, torn)
        };
        for cut in 0..=whole.len() {
            let expected = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
            let clean = cut == 0 || cut == 8 || ends.contains(&(cut as u64));
            assert_eq!(read(&whole[..cut]), (expected, !clean), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[12 + usize::try_from(ends[0]).expect("small")] ^= 1;
        assert_eq!(read(&damaged), (1, true));
        assert_eq!(numbers(directory.path()).expect("listed"), [7, 8]);
    }
}
