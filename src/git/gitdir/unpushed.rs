//! Which commits exist only in this gitdir: what is lost with it, or with one worktree entry of it.
//!
//! A commit is elsewhere if a remote-tracking ref reaches it, if it is in a promisor pack (what came from a remote, or was
//! asked of one) or reachable from such a commit, or if it is shallow (only a remote makes commits shallow). Walks as
//! `git rev-list` does, newest first, so that what is elsewhere ends the walk as soon as it is met.
//!
//! Refuses nothing, but rather counts a commit too much than one too few: after [`HIDDEN`] commits that are elsewhere, no
//! more of those are followed.

use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::hash::Kind;
use gix::objs::{Kind as ObjectKind, TagRef};
use gix::odb::pack::index;

use super::config::read_config;
use super::files::read_small;
use super::read::Objects;
use super::refs::{all_refs, shallow};
use super::worktree::entries;
use super::{GitdirError, REMOTE, read_head};

/// Commits that are counted; more are "more".
pub const COUNTED: usize = 10_000;

/// Commits that are elsewhere and are followed all the same, to find older ones that they reach.
const HIDDEN: usize = 100_000;

/// Longest reflog of the stash that is read.
const STASH_BYTES: u64 = 16 << 20;

/// Tags of tags that are followed.
const TAG_DEPTH: usize = 5;

/// Whose loss is asked about.
#[derive(Clone, Copy, Debug)]
pub enum Loss<'a> {
    /// The whole gitdir.
    Gitdir,
    /// This worktree entry, which has a HEAD and a few refs of its own; branches and the stash stay.
    Entry(&'a Path),
}

/// Commits that exist only here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpushed {
    /// How many.
    pub commits: usize,
    /// There are more: nobody counted on.
    pub more: bool,
    /// What leads to them: branches by their short name, `stash`, tags, detached HEADs.
    pub names: Vec<String>,
}

impl Unpushed {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.commits == 0
    }

    /// For people: `3 commits that were never pushed (on main, topic)`.
    pub fn describe(&self) -> String {
        const NAMED: usize = 5;
        let count = match (self.more, self.commits) {
            (true, count) => format!("more than {count} commits that were"),
            (false, 1) => "1 commit that was".to_owned(),
            (false, count) => format!("{count} commits that were"),
        };
        let mut names = self.names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if self.names.len() > NAMED {
            names.push_str(", …");
        }
        format!("{count} never pushed (on {names})")
    }
}

/// Commits that would be lost with `loss`. `pushed`: tips that the remote is known to have, whatever the refs here say.
pub fn unpushed(common: &Path, hash: Kind, loss: Loss<'_>, pushed: &[ObjectId]) -> Result<Unpushed, GitdirError> {
    let tips = Tips::of(common, loss)?;
    if tips.wanted.is_empty() {
        return Ok(Unpushed::default());
    }
    let mut walk = Walk {
        objects: Objects::open(common, hash)?,
        promised: promised(common, hash)?,
        shallow: shallow(common)?.into_iter().collect(),
        states: HashMap::new(),
        queue: BinaryHeap::new(),
        waiting: 0,
        oldest: i64::MAX,
    };
    for id in tips.elsewhere.iter().chain(pushed) {
        if let Some(commit) = walk.peel(*id)? {
            walk.meet(commit, true)?;
        }
    }
    let mut begun = Vec::new();
    for (name, id) in tips.wanted {
        if let Some(commit) = walk.peel(id)? {
            walk.meet(commit, false)?;
            begun.push((name, commit));
        }
    }
    let more = walk.run()?;
    let only_here = |id: &ObjectId| walk.states.get(id).is_some_and(|state| !state.elsewhere);
    let names: BTreeSet<String> = begun.into_iter().filter(|(_, id)| only_here(id)).map(|(name, _)| name).collect();
    let commits = walk.states.values().filter(|state| !state.elsewhere).count();
    Ok(Unpushed { commits: if more { COUNTED } else { commits }, more, names: names.into_iter().collect() })
}

/// Where the walk begins.
#[derive(Default)]
struct Tips {
    /// What would be lost, and how it is called.
    wanted: Vec<(String, ObjectId)>,
    /// What would not.
    elsewhere: Vec<ObjectId>,
}

impl Tips {
    fn of(common: &Path, loss: Loss<'_>) -> Result<Self, GitdirError> {
        let whole = matches!(loss, Loss::Gitdir);
        let mut tips = Self::default();
        // Where the server could not filter, no pack is a promisor's, and tags are taken for the server's.
        let config = read_config(&common.join("config"))?;
        let filtered = config.string_by("remote", Some(REMOTE.into()), "partialCloneFilter").is_some();
        for (name, id) in all_refs(common)? {
            let remote = name.starts_with("refs/remotes/") || (name.starts_with("refs/tags/") && !filtered);
            tips.add(whole && !remote, || short(&name), id);
        }
        for id in stash(common)? {
            tips.add(whole, || "stash".to_owned(), id);
        }
        let mut admins: Vec<PathBuf> = entries(common)?;
        if common.join("HEAD").exists() {
            admins.push(common.to_owned());
        }
        for admin in &admins {
            let own = matches!(loss, Loss::Entry(entry) if entry == admin);
            // A HEAD that can't be read leads nowhere, and Git would refuse it too.
            if let Ok(head) = read_head(common, admin)
                && let (None, Some(id)) = (&head.branch, head.commit)
            {
                let of = admin.file_name().unwrap_or_default().to_string_lossy().into_owned();
                tips.add(own || whole, || format!("detached HEAD of {of}"), id);
            }
            if admin != common {
                for (name, id) in all_refs(admin)? {
                    // Those of a bisection or a rebase are notes about commits that others lead to.
                    let kept = name.starts_with("refs/worktree/");
                    if kept {
                        tips.add(own || whole, || short(&name), id);
                    }
                }
            }
        }
        Ok(tips)
    }

