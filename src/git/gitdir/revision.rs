//! What a user means by a revision, as far as the gitdir alone can tell.
//!
//! The order is that of `git switch`: a local branch, anything that names a
//! commit, then a remote's branch of that name, for which a local one is made.

use std::path::Path;

use gix::ObjectId;

use super::config::{ConfigText, append as append_config, read_config};
use super::files::{LockedFile, read_small};
use super::head::Head;
use super::read::Objects;
use super::reflog::{self, Committer};
use super::refs::{RefValue, check_name, packed_beneath, parse_ref, read_ref};
use super::{GitdirError, REMOTE};

/// Longest revision that is looked at.
const REVISION_BYTES: usize = 4096;

/// Longest file of a symbolic ref that is read.
const HEAD_BYTES: u64 = 64 << 10;

/// What a revision turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant {
    /// The commit.
    pub commit: ObjectId,
    /// The local branch, by its full name; `None` detaches HEAD.
    pub branch: Option<String>,
    /// The local branch is to be created, tracking this branch of [`REMOTE`] (short name).
    pub tracks: Option<String>,
    /// What it is called in the reflog.
    pub named: String,
}

/// What `text` means here; `None`: nothing in this gitdir is called so.
pub fn resolve_revision(common: &Path, admin: &Path, head: &Head, text: &str) -> Result<Option<Meant>, GitdirError> {
    if text.is_empty() || text.len() > REVISION_BYTES || text.contains(char::is_control) {
        return Err(GitdirError::invalid("revision", text.as_bytes()));
    }
    let text = match nth_previous(text) {
        Some(n) => match reflog::previous_checkout(admin, n)? {
            Some(before) => before,
            None => return Ok(None),
        },
        None => text.to_owned(),
    };
    let named = |commit, branch, tracks| Some(Meant { commit, branch, tracks, named: text.clone() });
    let local = format!("refs/heads/{text}");
    if check_name(&local).is_ok()
        && let Some(commit) = read_ref(common, &local)?
    {
        return Ok(named(commit, Some(local), None));
    }
    if let Some(commit) = parsed(common, admin, head, &text)? {
        return Ok(named(commit, None, None));
    }
    let remote = format!("refs/remotes/{REMOTE}/{text}");
    if check_name(&remote).is_ok()
        && text != "HEAD"
        && let Some(commit) = read_ref(common, &remote)?
    {
        return Ok(named(commit, Some(local), Some(text.clone())));
    }
    Ok(None)
}

/// What a revision of the remote was when it was last fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastKnown {
    /// The commit; it may not be here itself.
    pub commit: ObjectId,
    /// The full name of the remote's ref that was meant; `None` for a commit id.
    pub reference: Option<String>,
}

/// What the remote's `rev` was when it was last fetched: a branch, a tag (peeled), a full ref name or a whole object id,
/// in the order of [`crate::git::remote::GitConnection::resolve`]; `None` is the remote's HEAD.
pub fn last_known(common: &Path, rev: Option<&str>) -> Result<Option<LastKnown>, GitdirError> {
    let specs = refspecs_of(&read_config(&common.join("config"))?);
    let tracking = |name: &str| {
        let branch = name.strip_prefix("refs/heads/").map(|branch| format!("refs/remotes/{REMOTE}/{branch}"));
        specs.iter().find_map(|spec| spec.local(name)).or(branch).unwrap_or_else(|| name.to_owned())
    };
    let names = match rev {
        None | Some("HEAD") => {
            let head = read_small(&common.join(format!("refs/remotes/{REMOTE}/HEAD")), HEAD_BYTES)?;
            let branch = match head.as_deref().and_then(parse_ref) {
                Some(RefValue::Symbolic(target)) => String::from_utf8(target).ok(),
                _ => None,
            };
            let branch = branch.as_deref().and_then(|name| name.strip_prefix(&format!("refs/remotes/{REMOTE}/")));
            branch.map(|branch| vec![format!("refs/heads/{branch}")]).unwrap_or_default()
        }
        Some(rev) if matches!(rev.len(), 40 | 64) && rev.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            let commit = ObjectId::from_hex(rev.to_ascii_lowercase().as_bytes()).ok();
            return Ok(commit.map(|commit| LastKnown { commit, reference: None }));
        }
        Some(rev) if rev.starts_with("refs/") => vec![rev.to_owned()],
        Some(rev) => ["refs/heads/", "refs/tags/", "refs/"].iter().map(|prefix| format!("{prefix}{rev}")).collect(),
    };
    for name in names {
        let local = tracking(&name);
        if check_name(&local).is_err() {
            continue;
        }
        if let Some(id) = read_ref(common, &local)? {
            let commit = Objects::open(common, id.kind())?.peeled(&id)?.unwrap_or(id);
            return Ok(Some(LastKnown { commit, reference: Some(name) }));
        }
    }
    Ok(None)
}

