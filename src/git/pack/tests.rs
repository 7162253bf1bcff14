//! Packs made by hand: honest ones in every order, and hostile ones.

#![expect(clippy::cast_possible_truncation, reason = "digits are cut out of numbers by casting")]

use std::io::{self, Write};

use bytes::Bytes;
use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;
use proptest::prelude::*;

use super::*;
use crate::hydrate::remote::{FailureKind, LARGE_BLOB_BYTES, LargeSink, Sink};

/// Keeps everything it is given.
#[derive(Default)]
pub(crate) struct Kept(pub(crate) Vec<(ObjectId, Kind, Vec<u8>)>);

impl Sink for Kept {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        self.0.push((id, kind, data.to_vec()));
        Ok(())
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        assert!(raw_size > LARGE_BLOB_BYTES);
        Ok(Box::new(KeptLarge(self, Vec::new())))
    }
}

struct KeptLarge<'a>(&'a mut Kept, Vec<u8>);

impl Write for KeptLarge<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LargeSink for KeptLarge<'_> {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        self.0.0.push((id, Kind::Blob, self.1));
        Ok(())
    }
}

/// Writes packs, truthful or not.
struct Builder {
    bytes: Vec<u8>,
    offsets: Vec<u64>,
}

impl Builder {
    fn new(count: u32) -> Self {
        let mut bytes = b"PACK\0\0\0\x02".to_vec();
        bytes.extend_from_slice(&count.to_be_bytes());
        Self { bytes, offsets: Vec::new() }
    }