    fn add(&mut self, wanted: bool, name: impl FnOnce() -> String, id: ObjectId) {
        if wanted {
            self.wanted.push((name(), id));
        } else {
            self.elsewhere.push(id);
        }
    }
}

fn short(name: &str) -> String {
    let rest = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/"));
    rest.unwrap_or(name).to_owned()
}

/// All entries of the stash: those beneath the last are in its reflog alone.
fn stash(common: &Path) -> Result<Vec<ObjectId>, GitdirError> {
    let log = read_small(&common.join("logs/refs/stash"), STASH_BYTES)?.unwrap_or_default();
    let new = log.lines().filter_map(|line| line.split_str(" ").nth(1).map(<[u8]>::to_vec));
    Ok(new.filter_map(|hex| ObjectId::from_hex(&hex).ok()).filter(|id| !id.is_null()).collect())
}

/// The indexes of promisor packs.
fn promised(common: &Path, hash: Kind) -> Result<Vec<index::File>, GitdirError> {
    let directory = common.join("objects/pack");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(GitdirError::io(&directory))? {
        let path = entry.map_err(GitdirError::io(&directory))?.path();
        if path.extension().is_none_or(|suffix| suffix != "promisor") {
            continue;
        }
        // One that is just being removed or put in place says nothing; what it holds counts as not elsewhere.
        if let Ok(index) = index::File::at(path.with_extension("idx"), hash) {
            found.push(index);
        }
    }
    Ok(found)
}

struct Met {
    elsewhere: bool,
    queued: bool,
    time: i64,
    parents: Vec<ObjectId>,
}

struct Walk {
    objects: Objects,
    promised: Vec<index::File>,
    shallow: HashSet<ObjectId>,
    states: HashMap<ObjectId, Met>,
    /// By time, newest first.
    queue: BinaryHeap<(i64, ObjectId)>,
    /// Commits in the queue that are not known to be elsewhere.
    waiting: usize,
    /// Time of the oldest commit that was not known to be elsewhere.
    oldest: i64,
}

impl Walk {
    /// The commit that `id` leads to, if it is here.
    fn peel(&self, mut id: ObjectId) -> Result<Option<ObjectId>, GitdirError> {
        for _ in 0..TAG_DEPTH {
            match self.objects.structure(&id)? {
                Some((ObjectKind::Commit, _)) => return Ok(Some(id)),
                Some((ObjectKind::Tag, data)) => match TagRef::from_bytes(&data, id.kind()) {
                    Ok(tag) => id = tag.target(),
                    Err(_) => return Ok(None),
                },
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn meet(&mut self, id: ObjectId, elsewhere: bool) -> Result<(), GitdirError> {
        if let Some(met) = self.states.get_mut(&id) {
            if elsewhere && !met.elsewhere {
                met.elsewhere = true;
                if met.queued {
                    self.waiting -= 1;
                } else {
                    // Its parents are elsewhere too.
                    met.queued = true;
                    self.queue.push((met.time, id));
                }
            }
            return Ok(());
        }
        let Some((mut parents, time)) = self.objects.lineage(&id)? else { return Ok(()) };
        let end = self.shallow.contains(&id);
        if end {
            parents.clear();
        }
        let elsewhere = elsewhere || end || self.promised.iter().any(|pack| pack.lookup(id).is_some());
        if !elsewhere {
            self.waiting += 1;
            self.oldest = self.oldest.min(time);
        }
        self.states.insert(id, Met { elsewhere, queued: true, time, parents });
        self.queue.push((time, id));
        Ok(())
    }

    /// Walks until nothing more can change. True: there are more than [`COUNTED`] commits.
    fn run(&mut self) -> Result<bool, GitdirError> {
        let mut followed = 0;
        let mut counted = 0;
        while let Some((time, id)) = self.queue.pop() {
            if self.waiting == 0 && time < self.oldest {
                break;
            }
            let Some(met) = self.states.get_mut(&id) else { continue };
            met.queued = false;
            let (elsewhere, parents) = (met.elsewhere, met.parents.clone());
            if elsewhere {
                followed += 1;
                if followed > HIDDEN {
                    continue;
                }
            } else {
                self.waiting -= 1;
                counted += 1;
                if counted > COUNTED {
                    return Ok(true);
                }
            }
            for parent in parents {
                self.meet(parent, elsewhere)?;
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_in_words() {
        let some = |commits, more, names: &[&str]| {
            Unpushed { commits, more, names: names.iter().map(|&name| name.to_owned()).collect() }.describe()
        };
        assert_eq!(some(1, false, &["main"]), "1 commit that was never pushed (on main)");
        assert_eq!(some(3, false, &["a", "b"]), "3 commits that were never pushed (on a, b)");
        assert_eq!(
            some(COUNTED, true, &["1", "2", "3", "4", "5", "6"]),
            "more than 10000 commits that were never pushed (on 1, 2, 3, 4, 5, …)"
        );
    }
}