/// The number in `-` and `@{-N}`.
fn nth_previous(text: &str) -> Option<usize> {
    if text == "-" {
        return Some(1);
    }
    text.strip_prefix("@{-")?.strip_suffix('}')?.parse().ok()
}

/// The commit an extended SHA-1 expression (gitrevisions) leads to.
fn parsed(common: &Path, admin: &Path, head: &Head, text: &str) -> Result<Option<ObjectId>, GitdirError> {
    // The common gitdir's HEAD is not this worktree's.
    let after = text.strip_prefix("HEAD").or_else(|| text.strip_prefix('@'));
    let is_head = |rest: &str| rest.is_empty() || rest.starts_with(['~', '^', '@', ':', '{']);
    let spec = match after.filter(|rest| is_head(rest)) {
        Some(rest) => {
            let rest = if text.starts_with("@{") { &text[1..] } else { rest.strip_prefix('@').unwrap_or(rest) };
            let Some(spec) = of_head(admin, head, rest)? else { return Ok(None) };
            spec
        }
        None => text.to_owned(),
    };
    let options = gix::open::Options::isolated().strict_config(false);
    let repository = gix::open_opts(common, options)
        .map_err(|error| GitdirError::not_a_gitdir(common, format!("cannot be opened: {error}")))?;
    // What does not parse, or leads to an object that is not here, is nothing that this gitdir knows.
    let Ok(id) = repository.rev_parse_single(spec.as_str()) else { return Ok(None) };
    let commit = id.object().ok().and_then(|object| object.peel_to_kind(gix::object::Kind::Commit).ok());
    Ok(commit.map(|commit| commit.id))
}

/// The expression with HEAD replaced by what it is; `rest` is what follows it, `@` before braces taken off.
fn of_head(admin: &Path, head: &Head, rest: &str) -> Result<Option<String>, GitdirError> {
    if let Some((inside, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        if let Ok(n) = inside.parse() {
            return Ok(reflog::nth_last(admin, n)?.map(|id| format!("{id}{after}")));
        }
        let branch = head.branch.as_deref().and_then(|branch| branch.strip_prefix("refs/heads/"));
        return Ok(branch.map(|branch| format!("{branch}@{rest}")));
    }
    Ok(head.commit.map(|id| format!("{id}{rest}")))
}

/// Creates the local branch `name` at `commit`, tracking the remote's branch of that name.
/// One that is there at `commit` already is left as it is.
pub fn create_tracking_branch(
    common: &Path,
    name: &str,
    commit: ObjectId,
    committer: &Committer,
    at: i64,
) -> Result<(), GitdirError> {
    let full = format!("refs/heads/{name}");
    check_name(&full)?;
    let path = common.join(&full);
    for (end, _) in name.match_indices('/') {
        let outer = format!("refs/heads/{}", &name[..end]);
        if read_ref(common, &outer)?.is_some() {
            return Err(GitdirError::Exists(common.join(outer)));
        }
    }
    if path.is_dir() && std::fs::remove_dir(&path).is_err() || packed_beneath(common, &full)? {
        return Err(GitdirError::Exists(path));
    }
    let lock = LockedFile::take(&path)?;
    match read_ref(common, &full)? {
        Some(found) if found == commit => {}
        Some(_) => return Err(GitdirError::Exists(path)),
        None => {
            let message = format!("branch: Created from {REMOTE}/{name}");
            let entry = reflog::Entry { old: None, new: commit, committer, at, message: &message };
            reflog::append(common, &common.join("logs").join(&full), &entry)?;
            lock.commit(format!("{commit}\n").as_bytes())?;
        }
    }
    track(common, name)
}

/// Makes Git know where the remote's branch `name` is followed, and the local one's upstream.
fn track(common: &Path, name: &str) -> Result<(), GitdirError> {
    let config = common.join("config");
    let mut upstream = ConfigText::default();
    upstream
        .section("branch", Some(name.as_bytes()))?
        .value("remote", REMOTE)?
        .value("merge", format!("refs/heads/{name}"))?;
    append_config(&config, upstream, |config| config.string_by("branch", Some(name.into()), "merge").is_some())
}

/// Adds the remote's branch `name` to what `git fetch` fetches, where the refspecs leave it out.
pub fn follow_branch(common: &Path, name: &str) -> Result<(), GitdirError> {
    let path = common.join("config");
    if refspecs_of(&read_config(&path)?).iter().any(|spec| spec.local(&format!("refs/heads/{name}")).is_some()) {
        return Ok(());
    }
    let mut text = ConfigText::default();
    let refspec = format!("+refs/heads/{name}:refs/remotes/{REMOTE}/{name}");
    text.section("remote", Some(REMOTE.as_bytes()))?.value("fetch", refspec)?;
    append_config(&path, text, |config| {
        refspecs_of(config).iter().any(|spec| spec.local(&format!("refs/heads/{name}")).is_some())
    })
}

/// One of the refspecs by which `git fetch` copies refs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refspec {
    /// Whether a ref may move to what is not its descendant.
    pub force: bool,
    source: String,
    target: String,
}

