//! Conversions without a driver: `ident`, line endings, encodings.
//!
//! Line endings and most encodings are gix-filter's. Two things are not,
//! because a mount must hold the bytes that stock Git writes: gix 0.90 expands
//! `$Id$` without the blank that Git puts before the last dollar, and its
//! encodings, being the web's, can't write UTF-16 and UTF-32 and take Latin-1
//! for Windows-1252.

use gix::ObjectId;
use gix::filter::plumbing::{encoding, eol, worktree};

/// Line endings of a checkout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Eol {
    /// As they are.
    #[default]
    Keep,
    /// Every LF becomes CRLF.
    Crlf,
    /// The same, unless the content looks binary or has a CR already.
    AutoCrlf,
}

/// What the working tree is encoded in, where that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Encoding {
    /// UTF-16, big-endian or not, after a byte order mark or not.
    Utf16 { big: bool, mark: bool },
    /// The same for UTF-32.
    Utf32 { big: bool, mark: bool },
    /// ISO 8859-1: the first 256 code points.
    Latin1,
    /// The first 128.
    Ascii,
    /// One that gix-filter knows.
    Web(&'static encoding::Encoding),
}

impl Encoding {
    /// The encoding that Git and the C library call `name`. `Ok(None)`: UTF-8, nothing to do.
    pub(super) fn named(name: &str) -> Result<Option<Self>, String> {
        // What glibc writes when no byte order is said: a mark and the machine's own.
        let native = cfg!(target_endian = "big");
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("UTF-").or_else(|| upper.strip_prefix("UTF"));
        Ok(Some(match plain.unwrap_or_default() {
            "8" => return Ok(None),
            "16" => Self::Utf16 { big: native, mark: true },
            "16LE" => Self::Utf16 { big: false, mark: false },
            "16BE" => Self::Utf16 { big: true, mark: false },
            "16LE-BOM" => Self::Utf16 { big: false, mark: true },
            "16BE-BOM" => Self::Utf16 { big: true, mark: true },
            "32" => Self::Utf32 { big: native, mark: true },
            "32LE" => Self::Utf32 { big: false, mark: false },
            "32BE" => Self::Utf32 { big: true, mark: false },
            _ => match upper.as_str() {
                "ISO-8859-1" | "ISO8859-1" | "ISO_8859-1" | "LATIN-1" | "LATIN1" | "L1" => Self::Latin1,
                "ASCII" | "US-ASCII" => Self::Ascii,
                _ => {
                    let found = worktree::encoding::for_label(name).map_err(|_| format!("{name} is not known"))?;
                    // Of some the web only reads; writing them it writes UTF-8.
                    let writable = found.output_encoding() == found && found != encoding::UTF_8;
                    Self::Web(writable.then_some(found).ok_or_else(|| format!("{name} can't be written"))?)
                }
            },
        }))
    }

    /// `utf8` in this encoding. `None`: it is not UTF-8, or has what this encoding lacks.
    pub(super) fn encode(self, utf8: &[u8]) -> Option<Vec<u8>> {
        let text = || std::str::from_utf8(utf8).ok();
        match self {
            Self::Utf16 { big, mark } => {
                let marked = mark.then_some(0xfeff).into_iter();
                let units = marked.chain(text()?.encode_utf16());
                Some(units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect())
            }
            Self::Utf32 { big, mark } => {
                let marked = mark.then_some('\u{feff}').into_iter();
                let units = marked.chain(text()?.chars()).map(u32::from);
                Some(units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect())
            }
            Self::Latin1 => text()?.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect(),
            Self::Ascii => utf8.is_ascii().then(|| utf8.to_vec()),
            Self::Web(encoding) => {
                let mut out = Vec::new();
                worktree::encode_to_worktree(utf8, encoding, &mut out).ok().map(|()| out)
            }
        }
    }

    /// A name that tells it from all others.
    pub(super) fn key(self) -> String {
        match self {
            Self::Web(encoding) => format!("Web({})", encoding.name()),
            other => format!("{other:?}"),
        }
    }
}

/// Converts line endings. `None`: nothing to do.
pub(super) fn end_lines(source: &[u8], eol: Eol) -> Option<Vec<u8>> {
    let digest = match eol {
        Eol::Keep => return None,
        Eol::Crlf => eol::AttributesDigest::TextCrlf,
        Eol::AutoCrlf => eol::AttributesDigest::TextAutoCrlf,
    };
    let mut out = Vec::new();
    // Fails only for want of memory; then Rust's own allocations fail too.
    let changed = eol::convert_to_worktree(source, digest, &mut out, eol::Configuration::default()).unwrap_or(false);
    changed.then_some(out)
}

