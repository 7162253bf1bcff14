use gix::ObjectId;
use proptest::prelude::*;

use super::read::{Next, ReadError, Reader};
use super::write::Writer;
use super::*;

fn id(byte: u8) -> ObjectId {
    ObjectId::from_bytes_or_panic(&[byte; 20])
}

fn header() -> Header {
    Header {
        repository: "https://example.org/a.git".into(),
        reference: Some("refs/heads/main".into()),
        default_branch: true,
        commit: ObjectIdText(id(1)),
        tree: ObjectIdText(id(2)),
        object_hash: "sha1".into(),
        pathspecs: vec!["src".into()],
        created: "2024-03-01T12:00:00Z".into(),
        larder: "0.1.0".into(),
    }
}

/// Bytes that no compressor shrinks.
fn noise(length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn records() -> Vec<(What, ObjectId, Vec<u8>)> {
    vec![
        (What::Commit, id(1), b"tree 02\n\na commit".repeat(3)),
        (What::Tree, id(2), Vec::new()),
        (What::Blob, id(3), noise(100)),
        (What::Blob, id(4), b"the same again ".repeat(40)),
        (What::Sizes, id(2), vec![255; 16]),
    ]
}

fn written(records: &[(What, ObjectId, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), &header()).expect("memory takes it");
    for (what, id, raw) in records {
        writer.record(Head { what: *what, id: *id, raw_size: raw.len() as u64 }, raw).expect("memory takes it");
    }
    writer.finish().expect("memory takes it").0
}

type Records = Vec<(What, ObjectId, Vec<u8>)>;

/// Reads to the end; with the error, what was whole before it.
fn read(bytes: &[u8]) -> Result<Records, (Records, ReadError)> {
    let mut all = Vec::new();
    let (_, mut reader) = match Reader::open(bytes) {
        Ok(opened) => opened,
        Err(error) => return Err((all, error)),
    };
    let one = |reader: &mut Reader<&[u8]>| {
        let Next::Record(head) = reader.advance()? else { return Ok(None) };
        let (mut raw, mut piece) = (Vec::new(), Vec::new());
        while reader.piece(&mut piece)? {
            raw.extend_from_slice(&piece);
        }
        Ok(Some((head.what, head.id, raw)))
    };
    loop {
        match one(&mut reader) {
            Ok(Some(record)) => all.push(record),
            Ok(None) => return Ok(all),
            Err(error) => return Err((all, error)),
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let mut records = records();
    records.push((What::Blob, id(5), noise(2 * PIECE_BYTES + 1)));
    records.push((What::Blob, id(6), vec![b'x'; PIECE_BYTES]));
    let bytes = written(&records);
    assert_eq!(read(&bytes).expect("whole"), records);
    let (found, mut reader) = Reader::open(&bytes[..]).expect("whole");
    assert_eq!(found, header());
    for _ in &records {
        assert!(matches!(reader.advance(), Ok(Next::Record(_))));
        reader.skip().expect("passed over");
    }
    assert!(matches!(reader.advance(), Ok(Next::End)));
    assert!(reader.mark().totals.stored_bytes < reader.mark().totals.raw_bytes);
}

#[test]
fn a_part_is_continued_to_the_same_bytes() {
    let records = records();
    let whole = written(&records);
    for kept in 0..=records.len() {
        let (_, mut reader) = Reader::open(&whole[..]).expect("whole");
        for _ in 0..kept {
            reader.advance().expect("a record");
            reader.skip().expect("passed over");
        }
        let mark = reader.mark().clone();
        let begin = whole[..usize::try_from(mark.offset).expect("small")].to_vec();
        let mut writer = Writer::resume(begin, mark).expect("memory takes it");
        for (what, id, raw) in &records[kept..] {
            writer.record(Head { what: *what, id: *id, raw_size: raw.len() as u64 }, raw).expect("memory takes it");
        }
        let (bytes, length) = writer.finish().expect("memory takes it");
        assert_eq!(bytes, whole);
        assert_eq!(length, whole.len() as u64);
    }
}

#[test]
fn cut_anywhere_it_is_refused_and_what_was_whole_before_is_right() {
    let records = records();
    let bytes = written(&records);
    for cut in 0..bytes.len() {
        let (before, error) = read(&bytes[..cut]).expect_err("cut");
        assert!(matches!(error, ReadError::Cut(at) if at == cut as u64) || cut < MAGIC.len(), "cut at {cut}: {error}");
        assert_eq!(before, records[..before.len()]);
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(read(&longer), Err((_, ReadError::Damaged { .. }))));
}

#[test]
fn every_flipped_bit_is_noticed_before_anything_of_it_is_believed() {
    let records = records();
    let bytes = written(&records);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (before, error) = read(&damaged).expect_err("damaged");
        assert_eq!(before, records[..before.len()], "bit {bit}");
        assert!(!matches!(error, ReadError::Newer(_) | ReadError::Io(_)), "bit {bit}: {error}");
    }
}

#[test]
fn a_newer_version_is_told_from_a_damaged_one() {
    let mut bytes = written(&records());
    bytes[8..12].copy_from_slice(&[2, 0, 253, 255]);
    assert!(matches!(read(&bytes), Err((_, ReadError::Newer(2)))));
    assert!(matches!(read(b"PACK\0\0\0\x02...................."), Err((_, ReadError::Foreign))));
    assert!(matches!(read(b""), Err((_, ReadError::Foreign))));
}

#[test]
fn a_piece_that_is_a_bomb_takes_no_more_than_a_piece() {
    let head = Head { what: What::Blob, id: id(3), raw_size: 10 };
    let mut writer = Writer::begin(Vec::new(), &header()).expect("memory takes it");
    writer.start(head).expect("memory takes it");
    let (offset, _) = writer.so_far();
    writer.piece(b"0123456789").expect("memory takes it");
    writer.end().expect("memory takes it");
    let (mut bytes, _) = writer.finish().expect("memory takes it");
    // In place of the ten bytes: lengths that are absurd, and the beginning of a frame that holds a mebibyte.
    let at = usize::try_from(offset).expect("small");
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 19).expect("compressed");
    for length in [u32::MAX, 11, 0, 1 << 20] {
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(read(&bytes), Err((_, ReadError::Damaged { .. }))), "{length}");
    }
    bytes[at..at + 4].copy_from_slice(&9_u32.to_le_bytes());
    bytes[at + 4..at + 13].copy_from_slice(&bomb[..9]);
    assert!(matches!(read(&bytes), Err((_, ReadError::Damaged { .. }))));
}

#[test]
fn only_what_both_are_about_is_compared() {
    let one = header();
    assert!(one.is_about(&Header { created: "later".into(), larder: "9".into(), ..header() }));
    assert!(!one.is_about(&Header { pathspecs: Vec::new(), ..header() }));
    assert!(!one.is_about(&Header { commit: ObjectIdText(id(9)), ..header() }));
    assert_eq!(Header { object_hash: "sha256".into(), ..header() }.hash(), None, "the ids are of the other format");
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..600), keep in 0_usize..900) {
        let whole = written(&records());
        let mut damaged = whole[..keep.min(whole.len())].to_vec();
        damaged.extend_from_slice(&bytes);
        let outcome = read(&damaged);
        prop_assert!(outcome.is_err() || damaged == whole);
    }
}
