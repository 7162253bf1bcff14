//! The server against clients that say anything.

use super::*;

struct Shelf {
    objects: Vec<(Head, Vec<u8>)>,
    at: usize,
}

impl Source for Shelf {
    fn begin(&mut self, wants: &[ObjectId]) -> Result<(), String> {
        match wants.iter().find(|want| !self.objects.iter().any(|(head, _)| head.id == **want)) {
            Some(id) => Err(format!("{id} is not here")),
            None => Ok(()),
        }
    }

    fn next(&mut self) -> Result<Option<Head>, String> {
        self.at += 1;
        Ok(self.objects.get(self.at - 1).map(|(head, _)| *head))
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<(), String> {
        let bytes = &mut self.objects[self.at - 1].1;
        piece.copy_from_slice(&bytes[..piece.len()]);
        bytes.drain(..piece.len());
        Ok(())
    }
}

fn shelf(blobs: &[&[u8]]) -> Shelf {
    let objects = blobs.iter().map(|blob| {
        let id = gix::objs::compute_hash(HashKind::Sha1, Kind::Blob, blob).expect("hashed");
        (Head { id, kind: Kind::Blob, size: blob.len() as u64 }, blob.to_vec())
    });
    Shelf { objects: objects.collect(), at: 0 }
}

fn request(command: &str, arguments: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    packet::line(&mut out, &format!("command={command}"));
    packet::line(&mut out, "agent=git/x");
    packet::line(&mut out, "object-format=sha1");
    packet::delimiter(&mut out);
    for argument in arguments {
        packet::line(&mut out, argument);
    }
    packet::flush(&mut out);
    out
}

fn answer(input: &[u8], shelf: &mut Shelf) -> Result<Vec<u8>, io::Error> {
    let mut out = Vec::new();
    serve(HashKind::Sha1, &mut &input[..], &mut out, shelf)?;
    let greeting = out.windows(4).position(|four| four == b"0000").expect("a greeting") + 4;
    Ok(out[greeting..].to_vec())
}

#[test]
fn the_pack_it_sends_is_one_that_is_believed() {
    use crate::git::pack::{Options, decode};
    use crate::git::protocol::packet::SideBand;
    use crate::git::protocol::tests::wire;

    let large = vec![b'x'; 200_000];
    let mut shelf = shelf(&[b"", b"one", &large]);
    let wants: Vec<ObjectId> = shelf.objects.iter().map(|(head, _)| head.id).collect();
    let lines: Vec<String> = wants.iter().chain(&wants).map(|id| format!("want {id}")).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.extend(["thin-pack", "ofs-delta", "filter blob:none", "done"]);
    let input = [request("ls-refs", &["peel", "ref-prefix HEAD"]), request("fetch", &lines)].concat();
    let out = answer(&input, &mut shelf).expect("answered");
    let rest = out.strip_prefix(b"0000").expect("no refs").strip_prefix(b"000dpackfile\n").expect("a pack");
    let mut wire = wire(rest);
    let mut memory = crate::git::pack::tests::Kept(Vec::new());
    let decoded = decode(&mut SideBand::new(&mut wire), Options::new(HashKind::Sha1), &mut memory).expect("whole");
    assert_eq!(decoded.objects, 3, "each want once");
    assert!(wants.iter().all(|want| memory.0.iter().any(|(id, ..)| id == want)));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let id = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    let want = format!("want {id}");
    let bad = format!("want {}", "f".repeat(64));
    let err = |input: &[u8]| {
        let out = answer(input, &mut shelf(&[])).expect("refused in words");
        String::from_utf8(out.get(4..).unwrap_or_default().to_vec()).expect("text")
    };
    for (input, named) in [
        (request("fetch", &[&want, "done"]), id),
        (request("object-info", &[]), "object-info"),
        (request("fetch", &["done"]), "no objects"),
        (request("fetch", &[&want, "deepen 3", "done"]), "deepen 3"),
        (request("fetch", &[&want, "want-ref refs/heads/x"]), "want-ref"),
        (request("fetch", &[&want, "filter magic"]), "magic"),
        (request("fetch", &[&bad]), "ffff"),
        (b"000bhello\n\n0000".to_vec(), "hello"),
        (b"zzzz".to_vec(), "zzzz"),
        (b"0003".to_vec(), "0003"),
    ] {
        let text = err(&input);
        assert!(text.starts_with("ERR larder: ") && text.contains(named), "{text:?} does not name {named}");
    }
    let mut other = request("fetch", &[&want]);
    let at = other.windows(5).position(|word| word == b"=sha1").expect("there");
    other[at + 4] = b'9';
    assert!(err(&other).contains("sha9"));
}

#[test]
fn input_cut_anywhere_is_an_error_and_no_answer() {
    let id = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    let input = request("fetch", &[&format!("want {id}"), "done"]);
    for cut in 1..input.len() {
        let mut out = Vec::new();
        let ended = serve(HashKind::Sha1, &mut &input[..cut], &mut out, &mut shelf(&[b""]));
        assert!(ended.is_err(), "cut at {cut}");
        assert!(!out.windows(8).any(|word| word == b"packfile"), "cut at {cut}");
    }
}

#[test]
fn sizes_are_encoded_as_the_decoder_reads_them() {
    for size in [0, 15, 16, 2047, 2048, u64::from(u32::MAX), 1 << 40] {
        let head = entry_header(Kind::Blob, size);
        let mut value = u64::from(head[0] & 15);
        for (number, byte) in head[1..].iter().enumerate() {
            value |= u64::from(byte & 0x7f) << (4 + 7 * number);
        }
        assert_eq!((value, head[0] >> 4 & 7), (size, 3));
    }
}