/// Expands `$Id$` as Git does: also where an expansion of Git's crept into the blob, but not one of another system's,
/// which has blanks inside. `None`: nothing to do.
pub(super) fn expand_ident(source: &[u8], id: &ObjectId) -> Option<Vec<u8>> {
    let find = |bytes: &[u8], wanted: u8| bytes.iter().position(|byte| *byte == wanted);
    let mut out = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(dollar) = find(&source[at..], b'$') {
        at += dollar + 1;
        let rest = &source[at..];
        let length = if rest.starts_with(b"Id$") {
            3
        } else if let Some(inside) = rest.strip_prefix(b"Id:") {
            let Some(end) = find(inside, b'$') else { break };
            let inside = &inside[..end];
            let blank = inside.get(1..).and_then(|inside| find(inside, b' ')).map(|blank| blank + 1);
            if inside.contains(&b'\n') || blank.is_some_and(|blank| blank + 1 < end) {
                continue;
            }
            3 + end + 1
        } else {
            continue;
        };
        out.extend_from_slice(&source[copied..at]);
        out.extend_from_slice(format!("Id: {id} $").as_bytes());
        at += length;
        copied = at;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&source[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ident_is_expanded_as_git_does() {
        let id = ObjectId::from_bytes_or_panic(&[0xab; 20]);
        let hex = "ab".repeat(20);
        let expanded =
            |source: &str| expand_ident(source.as_bytes(), &id).map(|out| String::from_utf8_lossy(&out).into_owned());
        assert_eq!(expanded("no id $here$ $Idea$"), None);
        assert_eq!(expanded("a $Id$ b $Id$"), Some(format!("a $Id: {hex} $ b $Id: {hex} $")));
        assert_eq!(expanded("$Id: 0123 $"), Some(format!("$Id: {hex} $")));
        assert_eq!(expanded("$Id:$"), Some(format!("$Id: {hex} $")));
        assert_eq!(expanded("$Id: file.c 1.2 someone $ $Id$"), Some(format!("$Id: file.c 1.2 someone $ $Id: {hex} $")));
        assert_eq!(expanded("$Id: broken\n$ $Id$"), Some(format!("$Id: broken\n$ $Id: {hex} $")));
        assert_eq!(expanded("$Id: never ends"), None);
        assert_eq!(expanded("$$Id$"), Some(format!("$$Id: {hex} $")));
    }

    #[test]
    fn encodes_as_iconv_does() {
        let encode =
            |name: &str, text: &str| Encoding::named(name).expect("known").expect("not UTF-8").encode(text.as_bytes());
        assert_eq!(encode("utf-16le", "aü"), Some(vec![b'a', 0, 0xfc, 0]));
        assert_eq!(encode("UTF-16BE-BOM", "a"), Some(vec![0xfe, 0xff, 0, b'a']));
        assert_eq!(encode("UTF-32LE", "😀"), Some(vec![0, 0xf6, 1, 0]));
        assert_eq!(encode("UTF16LE", "😀"), Some(vec![0x3d, 0xd8, 0, 0xde]));
        assert_eq!(encode("latin-1", "é"), Some(vec![0xe9]));
        assert_eq!(encode("ISO-8859-1", "€"), None, "Windows-1252 has it, Latin-1 has not");
        assert_eq!(encode("SHIFT-JIS", "あ"), Some(vec![0x82, 0xa0]));
        assert_eq!(Encoding::named("UTF-8"), Ok(None));
        assert!(Encoding::named("no-such").is_err());
        let utf16 = Encoding::named("UTF-16").expect("known").expect("not UTF-8");
        assert_eq!(utf16.encode(b"\xff"), None, "what is not UTF-8 stays as it is");
    }

    #[test]
    fn line_endings_are_gix_filters() {
        assert_eq!(end_lines(b"a\nb", Eol::Crlf).as_deref(), Some(&b"a\r\nb"[..]));
        assert_eq!(end_lines(b"a\r\nb\n", Eol::AutoCrlf), None, "mixed endings stay in automatic mode");
        assert_eq!(end_lines(b"a\r\nb\n", Eol::Crlf).as_deref(), Some(&b"a\r\nb\r\n"[..]));
        assert_eq!(end_lines(b"a\0\n", Eol::AutoCrlf), None);
        assert_eq!(end_lines(b"a\n", Eol::Keep), None);
    }
}
