//! Applying a delta: copies from a base and insertions, every bound checked.

use super::buffer::Buffer;

/// A variable-length number, seven bits a byte, lowest first.
pub(super) fn size(delta: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0_u32);
    loop {
        let (&byte, rest) = delta.split_first()?;
        *delta = rest;
        let bits = u64::from(byte & 0x7f);
        let place = bits.checked_shl(shift).filter(|place| place >> shift == bits)?;
        value |= place;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

/// Sizes of base and result in the head of a delta, and its instructions.
pub(super) fn head(mut delta: &[u8]) -> Option<(u64, u64, &[u8])> {
    let base = size(&mut delta)?;
    let result = size(&mut delta)?;
    Some((base, result, delta))
}

/// Carries out `instructions`; the result must fill `out` exactly.
pub(super) fn apply(base: &[u8], mut instructions: &[u8], out: &mut Buffer) -> Result<(), &'static str> {
    let out: &mut [u8] = out;
    let mut at = 0;
    while let Some((&code, rest)) = instructions.split_first() {
        instructions = rest;
        let piece = match code {
            0 => return Err("a delta uses a reserved instruction"),
            1..=0x7f => {
                let (piece, rest) =
                    instructions.split_at_checked(usize::from(code)).ok_or("a delta ends in an insertion")?;
                instructions = rest;
                piece
            }
            _ => copied(base, code, &mut instructions)?,
        };
        let end = at + piece.len();
        out.get_mut(at..end).ok_or("a delta makes more than it says")?.copy_from_slice(piece);
        at = end;
    }
    if at == out.len() { Ok(()) } else { Err("a delta makes less than it says") }
}

/// The piece of `base` a copy instruction names.
fn copied<'a>(base: &'a [u8], code: u8, arguments: &mut &[u8]) -> Result<&'a [u8], &'static str> {
    let (mut offset, mut length) = (0_usize, 0_usize);
    for bit in 0..7 {
        if code & 1 << bit == 0 {
            continue;
        }
        let (&byte, rest) = arguments.split_first().ok_or("a delta ends in a copy")?;
        *arguments = rest;
        if bit < 4 {
            offset |= usize::from(byte) << (8 * bit);
        } else {
            length |= usize::from(byte) << (8 * (bit - 4));
        }
    }
    if length == 0 {
        length = 0x1_0000;
    }
    base.get(offset..offset + length).ok_or("a delta copies from outside its base")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(base: &[u8], instructions: &[u8], size: usize) -> Result<Vec<u8>, &'static str> {
        let mut out = Buffer::Memory(vec![0; size]);
        apply(base, instructions, &mut out)?;
        Ok(out.to_vec())
    }

    #[test]
    fn copies_and_insertions() {
        assert_eq!(run(b"hello world", &[0x90, 5, 2, b',', b' ', 0x91, 6, 5], 12), Ok(b"hello, world".to_vec()));
        let base = vec![7; 0x1_0000];
        assert_eq!(run(&base, &[0x80], 0x1_0000), Ok(base));
    }

    #[test]
    fn nothing_outside_base_or_result_is_touched() {
        for (instructions, size) in [
            (&[0][..], 1),
            (&[5, 1], 5),
            (&[0x91, 9], 5),
            (&[0x91, 9, 5], 5),
            (&[0x80], 5),
            (&[0x90, 5], 4),
            (&[0x90, 5], 6),
        ] {
            assert!(run(b"hello", instructions, size).is_err(), "{instructions:?}");
        }
        assert_eq!(size(&mut &[0xff; 10][..]), None);
        assert_eq!(size(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..]), None);
        assert_eq!(size(&mut &[0x80, 0x01][..]), Some(128));
    }
}
