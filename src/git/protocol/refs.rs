//! `ls-refs`: what a revision means at the server.
//!
//! Owns the order in which names are tried and the checked reading of the
//! answer. Only refs that could be meant are asked for and kept.

use gix::ObjectId;

use super::Capabilities;
use super::packet::{self, Packet, Wire};
use crate::git::error::corrupt;
use crate::hydrate::remote::{FailureKind, RemoteError};

/// Lines of an answer read at most: a prefix may match many refs, but not without end.
const LINES: usize = 10_000_000;

/// What a revision means at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit (of an annotated tag: what it points to).
    pub commit: ObjectId,
    /// The full name of the ref that was meant; `None` for a commit id or a detached HEAD.
    pub reference: Option<String>,
    /// The branch the server's HEAD names, whichever revision was asked for.
    pub head: Option<String>,
}

/// A ref of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRef {
    /// Its full name.
    pub name: String,
    /// The object it names: of an annotated tag, the tag.
    pub id: ObjectId,
    /// What that tag points to.
    pub peeled: Option<ObjectId>,
}

/// One ref as the server tells it.
struct Advertised {
    id: ObjectId,
    symref: Option<String>,
}

/// Resolves `rev`: `None` is HEAD; else a full ref name, a branch, a tag, or a whole object id.
pub(crate) fn resolve(wire: &mut Wire, server: &Capabilities, rev: Option<&str>) -> Result<Resolved, RemoteError> {
    let missing = |text: String| RemoteError::new(FailureKind::Missing, text);
    let address = wire.address().to_owned();
    let names = candidates(rev.unwrap_or("HEAD"));
    if rev.is_some_and(|rev| rev.is_empty() || rev.len() > 1000 || rev.contains(|c: char| c.is_control() || c == ' ')) {
        return Err(missing(format!("{address}: {:?} is not the name of a revision", rev.unwrap_or_default())));
    }
    let digits = rev.filter(|rev| matches!(rev.len(), 40 | 64) && rev.bytes().all(|b| b.is_ascii_hexdigit()));
    let id = digits.and_then(|digits| ObjectId::from_hex(digits.to_ascii_lowercase().as_bytes()).ok());
    if let Some(id) = id.filter(|id| id.kind() != server.hash) {
        return Err(missing(format!("{address} uses {} object ids; {id} is none", server.hash)));
    }
    // HEAD is always asked for: it also proves that the repository can be read.
    let wanted: Vec<&str> = match id {
        Some(_) => vec!["HEAD"],
        None => std::iter::once("HEAD").chain(names.iter().map(String::as_str)).collect(),
    };
    let found = list(wire, server, &wanted)?;
    let head = found[0].as_ref().and_then(|head| head.symref.clone());
    if let Some(commit) = id {
        return Ok(Resolved { commit, reference: None, head });
    }
    let hit = wanted.iter().zip(&found).skip(1).find_map(|(name, found)| Some((*name, found.as_ref()?)));
    let Some((name, found)) = hit else {
        return Err(match rev {
            None | Some("HEAD") => {
                missing(format!("{address} has no commits, or its HEAD names a branch that is not there"))
            }
            Some(rev) => missing(format!("{address} has no branch, tag or ref {rev:?}")),
        });
    };
    let reference = if name == "HEAD" { found.symref.clone() } else { Some(name.to_owned()) };
    Ok(Resolved { commit: found.id, reference, head })
}

/// Full names `rev` may stand for, the likeliest meaning first: as `git clone --branch`, branches before tags.
fn candidates(rev: &str) -> Vec<String> {
    if rev == "HEAD" || rev.starts_with("refs/") {
        return vec![rev.to_owned()];
    }
    ["refs/heads/", "refs/tags/", "refs/", "refs/remotes/"].iter().map(|prefix| format!("{prefix}{rev}")).collect()
}

