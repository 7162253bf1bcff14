//! Files that nothing belongs to: what crashes, killed commands and purged workspaces left below the home.
//!
//! Looks only where Larder and Git make such files, and only at names they give. Never at gitdirs made elsewhere.
//!
//! Races: a row is always written before the directory that belongs to it is made, and its number is never given again,
//! so directories are listed first and rows are read then. A repository is let go of while nobody is admitted
//! (`Daemon::admission`), and its gitdir gets another name before that ends. Temporary files have no row; only those that
//! nothing changed for [`AGE`] go.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::protocol::{Failure, GcLeftover};
use super::super::{Daemon, client};
use crate::git::gitdir::{self, Loss};
use crate::store::{Repository, RepositoryId, WorkspaceId};

/// Temporary files that changed since may belong to a command that runs.
const AGE: Duration = Duration::from_hours(1);

/// A younger socket may be about to be listened on.
const SOCKET_AGE: Duration = Duration::from_secs(10);

/// What the name of a gitdir begins with that is being made or removed.
const HALF_MADE: &str = ".gitdir-";

/// What is to become of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tidy {
    /// They are told.
    Tell,
    /// They are removed, but for what may hold somebody's work: nobody asked for it.
    Litter,
    /// They are removed.
    All,
}

impl Daemon {
    /// Tells what is left over and, unless `how` is [`Tidy::Tell`], removes it; what can't be removed is noted.
    pub(super) fn tidy(&self, how: Tidy, notes: &mut Vec<String>) -> Vec<GcLeftover> {
        let mut sweep = Sweep { daemon: self, how, notes, found: Vec::new() };
        if how != Tidy::Litter {
            sweep.note_failure("overlays", Sweep::overlays);
        }
        // In the order in which one makes work for the next.
        let mut gone = HashSet::new();
        if how != Tidy::Litter {
            sweep.note_failure("repositories", |sweep| {
                gone = sweep.unused()?;
                sweep.strays()
            });
        }
        sweep.half_made();
        sweep.sockets();
        sweep.note_failure("packs", |sweep| sweep.packs(&gone));
        sweep.found
    }

    fn repositories_directory(&self) -> PathBuf {
        self.config.home.join("repositories")
    }
}

struct Sweep<'a> {
    daemon: &'a Daemon,
    how: Tidy,
    notes: &'a mut Vec<String>,
    found: Vec<GcLeftover>,
}