    fn head(&mut self, code: u8, mut size: u64) {
        self.offsets.push(self.bytes.len() as u64);
        let mut byte = code << 4 | (size & 15) as u8;
        size >>= 4;
        while size > 0 {
            self.bytes.push(byte | 0x80);
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        self.bytes.push(byte);
    }

    fn content(&mut self, content: &[u8]) {
        let mut encoder = flate2::write::ZlibEncoder::new(&mut self.bytes, flate2::Compression::fast());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory");
    }

    fn blob(&mut self, content: &[u8]) {
        self.head(3, content.len() as u64);
        self.content(content);
    }

    fn offset_delta(&mut self, distance: u64, delta: &[u8]) {
        self.head(6, delta.len() as u64);
        let mut digits = vec![(distance & 0x7f) as u8];
        let mut rest = distance >> 7;
        while rest > 0 {
            rest -= 1;
            digits.push(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        digits.reverse();
        self.bytes.extend_from_slice(&digits);
        self.content(delta);
    }

    fn delta_to_entry(&mut self, entry: usize, delta: &[u8]) {
        let distance = self.bytes.len() as u64 - self.offsets[entry];
        self.offset_delta(distance, delta);
    }

    fn delta_to_id(&mut self, id: ObjectId, delta: &[u8]) {
        self.head(7, delta.len() as u64);
        self.bytes.extend_from_slice(id.as_bytes());
        self.content(delta);
    }

    fn finish(mut self) -> Vec<u8> {
        let mut checksum = super::input::Checksum::new(HashKind::Sha1);
        checksum.update(&self.bytes);
        self.bytes.extend_from_slice(checksum.finish().as_bytes());
        self.bytes
    }
}

fn number(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A delta that takes all of the base and appends `tail`.
fn appending(base: usize, tail: &[u8]) -> Vec<u8> {
    let mut delta = [number(base), number(base + tail.len())].concat();
    let mut at = 0;
    while at < base {
        let length = (base - at).min(0xff_ffff);
        delta.push(0xff);
        delta.extend_from_slice(&u32::try_from(at).expect("small").to_le_bytes());
        delta.extend_from_slice(&u32::try_from(length).expect("small").to_le_bytes()[..3]);
        at += length;
    }
    for piece in tail.chunks(127) {
        delta.push(piece.len() as u8);
        delta.extend_from_slice(piece);
    }
    delta
}

fn id(content: &[u8]) -> ObjectId {
    gix::objs::compute_hash(HashKind::Sha1, Kind::Blob, content).expect("no attack")
}

fn read(pack: &[u8]) -> Result<Vec<(ObjectId, Kind, Vec<u8>)>, RemoteError> {
    let mut kept = Kept::default();
    decode(&mut &*pack, Options::new(HashKind::Sha1), &mut kept).map(|_| kept.0)
}

fn contents(pack: &[u8]) -> Vec<Vec<u8>> {
    let objects = read(pack).unwrap_or_else(|error| panic!("{error}"));
    for (name, kind, content) in &objects {
        assert_eq!((*name, *kind), (id(content), Kind::Blob));
    }
    objects.into_iter().map(|(_, _, content)| content).collect()
}

fn refused(pack: &[u8]) -> String {
    let error = read(pack).expect_err("refused");
    assert_eq!(error.kind, FailureKind::Corrupt, "{error}");
    error.message
}

#[test]
fn objects_and_deltas_in_every_order() {
    let mut pack = Builder::new(5);
    // Both wait: by position for one that waits by id.
    pack.delta_to_id(id(b"base"), &appending(4, b"+1"));
    pack.delta_to_entry(0, &appending(6, b"+2"));
    pack.blob(b"base");
    pack.delta_to_entry(2, &appending(4, b"+3"));
    pack.delta_to_id(id(b"base+1+2"), &appending(8, b""));
    let mut got = contents(&pack.finish());
    got.sort();
    assert_eq!(got, [&b"base"[..], b"base+1", b"base+1+2", b"base+1+2", b"base+3"]);
    assert!(contents(&Builder::new(0).finish()).is_empty());
}

#[test]
fn chains_of_any_length_need_no_stack() {
    let length = 20_000;
    let mut pack = Builder::new(length + 1);
    // The last link first: nothing can be resolved before the base comes at the end.
    let content = |links: u32| [b"x".repeat(links as usize % 50), links.to_be_bytes().to_vec()].concat();
    for link in (1..=length).rev() {
        let (base, this) = (content(link - 1), content(link));
        let mut delta = [number(base.len()), number(this.len())].concat();
        delta.push(this.len() as u8);
        delta.extend_from_slice(&this);
        pack.delta_to_id(id(&base), &delta);
    }
    pack.blob(&content(0));
    assert_eq!(contents(&pack.finish()).len(), length as usize + 1);
}

#[test]
fn bases_given_up_are_decoded_again() {
    let block = vec![b'b'; LARGE_BLOB_BYTES as usize - 10];
    let mut pack = Builder::new(14);
    pack.blob(&block);
    pack.delta_to_entry(0, &appending(block.len(), b"1"));
    for number in 0..10_u8 {
        // Push the first two out of the cache.
        pack.blob(&[&block[..], &[number]].concat()[1..]);
    }
    pack.delta_to_entry(1, &appending(block.len() + 1, b"2"));
    pack.delta_to_entry(12, &appending(block.len() + 2, b"3"));
    let got = contents(&pack.finish());
    assert_eq!(got[13], [&block[..], b"123"].concat());
}

#[test]
fn large_blobs_are_streamed_and_serve_as_bases() {
    let large: Vec<u8> = (0..LARGE_BLOB_BYTES as usize + 5000).map(|at| ((at * 31) >> 7) as u8).collect();
    let mut pack = Builder::new(3);
    pack.blob(&large);
    pack.delta_to_entry(0, &appending(large.len(), b"tail"));
    pack.delta_to_entry(1, &[number(large.len() + 4), number(3), vec![3], b"abc".to_vec()].concat());
    assert_eq!(contents(&pack.finish()), [large.clone(), [&large[..], b"tail"].concat(), b"abc".to_vec()]);
}

#[test]
fn sizes_that_do_not_hold_are_refused() {
    for (says, is) in
        [(4, 5), (6, 5), (0, 5), (1, 0), (LARGE_BLOB_BYTES + 1, 5), (LARGE_BLOB_BYTES + 1, LARGE_BLOB_BYTES + 2)]
    {
        let mut pack = Builder::new(1);
        pack.head(3, says);
        pack.content(&vec![7; is as usize]);
        let why = refused(&pack.finish());
        assert!(why.contains("than it says") && why.contains("byte 12"), "{why}");
    }
    // A bomb: a gigabyte of zeros that says it is a byte.
    let mut pack = Builder::new(1);
    pack.head(3, 1);
    pack.content(&vec![0; 64 << 20]);
    assert!(pack.bytes.len() < 1 << 20);
    refused(&pack.finish());
    for code in [1, 2, 3, 4, 6, 7] {
        let mut pack = Builder::new(1);
        pack.head(code, 1 << 62);
        pack.bytes.extend_from_slice(&[0; 64]);
        refused(&pack.finish());
    }
    let mut pack = Builder::new(1);
    pack.offsets.push(12);
    pack.bytes.extend_from_slice(&[0xff; 12]);
    assert!(refused(&pack.finish()).contains("absurd"));
}

#[test]
fn a_delta_cannot_make_more_than_allowed() {
    // 16 MiB of base copied again and again: 70 bytes of delta for a petabyte.
    let base = vec![0; 1 << 20];
    let mut pack = Builder::new(2);
    pack.blob(&base);
    pack.delta_to_entry(0, &[number(base.len()), number(1 << 50), vec![0x80; 64]].concat());
    assert!(refused(&pack.finish()).contains("absurd"));
}

#[test]
fn bases_must_be_in_the_pack_and_before() {
    for distance in [0, 1, 5, 1 << 20, u64::MAX >> 8] {
        let mut pack = Builder::new(2);
        pack.blob(b"first");
        pack.offset_delta(distance, &appending(5, b"x"));
        refused(&pack.finish());
    }
    let absent = id(b"elsewhere");
    let mut pack = Builder::new(1);
    pack.delta_to_id(absent, &appending(9, b"x"));
    let error = read(&pack.finish()).expect_err("refused");
    assert_eq!((error.kind, error.object), (FailureKind::Corrupt, Some(absent)));
    // To itself, if that were possible: an id nobody else has.
    let mut pack = Builder::new(2);
    pack.delta_to_id(id(b"a"), &appending(1, b""));
    pack.delta_to_entry(0, &appending(1, b""));
    refused(&pack.finish());
}

#[test]
fn wrong_base_sizes_and_instructions_are_refused() {
    for delta in [appending(4, b"x"), appending(6, b"x"), vec![], vec![5], vec![5, 1, 0], vec![5, 9, 0x90, 5]] {
        let mut pack = Builder::new(2);
        pack.blob(b"first");
        pack.delta_to_entry(0, &delta);
        refused(&pack.finish());
    }
}

#[test]
fn damage_at_any_byte_is_noticed() {
    let mut pack = Builder::new(4);
    pack.blob(b"some content that is long enough to be compressed, compressed, compressed");
    pack.delta_to_entry(0, &appending(73, b"!"));
    pack.delta_to_id(id(b"late"), &appending(4, b"r"));
    pack.blob(b"late");
    let good = pack.finish();
    let known: Vec<ObjectId> = contents(&good).iter().map(|content| id(content)).collect();
    for at in 0..good.len() {
        refused(&good[..at]);
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let mut kept = Kept::default();
            assert!(decode(&mut &*bad, Options::new(HashKind::Sha1), &mut kept).is_err(), "byte {at}, bit {bit}");
            // What was handed on before the damage showed is what its id says.
            for (name, kind, content) in kept.0 {
                let computed = gix::objs::compute_hash(HashKind::Sha1, kind, &content).expect("no attack");
                assert!(name == computed && (known.contains(&name) || content.len() < 200));
            }
        }
    }
    assert!(refused(&[&good[..], b"x"].concat()).contains("follow its end"));
}

#[test]
fn a_pack_longer_than_allowed_is_cut_off() {
    let mut pack = Builder::new(1);
    let noise: Vec<u8> = (0..400_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    pack.blob(&noise);
    let pack = pack.finish();
    let options = Options { max_bytes: Some(200_000), ..Options::new(HashKind::Sha1) };
    let error = decode(&mut &*pack, options, &mut Kept::default()).err().expect("refused");
    assert_eq!(error.kind, FailureKind::Unsupported);
}

#[test]
fn duplicates_are_refused_where_an_index_is_written() {
    let mut pack = Builder::new(2);
    pack.blob(b"twin");
    pack.blob(b"twin");
    let options = Options { index: true, ..Options::new(HashKind::Sha1) };
    let error = decode(&mut &*pack.finish(), options, &mut Kept::default()).err().expect("refused");
    assert_eq!((error.kind, error.object), (FailureKind::Corrupt, Some(id(b"twin"))));
}

#[test]
fn long_offsets_go_into_their_own_table() {
    let pack = id(b"pack");
    let mut rows: Vec<_> = [(b"a", 12), (b"b", 5 << 31), (b"c", 1 << 31)]
        .map(|(content, offset)| IndexRow { id: id(content), crc: 7, offset })
        .to_vec();
    rows.sort_unstable();
    let mut out = Vec::new();
    write_index(&rows, pack, &mut out).expect("memory");
    let long = &out[8 + 1024 + 3 * (20 + 4 + 4)..][..16];
    let (first, second) = (long[..8].try_into().map(u64::from_be_bytes), long[8..].try_into().map(u64::from_be_bytes));
    let mut offsets = [first.expect("eight bytes"), second.expect("eight bytes")];
    offsets.sort_unstable();
    assert_eq!(offsets, [1 << 31, 5 << 31]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400), count in 0..4_u32) {
        let mut pack = Builder::new(count);
        pack.bytes.extend_from_slice(&body);
        let _ = read(&pack.finish());
        let _ = read(&body);
    }
}
