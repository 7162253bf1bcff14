//! A `git://` server that lies: protocol version 2 with whatever refs and pack a test hands it.
//!
//! Owns just enough of the protocol to be believed up to the pack. It answers
//! every fetch with the same bytes, so a client that asks again is lied to again.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest, Sha1};

/// Object types in a pack.
pub const COMMIT: u8 = 1;
pub const TREE: u8 = 2;
pub const BLOB: u8 = 3;
pub const OFS_DELTA: u8 = 6;
pub const REF_DELTA: u8 = 7;

/// A running liar.
pub struct FakeRemote {
    port: u16,
    closing: Arc<AtomicBool>,
}

impl FakeRemote {
    /// Names `head` as `refs/heads/main` and answers fetches with `packs` in turn, the last one again and again.
    pub fn serve(head: [u8; 20], packs: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("bound").port();
        let closing = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closing);
        let packs = Arc::new(packs);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let packs = Arc::clone(&packs);
                thread::spawn(move || answer(stream, head, &packs));
            }
        });
        Self { port, closing }
    }

    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/liar.git", self.port)
    }
}

impl Drop for FakeRemote {
    fn drop(&mut self) {
        self.closing.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Speaks until the client leaves; every error is the client leaving.
fn answer(mut stream: TcpStream, head: [u8; 20], packs: &[Vec<u8>]) -> Option<()> {
    let head = gix::ObjectId::Sha1(head);
    stream.set_read_timeout(Some(Duration::from_mins(1))).ok()?;
    line(&mut stream)??;
    let mut hello = Vec::new();
    for capability in
        ["version 2", "agent=liar", "ls-refs=unborn", "fetch=shallow wait-for-done filter", "object-format=sha1"]
    {
        packet(&mut hello, format!("{capability}\n").as_bytes());
    }
    hello.extend_from_slice(b"0000");
    stream.write_all(&hello).ok()?;
    loop {
        let command = line(&mut stream)??;
        // Arguments end with a flush packet, which `line` shows as an empty one.
        let mut asked_commit = false;
        while let Some(argument) = line(&mut stream)? {
            asked_commit |= argument.starts_with(format!("want {head}").as_bytes());
        }
        let mut reply = Vec::new();
        if command.starts_with(b"command=ls-refs") {
            packet(&mut reply, format!("{head} HEAD symref-target:refs/heads/main\n").as_bytes());
            packet(&mut reply, format!("{head} refs/heads/main\n").as_bytes());
        } else {
            if asked_commit {
                packet(&mut reply, b"shallow-info\n");
                packet(&mut reply, format!("shallow {head}\n").as_bytes());
                reply.extend_from_slice(b"0001");
            }
            packet(&mut reply, b"packfile\n");
            let pack = if asked_commit { packs.first()? } else { packs.last()? };
            for piece in pack.chunks(60_000) {
                packet(&mut reply, &[&[1], piece].concat());
            }
        }
        reply.extend_from_slice(b"0000");
        stream.write_all(&reply).ok()?;
    }
}

/// One packet line; the inner `None` is a flush packet. Delimiters are skipped.
#[expect(clippy::option_option, reason = "the end of the stream and the end of a list differ")]
fn line(stream: &mut TcpStream) -> Option<Option<Vec<u8>>> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        match usize::from_str_radix(std::str::from_utf8(&length).ok()?, 16).ok()? {
            0 => return Some(None),
            1 => {}
            size => {
                let mut bytes = vec![0; size.checked_sub(4)?];
                stream.read_exact(&mut bytes).ok()?;
                return Some(Some(bytes));
            }
        }
    }
}

fn packet(to: &mut Vec<u8>, payload: &[u8]) {
    to.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    to.extend_from_slice(payload);
}

/// A pack of these entries that says it holds `count`, with a correct trailer.
pub fn pack(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&count.to_be_bytes());
    pack.extend(entries.iter().flatten());
    let trailer = Sha1::digest(&pack);
    pack.extend_from_slice(&trailer);
    pack
}

/// An entry that says it inflates to `size` bytes, and `content` deflated; `base` stands before the data of deltas.
pub fn entry(kind: u8, size: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let low = u8::try_from(size & 15).expect("four bits");
    let mut rest = size >> 4;
    let mut byte = kind << 4 | low;
    while rest > 0 {
        bytes.push(byte | 0x80);
        byte = u8::try_from(rest & 0x7f).expect("seven bits");
        rest >>= 7;
    }
    bytes.push(byte);
    bytes.extend_from_slice(base);
    let mut zlib = ZlibEncoder::new(bytes, Compression::best());
    zlib.write_all(content).expect("a vector takes everything");
    zlib.finish().expect("a vector takes everything")
}

/// The id git gives this object.
pub fn object_id(kind: &str, content: &[u8]) -> [u8; 20] {
    let mut object = format!("{kind} {}\0", content.len()).into_bytes();
    object.extend_from_slice(content);
    Sha1::digest(&object).into()
}