/// All refs whose names begin with one of `prefixes`; names that are not UTF-8 or not valid are left out.
pub(crate) fn list_all(
    wire: &mut Wire,
    server: &Capabilities,
    prefixes: &[&str],
) -> Result<Vec<RemoteRef>, RemoteError> {
    let mut request = server.begin("ls-refs");
    packet::line(&mut request, "peel");
    for prefix in prefixes {
        packet::line(&mut request, &format!("ref-prefix {prefix}"));
    }
    packet::flush(&mut request);
    wire.send(request)?;
    let address = wire.address().to_owned();
    let bad = || corrupt(format!("{address} sent a list of refs that cannot be read"));
    let mut found = Vec::new();
    for _ in 0..LINES {
        let packet = wire.packet()?;
        if packet == Packet::Flush {
            return Ok(found);
        }
        let Ok(line) = std::str::from_utf8(packet.line().ok_or_else(bad)?) else { continue };
        let mut words = line.split(' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else { continue };
        let wanted = prefixes.iter().any(|prefix| name.starts_with(prefix));
        if !wanted || gix::validate::reference::name(name.into()).is_err() {
            continue;
        }
        let parse = |id: &str| ObjectId::from_hex(id.as_bytes()).ok().filter(|id| id.kind() == server.hash);
        let peeled = words.find_map(|word| word.strip_prefix("peeled:")).map(|id| parse(id).ok_or_else(bad));
        found.push(RemoteRef { name: name.to_owned(), id: parse(id).ok_or_else(bad)?, peeled: peeled.transpose()? });
    }
    Err(corrupt(format!("{address} sent a list of refs without end")))
}

/// The refs called exactly `names`, in their order.
fn list(wire: &mut Wire, server: &Capabilities, names: &[&str]) -> Result<Vec<Option<Advertised>>, RemoteError> {
    let mut request = server.begin("ls-refs");
    packet::line(&mut request, "peel");
    packet::line(&mut request, "symrefs");
    for name in names {
        packet::line(&mut request, &format!("ref-prefix {name}"));
    }
    packet::flush(&mut request);
    wire.send(request)?;
    let mut found: Vec<Option<Advertised>> = names.iter().map(|_| None).collect();
    let address = wire.address().to_owned();
    let bad = || corrupt(format!("{address} sent a list of refs that cannot be read"));
    for _ in 0..LINES {
        let packet = wire.packet()?;
        if packet == Packet::Flush {
            return Ok(found);
        }
        let line = std::str::from_utf8(packet.line().ok_or_else(bad)?).unwrap_or("");
        // A name that is not UTF-8 was not asked for.
        let mut words = line.split(' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else { continue };
        let positions = names.iter().enumerate().filter(|(_, wanted)| **wanted == name);
        for position in positions.map(|(position, _)| position).collect::<Vec<_>>() {
            found[position] = Some(advertised(id, words.clone(), server).ok_or_else(bad)?);
        }
    }
    Err(corrupt(format!("{address} sent a list of refs without end")))
}

fn advertised<'a>(id: &str, attributes: impl Iterator<Item = &'a str>, server: &Capabilities) -> Option<Advertised> {
    let parse = |id: &str| ObjectId::from_hex(id.as_bytes()).ok().filter(|id| id.kind() == server.hash);
    let (mut id, mut symref) = (parse(id)?, None);
    for attribute in attributes {
        if let Some(target) = attribute.strip_prefix("symref-target:") {
            let whole = target.starts_with("refs/") && !target.contains("..") && !target.contains(char::is_control);
            symref = whole.then(|| target.to_owned());
        } else if let Some(peeled) = attribute.strip_prefix("peeled:") {
            id = parse(peeled)?;
        }
    }
    Some(Advertised { id, symref })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, wire};
    use super::*;

    const A: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    const B: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    fn server() -> Capabilities {
        Capabilities {
            hash: gix::hash::Kind::Sha1,
            filter: true,
            object_info: false,
            shallow: true,
            object_format: false,
        }
    }

    fn ask(answer: &[&str], rev: Option<&str>) -> Result<(String, Option<String>, Option<String>), RemoteError> {
        resolve(&mut wire(&lines(answer)), &server(), rev).map(|r| (r.commit.to_string(), r.reference, r.head))
    }

    #[test]
    fn names_mean_what_clone_takes_them_for() {
        let head = format!("{A} HEAD symref-target:refs/heads/main");
        let (branch, twin) = (format!("{A} refs/heads/main"), format!("{B} refs/tags/main"));
        let longer = format!("{B} refs/heads/main-2");
        let tag = format!("{B} refs/tags/v1 peeled:{A}");
        let answer = [head.as_str(), &longer, &branch, &twin, &tag];
        let main = Some("refs/heads/main".to_owned());
        for rev in [None, Some("HEAD"), Some("main"), Some("heads/main"), Some("refs/heads/main")] {
            assert_eq!(ask(&answer, rev).expect("there"), (A.to_owned(), main.clone(), main.clone()), "{rev:?}");
        }
        let v1 = Some("refs/tags/v1".to_owned());
        assert_eq!(ask(&answer, Some("v1")).expect("there"), (A.to_owned(), v1, main.clone()));
        let id = B.to_ascii_uppercase();
        assert_eq!(ask(&answer, Some(&id)).expect("an id"), (B.to_owned(), None, main));
    }

    #[test]
    fn what_is_not_there_is_missing_and_what_cannot_be_read_corrupt() {
        let kind = |answer: &[&str], rev| ask(answer, rev).expect_err("refused").kind;
        assert_eq!(kind(&[], None), FailureKind::Missing);
        let of_sha256 = "f".repeat(64);
        for rev in ["main", "", "a b", "a\nb", &of_sha256] {
            assert_eq!(kind(&[], Some(rev)), FailureKind::Missing, "{rev:?}");
        }
        assert_eq!(kind(&["zzz refs/heads/main"], Some("main")), FailureKind::Corrupt);
        let peeled = format!("{A} refs/heads/main peeled:zzz");
        assert_eq!(kind(&[&peeled], Some("main")), FailureKind::Corrupt);
    }
}