impl Sweep<'_> {
    /// What fails stays, and is no reason to leave the rest.
    fn note_failure(&mut self, what: &str, act: impl FnOnce(&mut Self) -> Result<(), Failure>) {
        if let Err(failure) = act(self) {
            self.notes.push(format!("not all {what} were looked at: {failure}"));
        }
    }

    /// Removes `path` with `remove`, if anything is to be removed, and puts it on the list.
    fn take(&mut self, path: &Path, why: String, remove: impl FnOnce() -> io::Result<()>) {
        let bytes = size(path);
        let outcome = if self.how == Tidy::Tell { Ok(()) } else { remove() };
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.notes.push(format!("{} can't be removed: {error}", path.display()));
            }
            _ => self.found.push(GcLeftover { path: path.to_owned(), why, bytes }),
        }
    }

    /// Overlays that no workspace has.
    fn overlays(&mut self) -> Result<(), Failure> {
        let directory = self.daemon.config.home.join("overlay");
        let numbered = numbered(&directory, "");
        let mut known: HashSet<u64> = self.daemon.store.workspaces()?.iter().map(|row| row.id.0).collect();
        known.extend(self.daemon.all().iter().map(|live| live.row().id.0));
        known.extend(self.daemon.overlays.lock().keys().map(|id| id.0));
        for (number, path) in numbered {
            if !known.contains(&number) {
                let why = "local changes of a workspace that is not known any more".to_owned();
                let daemon = self.daemon;
                self.take(&path, why, || daemon.remove_overlay(WorkspaceId(number)).map_err(io::Error::other));
            }
        }
        Ok(())
    }

    /// Repositories that no workspace is of. Those that are gone, or would be.
    fn unused(&mut self) -> Result<HashSet<RepositoryId>, Failure> {
        let mut gone = HashSet::new();
        for repository in self.daemon.store.repositories()? {
            if self.daemon.is_used(repository.id, None)? {
                continue;
            }
            let path = &repository.gitdir;
            if repository.external_gitdir {
                // Its row alone, which is no file.
                if self.how != Tidy::Tell {
                    self.daemon.let_go(&repository)?;
                }
                continue;
            }
            if !self.nothing_lost_with(path, &repository.url) {
                continue;
            }
            let why = format!("the gitdir of {}, of which no workspace is left", repository.url);
            let (bytes, existed) = (size(path), path.symlink_metadata().is_ok());
            if self.how != Tidy::Tell && !self.daemon.let_go(&repository)? {
                continue;
            }
            gone.insert(repository.id);
            if existed {
                self.found.push(GcLeftover { path: path.clone(), why, bytes });
            }
        }
        Ok(gone)
    }

    /// Gitdirs that no row is about, and notes about gitdirs.
    fn strays(&mut self) -> Result<(), Failure> {
        let directory = self.daemon.repositories_directory();
        let (gitdirs, notes) = (numbered(&directory, ".git"), numbered(&directory, ".git.history"));
        let known: HashSet<u64> = self.daemon.store.repositories()?.iter().map(|repository| repository.id.0).collect();
        for (_, path) in gitdirs.into_iter().filter(|(number, _)| !known.contains(number)) {
            if self.nothing_lost_with(&path, "its remote") {
                self.take(&path, "a gitdir of no known repository".to_owned(), || remove_gitdir(&path).map(drop));
            }
        }
        for (_, path) in notes.into_iter().filter(|(number, _)| !known.contains(number)) {
            self.take(&path, "a note about a gitdir of no known repository".to_owned(), || fs::remove_file(&path));
        }
        Ok(())
    }

    /// Whether a gitdir holds nothing that is nowhere else; if it does, that is noted.
    fn nothing_lost_with(&mut self, path: &Path, remote: &str) -> bool {
        if !path.join("HEAD").exists() {
            return true;
        }
        let looked =
            gitdir::probe(path).and_then(|probed| gitdir::unpushed(path, probed.object_format, Loss::Gitdir, &[]));
        let reason = match looked {
            Ok(unpushed) if unpushed.is_empty() => return true,
            Ok(unpushed) => format!("it has {}", unpushed.describe()),
            Err(error) => format!("it can't be told whether all of it was pushed: {error}"),
        };
        self.notes.push(format!(
            "{} stays, though no workspace uses it: {reason}; mount {remote} again and push them, or remove the directory",
            path.display()
        ));
        false
    }

    /// Temporary files of Larder's and of Git's.
    fn half_made(&mut self) {
        let mut old = Vec::new();
        let repositories = self.daemon.repositories_directory();
        for path in listed(&repositories) {
            let name = name(&path);
            if name.starts_with(HALF_MADE) || name.ends_with(".history.new") {
                old.push((path, "a half-made or half-removed gitdir"));
            }
        }
        for (_, gitdir) in numbered(&repositories, ".git") {
            for path in listed(&gitdir) {
                let name = name(&path);
                if name.starts_with("larder-worktree-") || name.starts_with("larder-removed-") {
                    old.push((path, "a half-made or half-removed worktree entry"));
                }
            }
            for admin in listed(&gitdir.join("worktrees")) {
                let unfinished = listed(&admin).into_iter().filter(|path| name(path).starts_with("larder-index-"));
                old.extend(unfinished.map(|path| (path, "an unfinished index")));
            }
            let objects = gitdir.join("objects");
            for path in listed(&objects) {
                let directory = name(&path);
                if directory.starts_with("tmp_objdir-") {
                    old.push((path, "an unfinished transfer of Git's"));
                } else if directory == "pack" || directory.len() == 2 {
                    let unfinished = |name: &str| name.starts_with("tmp_") || name.starts_with(".tmp-");
                    let inside = listed(&path).into_iter().filter(|path| unfinished(&name(path)));
                    old.extend(inside.map(|path| (path, "an unfinished pack or object")));
                }
            }
        }
        for (path, why) in old {
            if is_older(&path, AGE) {
                self.take(&path, why.to_owned(), || remove(&path));
            }
        }
    }

    /// Sockets in the run directory that nobody listens on.
    fn sockets(&mut self) {
        let own = &self.daemon.config.socket;
        let Some(directory) = own.parent() else { return };
        for path in listed(directory).into_iter().filter(|path| path != own) {
            let socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
            if socket && is_older(&path, SOCKET_AGE) && client::is_deserted(&path) {
                self.take(&path, "a socket that nobody listens on".to_owned(), || fs::remove_file(&path));
            }
        }
    }

    /// Packs that only repeat the store.
    fn packs(&mut self, gone: &HashSet<RepositoryId>) -> Result<(), Failure> {
        for repository in self.daemon.store.repositories()? {
            if repository.external_gitdir || gone.contains(&repository.id) || !repository.gitdir.join("HEAD").exists() {
                continue;
            }
            let path = repository.gitdir.join("objects/pack");
            match self.daemon.prune_one(&repository, self.how != Tidy::Tell) {
                Ok(pruned) if pruned.packs > 0 => {
                    let why = format!("{} packs of {} objects that the cache has", pruned.packs, pruned.objects);
                    self.found.push(GcLeftover { path, why, bytes: pruned.bytes });
                }
                Ok(_) => {}
                Err(error) => self.notes.push(format!("packs in {} stay: {error}", path.display())),
            }
        }
        Ok(())
    }
}