impl Refspec {
    fn parse(text: &str) -> Option<Self> {
        let (force, text) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (source, target) = text.split_once(':')?;
        let whole = source.starts_with("refs/") && target.starts_with("refs/");
        let stars = (source.matches('*').count(), target.matches('*').count());
        (whole && matches!(stars, (0, 0) | (1, 1))).then(|| Self {
            force,
            source: source.to_owned(),
            target: target.to_owned(),
        })
    }

    /// The local name of the remote's ref `name`, if this refspec is about it.
    pub fn local(&self, name: &str) -> Option<String> {
        let Some((before, after)) = self.source.split_once('*') else {
            return (self.source == name).then(|| self.target.clone());
        };
        let middle = name.strip_prefix(before)?.strip_suffix(after)?;
        Some(self.target.replacen('*', middle, 1))
    }

    /// What all names it is about begin with.
    pub fn prefix(&self) -> &str {
        self.source.split_once('*').map_or(self.source.as_str(), |(before, _)| before)
    }
}

fn refspecs_of(config: &gix::config::File) -> Vec<Refspec> {
    let values = config.strings_by("remote", Some(REMOTE.into()), "fetch").unwrap_or_default();
    values.iter().filter_map(|value| Refspec::parse(std::str::from_utf8(value).ok()?)).collect()
}

/// What `git fetch` fetches from [`REMOTE`].
pub fn fetch_refspecs(common: &Path) -> Result<Vec<Refspec>, GitdirError> {
    Ok(refspecs_of(&read_config(&common.join("config"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refspecs_map_names() {
        let spec = Refspec::parse("+refs/heads/*:refs/remotes/origin/*").expect("valid");
        assert_eq!(spec.local("refs/heads/a/b").as_deref(), Some("refs/remotes/origin/a/b"));
        assert_eq!(spec.local("refs/tags/a"), None);
        assert_eq!((spec.prefix(), spec.force), ("refs/heads/", true));
        let one = Refspec::parse("refs/heads/x:refs/remotes/origin/y").expect("valid");
        assert_eq!(one.local("refs/heads/x").as_deref(), Some("refs/remotes/origin/y"));
        assert_eq!((one.local("refs/heads/xx"), one.force), (None, false));
        for wrong in ["main", "^refs/heads/x", "refs/heads/*:refs/x", "refs/*/*:refs/a/*", ":refs/x"] {
            assert_eq!(Refspec::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_followed_branch_is_added_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("config"), "").expect("written");
        for _ in 0..2 {
            follow_branch(dir.path(), "next").expect("added");
        }
        let specs = fetch_refspecs(dir.path()).expect("readable");
        assert_eq!(specs.len(), 1);
        assert_eq!(specs[0].local("refs/heads/next").as_deref(), Some("refs/remotes/origin/next"));
    }
}
