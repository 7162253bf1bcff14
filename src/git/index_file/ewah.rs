//! Git's compressed bitmaps (Documentation/gitformat-pack-bitmap, appendix), written only.
//!
//! ```text
//! u32 number of bits, u32 number of 64-bit words
//! words: a marker { 1 bit run value, 32 bits run length in words, 31 bits literal words }, its literals, next marker…
//! u32 position of the last marker                                   (integers big-endian)
//! ```

/// Most words of one value a marker counts.
const MAX_RUN: u64 = (1 << 32) - 1;
/// Most literal words a marker counts.
const MAX_LITERALS: u64 = (1 << 31) - 1;

/// A bitmap, appended to word by word.
struct Ewah {
    words: Vec<u64>,
    marker: usize,
}

impl Ewah {
    fn run(&self) -> (u64, u64, u64) {
        let marker = self.words[self.marker];
        (marker & 1, (marker >> 1) & MAX_RUN, marker >> 33)
    }

    fn set_marker(&mut self, value: u64, length: u64, literals: u64) {
        self.words[self.marker] = value | (length << 1) | (literals << 33);
    }

    fn new_marker(&mut self) {
        self.marker = self.words.len();
        self.words.push(0);
    }

    /// Appends `count` words that are all zeros (`value` 0) or all ones (1).
    fn push_run(&mut self, value: u64, mut count: u64) {
        while count > 0 {
            let (run_value, length, literals) = self.run();
            let fits = literals == 0 && (length == 0 || run_value == value) && length < MAX_RUN;
            if !fits {
                self.new_marker();
                continue;
            }
            let added = count.min(MAX_RUN - length);
            self.set_marker(value, length + added, 0);
            count -= added;
        }
    }

    fn push_literal(&mut self, word: u64) {
        if self.run().2 == MAX_LITERALS {
            self.new_marker();
        }
        let (value, length, literals) = self.run();
        self.set_marker(value, length, literals + 1);
        self.words.push(word);
    }

    fn push_word(&mut self, word: u64) {
        match word {
            0 => self.push_run(0, 1),
            u64::MAX => self.push_run(1, 1),
            literal => self.push_literal(literal),
        }
    }
}

/// Serialises the bitmap in which exactly the bits at `positions`, ascending, are set.
pub(super) fn bitmap(positions: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut ewah = Ewah { words: vec![0], marker: 0 };
    let (mut index, mut word, mut bits) = (0_u64, 0_u64, 0_u32);
    for position in positions {
        debug_assert!(position >= bits, "ascending");
        bits = position + 1;
        let at = u64::from(position / 64);
        if at != index {
            ewah.push_word(word);
            ewah.push_run(0, at - index - 1);
            (index, word) = (at, 0);
        }
        word |= 1 << (position % 64);
    }
    if bits > 0 {
        ewah.push_word(word);
    }
    let count = u32::try_from(ewah.words.len()).expect("no more words than 32-bit positions");
    let marker = u32::try_from(ewah.marker).expect("below the number of words");
    let mut out = Vec::with_capacity(12 + 8 * ewah.words.len());
    out.extend_from_slice(&bits.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    for word in &ewah.words {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&marker.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a bitmap as Git's `ewah_each_bit` does.
    fn positions(bytes: &[u8]) -> Vec<u32> {
        let u32_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let count = u32_at(4) as usize;
        let words: Vec<u64> = (0..count)
            .map(|i| u64::from_be_bytes(bytes[8 + 8 * i..16 + 8 * i].try_into().expect("eight bytes")))
            .collect();
        assert_eq!(bytes.len(), 12 + 8 * count);
        let (mut found, mut position, mut at, mut last_marker) = (Vec::new(), 0_u32, 0, 0);
        while at < words.len() {
            last_marker = at;
            let run = u32::try_from((words[at] >> 1) & MAX_RUN).expect("32 bits") * 64;
            if words[at] & 1 == 1 {
                found.extend(position..position + run);
            }
            position += run;
            let literals = usize::try_from(words[at] >> 33).expect("31 bits");
            for word in &words[at + 1..=at + literals] {
                found.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| position + bit));
                position += 64;
            }
            at += 1 + literals;
        }
        assert_eq!(u32_at(8 + 8 * count) as usize, last_marker);
        assert_eq!(u32_at(0), found.last().map_or(0, |last| last + 1));
        found
    }

    #[test]
    fn runs_are_exact_to_the_bit() {
        for length in [0, 1, 63, 64, 65, 127, 128, 5092, 100_000] {
            assert_eq!(positions(&bitmap(0..length)), (0..length).collect::<Vec<_>>());
        }
        assert_eq!(bitmap([]), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn every_set_reads_back(steps in proptest::collection::vec(prop_oneof![Just(1_u32), 1..200_u32, 1..90_000_u32], 0..400)) {
            let set: Vec<u32> = steps.iter().scan(0, |at, step| { *at += step; Some(*at - 1) }).collect();
            prop_assert_eq!(positions(&bitmap(set.iter().copied())), set);
        }
    }
}