impl Daemon {
    /// Forgets a repository and removes its gitdir, if it has one of ours. False: somebody uses it now.
    fn let_go(&self, repository: &Repository) -> Result<bool, Failure> {
        let alone = self.admission.write();
        if self.is_used(repository.id, None)? || !self.store.remove_repository(repository.id)? {
            return Ok(false);
        }
        self.drop_idle_hydrator(repository.id);
        let mut removed = Ok(None);
        if !repository.external_gitdir {
            removed = rename_away(&repository.gitdir);
        }
        drop(alone);
        if repository.external_gitdir {
            return Ok(true);
        }
        for suffix in ["history", "history.new"] {
            let mut note = repository.gitdir.as_os_str().to_owned();
            note.push(".");
            note.push(suffix);
            // One that stays is found the next time.
            let _ = fs::remove_file(PathBuf::from(note));
        }
        let outcome = removed.and_then(|away| away.map_or(Ok(()), |away| remove(&away)));
        if let Err(error) = outcome {
            // Found again as a gitdir of no repository, or as half removed.
            tracing::warn!(gitdir = %repository.gitdir.display(), "not all of it is removed: {error}");
        }
        tracing::info!(repository = repository.url, "forgotten: no workspace is of it");
        Ok(true)
    }
}

/// Removes a gitdir: first its name, so that no half of one is ever found under it.
fn remove_gitdir(path: &Path) -> io::Result<Option<()>> {
    match rename_away(path)? {
        Some(away) => remove(&away).map(Some),
        None => Ok(None),
    }
}

/// Gives a gitdir a name by which it counts as half-made; `None` when there is none.
fn rename_away(path: &Path) -> io::Result<Option<PathBuf>> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let away = tempfile::Builder::new().prefix(HALF_MADE).tempdir_in(parent)?;
    match fs::rename(path, away.path()) {
        Ok(()) => Ok(Some(away.keep())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// What a directory holds; nothing when it can't be listed, as most often when it is not there.
fn listed(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory {
                tracing::warn!("{}: {error}", directory.display());
            }
            Vec::new()
        }
    };
    all.sort();
    all
}

/// What a directory holds under a number and `suffix`.
fn numbered(directory: &Path, suffix: &str) -> Vec<(u64, PathBuf)> {
    let number = |path: &Path| {
        let digits = name(path).strip_suffix(suffix)?.to_owned();
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    listed(directory).into_iter().filter_map(|path| Some((number(&path)?, path))).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Calls `look` with everything at and below `path`.
fn each(path: &Path, look: &mut impl FnMut(&Metadata)) {
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(found) = path.symlink_metadata() else { continue };
        look(&found);
        if found.is_dir() {
            left.extend(listed(&path));
        }
    }
}

/// The bytes of all files at and below `path`.
fn size(path: &Path) -> u64 {
    let mut bytes = 0;
    each(path, &mut |found| bytes += if found.is_file() { found.len() } else { 0 });
    bytes
}

/// Whether nothing at or below `path` changed for so long. A time to come is a clock that was set back, and says nothing.
fn is_older(path: &Path, age: Duration) -> bool {
    let now = SystemTime::now();
    let mut older = true;
    each(path, &mut |found| {
        let since = found.modified().ok().and_then(|at| now.duration_since(at).ok());
        older &= since.is_some_and(|since| since >= age);
    });
    older
}
