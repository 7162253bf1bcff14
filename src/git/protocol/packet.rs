//! Packets: four hexadecimal digits of length, then that many bytes less four.
//!
//! Owns the writing of requests and the checked reading of answers, with or
//! without side bands. Refuses lengths that are no number or too small.

use crate::git::error::{corrupt, cut, server_said};
use crate::git::transport::{CancelHandle, Transport};
use crate::hydrate::remote::RemoteError;

/// The largest packet there can be: `ffff` is refused by Git too, but harmless.
const PACKET_BYTES: usize = 0xffff;

/// Bytes read from the transport at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Appends a data packet.
pub(crate) fn data(request: &mut Vec<u8>, payload: &[u8]) {
    debug_assert!(payload.len() <= 65_516, "requests are made of short lines");
    request.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    request.extend_from_slice(payload);
}

/// Appends a line, with its newline.
pub(crate) fn line(request: &mut Vec<u8>, text: &str) {
    data(request, format!("{text}\n").as_bytes());
}

/// Appends the packet between a command and its arguments.
pub(crate) fn delimiter(request: &mut Vec<u8>) {
    request.extend_from_slice(b"0001");
}

/// Appends the packet that ends a request.
pub(crate) fn flush(request: &mut Vec<u8>) {
    request.extend_from_slice(b"0000");
}

/// One packet of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Data(&'a [u8]),
    Delimiter,
    Flush,
    ResponseEnd,
}

impl<'a> Packet<'a> {
    /// A data packet's text without its newline.
    pub(crate) fn line(&self) -> Option<&'a [u8]> {
        match self {
            Self::Data(bytes) => Some(bytes.strip_suffix(b"\n").unwrap_or(bytes)),
            _ => None,
        }
    }
}

/// A transport with packets on it.
pub(crate) struct Wire {
    transport: Box<dyn Transport>,
    address: String,
    cancel: CancelHandle,
    buffer: Box<[u8]>,
    /// Unread bytes of the buffer.
    from: usize,
    to: usize,
    /// A packet that was not whole in the buffer.
    assembled: Vec<u8>,
    bytes_in: u64,
}

impl Wire {
    pub(crate) fn new(transport: Box<dyn Transport>, address: String, cancel: CancelHandle) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { transport, address, cancel, buffer, from: 0, to: 0, assembled: Vec::new(), bytes_in: 0 }
    }

    /// Sends a whole request.
    pub(crate) fn send(&mut self, request: Vec<u8>) -> Result<(), RemoteError> {
        self.from = self.to;
        let sent = self.transport.send(request);
        self.unless_cancelled(sent)
    }

    /// Whether the server hung up since the last answer.
    pub(crate) fn is_stale(&self) -> bool {
        self.from < self.to || self.transport.is_stale()
    }

    /// Bytes received so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The next packet. `ERR` lines are errors.
    pub(crate) fn packet(&mut self) -> Result<Packet<'_>, RemoteError> {
        let Some(length) = self.length()? else {
            return Ok(Packet::Flush);
        };
        match length {
            1 => return Ok(Packet::Delimiter),
            2 => return Ok(Packet::ResponseEnd),
            _ => {}
        }
        let length = length - 4;
        let payload = if self.to - self.from >= length {
            self.from += length;
            &self.buffer[self.from - length..self.from]
        } else {
            let mut assembled = std::mem::take(&mut self.assembled);
            assembled.resize(length, 0);
            let read = self.fill(&mut assembled);
            self.assembled = assembled;
            read?;
            &self.assembled[..]
        };
        match payload.strip_prefix(b"ERR ") {
            Some(text) => Err(server_said(&self.address, text)),
            None => Ok(Packet::Data(payload)),
        }
    }

    /// The length field of the next packet; `None` for a flush.
    fn length(&mut self) -> Result<Option<usize>, RemoteError> {
        let mut digits = [0; 4];
        self.fill(&mut digits)?;
        let length = std::str::from_utf8(&digits)
            .ok()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .filter(|length| *length <= PACKET_BYTES && *length != 3)
            .ok_or_else(|| {
                let got = crate::git::error::one_line(&digits);
                corrupt(format!("{} sent {got:?} where the length of a packet belongs", self.address))
            })?;
        Ok((length != 0).then_some(length))
    }

    /// Fills `out`; an end before that is an error.
    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), RemoteError> {
        while !out.is_empty() {
            let read = self.read_some(out)?;
            if read == 0 {
                let reason = self.transport.reason_of_end().unwrap_or_else(|| cut(&self.address));
                return self.unless_cancelled(Err(reason));
            }
            out = &mut out[read..];
        }
        Ok(())
    }

    /// Reads from the buffer, refilling it when empty.
    fn read_some(&mut self, out: &mut [u8]) -> Result<usize, RemoteError> {
        if self.from == self.to {
            let read = self.transport.read(&mut self.buffer);
            self.to = self.unless_cancelled(read)?;
            self.from = 0;
            self.bytes_in += self.to as u64;
        }
        let length = out.len().min(self.to - self.from);
        out[..length].copy_from_slice(&self.buffer[self.from..self.from + length]);
        self.from += length;
        Ok(length)
    }

    fn unless_cancelled<T>(&self, result: Result<T, RemoteError>) -> Result<T, RemoteError> {
        match result {
            Err(_) if self.cancel.is_cancelled() => Err(CancelHandle::error()),
            other => other,
        }
    }
}

/// The bytes of band 1 of an answer.
pub(crate) struct SideBand<'a> {
    wire: &'a mut Wire,
    /// Bytes of the current packet not yet read.
    left: usize,
    ended: bool,
}

impl<'a> SideBand<'a> {
    pub(crate) fn new(wire: &'a mut Wire) -> Self {
        Self { wire, left: 0, ended: false }
    }

    /// Moves to the next packet of band 1; `false` at the end.
    fn advance(&mut self) -> Result<bool, RemoteError> {
        while self.left == 0 && !self.ended {
            let length = match self.wire.length()? {
                None | Some(2) => {
                    self.ended = true;
                    break;
                }
                Some(length @ 5..) => length - 5,
                Some(length) => {
                    return Err(corrupt(format!("{} sent a packet of length {length} in a pack", self.wire.address)));
                }
            };
            let mut band = [0];
            self.wire.fill(&mut band)?;
            if band[0] == 1 {
                self.left = length;
                continue;
            }
            let mut text = vec![0; length];
            self.wire.fill(&mut text)?;
            match band[0] {
                2 => tracing::debug!(remote = self.wire.address, "{}", crate::git::error::one_line(&text)),
                3 => return Err(server_said(&self.wire.address, &text)),
                band => return Err(corrupt(format!("{} sent side band {band}", self.wire.address))),
            }
        }
        Ok(self.left > 0)
    }
}

impl crate::git::pack::ByteSource for SideBand<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, RemoteError> {
        if out.is_empty() || !self.advance()? {
            return Ok(0);
        }
        let length = out.len().min(self.left);
        let read = self.wire.read_some(&mut out[..length])?;
        if read == 0 {
            let reason = self.wire.transport.reason_of_end().unwrap_or_else(|| cut(&self.wire.address));
            return self.wire.unless_cancelled(Err(reason));
        }
        self.left -= read;
        Ok(read)
    }
}
