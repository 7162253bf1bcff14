//! Reconciling: the working tree against another base.
//!
//! Two reasons, two rules. When Git moved HEAD, the working tree is what Git left there: nothing visible changes, only what
//! counts as changed ([`Rule::Stay`]). When Larder switches, what was not changed locally follows the new base
//! ([`Rule::Follow`]). Either way only directories are entered in which the two trees differ or something was changed.
//!
//! All of it is worked out first, and written in one transaction with the generation
//! ([`OverlayLog::publish`](crate::store::overlay::OverlayLog::publish)).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gix::ObjectId;

use super::{Defaults, Ground, Outcome, Overlay, OverlayError, State, base_mode, now};
use crate::index::diff::Sides;
use crate::index::ino::Ino;
use crate::index::switching::Kept;
use crate::index::view::View;
use crate::store::overlay::{Binding, Change, Content, Name, Node, Stamp};
use crate::store::{EntryKind, GenerationRecord, Workspace};

/// What becomes of names that were not changed locally.
#[derive(Clone, Copy, Debug)]
pub enum Rule<'a> {
    /// They stay what they were.
    Stay,
    /// They become what the new base says, as changed at `at`.
    Follow {
        /// Paths that are kept as they are although the base changes there.
        keep: &'a BTreeMap<Vec<u8>, Kept>,
        /// When.
        at: Stamp,
        /// What `keep` was worked out from.
        planned: Option<Planned<'a>>,
    },
}

/// What a plan was made from. A path that it changes must not have been changed since by anybody else.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The first change that was not looked at ([`Overlay::mark`]).
    pub since: u64,
    /// The paths that the plan changes.
    pub changes: &'a BTreeMap<Vec<u8>, Sides>,
}

/// What the kernel has to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Names that lead elsewhere now.
    pub names: Vec<(Ino, Name)>,
    /// Directories whose listing changed, and inodes whose attributes did.
    pub inodes: Vec<Ino>,
}

type Tree = Option<ObjectId>;
type Entry = (EntryKind, ObjectId);

impl Overlay {
    /// Publishes `record`, a generation of `workspace`, and expresses the working tree against it. `view` shows the
    /// generation before. Nothing is shown from the new generation before this returned; the caller lets nobody look in
    /// between.
    pub fn reconcile(
        &self,
        view: &View,
        ground: &dyn Ground,
        rule: Rule<'_>,
        record: &GenerationRecord,
        workspace: &Workspace,
    ) -> Outcome<Moved> {
        let _turn = self.folding.lock();
        // Publishing ends the write-ahead files that have these bytes.
        self.release_all()?;
        let mut state = self.state.write();
        if let Rule::Follow { planned: Some(planned), .. } = rule {
            state.check_unchanged(planned)?;
        }
        self.release_rest(&mut state)?;
        let mut work = Work::new(&mut state, view, ground, &self.defaults, rule);
        work.directory(Ino::ROOT, Some(view.generation().tree.0), Some(record.tree.0))?;
        let Work { change, nodes, mut moved, orphans, touched, .. } = work;
        let change = Change { nodes: nodes.into_iter().collect(), ..change };
        state.log.publish(change, record, workspace)?;
        state.published = Some(record.generation);
        for (ino, node) in orphans {
            state.orphans.insert(ino, Arc::new(node));
        }
        state.listings.clear();
        moved.inodes.extend(touched);
        Ok(moved)
    }

    /// Looks again at what was changed: directories and removed names that are what the base says no longer count. Does
    /// nothing if a later generation is published: of that, `view` would take back changes.
    pub(super) fn normalize(&self, view: &View, ground: &dyn Ground) -> Outcome<()> {
        let mut state = self.state.write();
        if state.log.is_pristine() || state.is_past(view) {
            return Ok(());
        }
        let tree = Some(view.generation().tree.0);
        let mut work = Work::new(&mut state, view, ground, &self.defaults, Rule::Stay);
        work.directory(Ino::ROOT, tree, tree)?;
        let Work { change, nodes, .. } = work;
        if change.bindings.is_empty() && nodes.is_empty() {
            return Ok(());
        }
        state.listings.clear();
        Ok(state.log.apply(Change { nodes: nodes.into_iter().collect(), ..change })?)
    }
}

impl State {
    /// Fails with the first path of a plan that was changed after the plan was made.
    fn check_unchanged(&self, planned: Planned<'_>) -> Outcome<()> {
        let Some(paths) = self.log.changed_since(planned.since)? else {
            return Err(OverlayError::Changed(Vec::new()));
        };
        for path in paths {
            let path = path.strip_suffix(b"/").unwrap_or(&path);
            let beneath = [path, b"/"].concat();
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end]);
            let mut outer = slashes.chain([path]);
            let inner = planned.changes.range(beneath.clone()..).next();
            if outer.any(|path| planned.changes.contains_key(path))
                || inner.is_some_and(|(inner, _)| inner.starts_with(&beneath))
            {
                return Err(OverlayError::Changed(path.to_vec()));
            }
        }
        Ok(())
    }
}

/// One reconciliation in the making.
struct Work<'a> {
    state: &'a mut State,
    view: &'a View,
    ground: &'a dyn Ground,
    defaults: &'a Defaults,
    rule: Rule<'a>,
    now: Stamp,
    change: Change,
    nodes: HashMap<u64, Option<Node>>,
    moved: Moved,
    orphans: Vec<(Ino, Node)>,
    /// Directories whose listing changed.
    touched: BTreeSet<Ino>,
    /// Directories from the root to the present one.
    stack: Vec<Level>,
    path: Vec<u8>,
}

struct Level {
    ino: Ino,
    parent: Ino,
    name: Name,
    subdirectories: u32,
}

impl<'a> Work<'a> {
    fn new(
        state: &'a mut State,
        view: &'a View,
        ground: &'a dyn Ground,
        defaults: &'a Defaults,
        rule: Rule<'a>,
    ) -> Self {
        Self {
            state,
            view,
            ground,
            defaults,
            rule,
            now: match rule {
                Rule::Follow { at, .. } => at,
                Rule::Stay => now(),
            },
            change: Change::default(),
            nodes: HashMap::new(),
            moved: Moved::default(),
            orphans: Vec::new(),
            touched: BTreeSet::new(),
            stack: Vec::new(),
            path: Vec::new(),
        }
    }

    fn node(&self, ino: Ino) -> Outcome<Option<Node>> {
        match self.nodes.get(&ino.0) {
            Some(node) => Ok(node.clone()),
            None => Ok(self.state.log.node(ino.0)?.map(|node| Node::clone(&node))),
        }
    }

    /// The present directory and those above it get nodes: something in it is bound.
    fn hold(&mut self) -> Outcome<()> {
        for at in (0..self.stack.len()).rev() {
            let Level { ino, parent, ref name, subdirectories } = self.stack[at];
            if self.nodes.get(&ino.0).is_some_and(Option::is_some) || self.state.log.node(ino.0)?.is_some() {
                return Ok(());
            }
            let name = name.clone();
            let mut node = fresh(self.defaults, libc::S_IFDIR | 0o755, Content::Base);
            node.subdirectories = subdirectories;
            if ino != Ino::ROOT {
                node.links = vec![(parent.0, name.clone())];
                let binding = self.binding(ino, node.kind());
                self.change.bindings.push((parent.0, name, Some(binding)));
            }
            self.nodes.insert(ino.0, Some(node));
        }
        Ok(())
    }

    fn binding(&mut self, ino: Ino, kind: u8) -> Binding {
        Binding::Inode { ino: ino.0, kind, cookie: self.state.log.take_number() }
    }

    /// The directory `ino`, whose base was `old` and becomes `new`.
    fn directory(&mut self, ino: Ino, old: Tree, new: Tree) -> Outcome<()> {
        let bindings = self.state.log.bindings(ino.0)?;
        if old == new && bindings.is_empty() {
            return Ok(());
        }
        let (before, after) = (self.listed(old)?, if old == new { None } else { Some(self.listed(new)?) });
        let mut names: BTreeSet<Name> = bindings.keys().cloned().collect();
        let after = match after {
            Some(after) => {
                names.extend(
                    before
                        .iter()
                        .filter(|(name, entry)| after.get(*name) != Some(*entry))
                        .map(|(name, _)| name.clone()),
                );
                names.extend(after.keys().filter(|name| !before.contains_key(*name)).cloned());
                after
            }
            None => before.clone(),
        };
        if self.stack.is_empty() {
            self.push(ino, ino, &[], &before, &bindings);
        }
        let length = self.path.len();
        let mut bound = bindings;
        for name in names {
            self.path.extend_from_slice(&name);
            let entry = (before.get(&name).copied(), after.get(&name).copied());
            let found = bound.get(&name).copied();
            let now_bound = self.entry(ino, &name, entry, found)?;
            self.path.truncate(length);
            match now_bound {
                Some(binding) => bound.insert(name, binding),
                None => bound.remove(&name),
            };
        }
        self.count(ino, &after, &bound)?;
        Ok(())
    }

    fn push(
        &mut self,
        ino: Ino,
        parent: Ino,
        name: &[u8],
        before: &BTreeMap<Name, Entry>,
        bindings: &BTreeMap<Name, Binding>,
    ) {
        let subdirectories = count_directories(before, bindings);
        self.stack.push(Level { ino, parent, name: Box::from(name), subdirectories });
    }

    /// Enters the directory `name` of the present one.
    fn descend(&mut self, parent: Ino, name: &[u8], ino: Ino, old: Tree, new: Tree) -> Outcome<()> {
        let (before, bindings) = (self.listed(old)?, self.state.log.bindings(ino.0)?);
        self.push(ino, parent, name, &before, &bindings);
        self.path.push(b'/');
        let done = self.directory(ino, old, new);
        self.path.pop();
        self.stack.pop();
        done
    }

    fn listed(&self, tree: Tree) -> Outcome<BTreeMap<Name, Entry>> {
        let Some(tree) = tree else { return Ok(BTreeMap::new()) };
        let directory = self.view.directory(&tree)?;
        Ok(directory.listing().iter().map(|entry| (Box::from(entry.name), (entry.kind, entry.id))).collect())
    }

    /// What a directory's node keeps of its entries: how many are directories, and when they changed.
    fn count(&mut self, ino: Ino, after: &BTreeMap<Name, Entry>, bound: &BTreeMap<Name, Binding>) -> Outcome<()> {
        let subdirectories = count_directories(after, bound);
        let touched = self.touched.contains(&ino);
        if let Some(mut node) = self.node(ino)?
            && (touched || node.subdirectories != subdirectories)
        {
            node.subdirectories = subdirectories;
            if touched {
                (node.mtime, node.ctime) = (self.now, self.now);
            }
            self.nodes.insert(ino.0, Some(node));
        }
        Ok(())
    }

    /// One name: what the base had and has, and what is bound. Answers what is bound afterwards.
    fn entry(
        &mut self,
        parent: Ino,
        name: &[u8],
        (old, new): (Option<Entry>, Option<Entry>),
        bound: Option<Binding>,
    ) -> Outcome<Option<Binding>> {
        match (bound, self.rule) {
            (None, _) if old == new => Ok(None),
            (None, _) if is_tree(old) && is_tree(new) => {
                let ino = Ino::of(parent, name, EntryKind::Directory, &ObjectId::null(gix::hash::Kind::Sha1));
                self.descend(parent, name, ino, tree_of(old), tree_of(new))?;
                Ok(self.bound_now(parent, name))
            }
            (None, Rule::Stay) => match old {
                Some(entry) => self.refer(parent, name, entry).map(Some),
                None => self.bind(parent, name, Some(Binding::Whiteout)),
            },
            (None, Rule::Follow { keep, .. }) => match (keep.get(&self.path), old) {
                (Some(Kept::OldBase(_)), Some(entry)) => self.refer(parent, name, entry).map(Some),
                // Unbound and kept as it is: removed with a directory above it.
                (Some(Kept::Absent | Kept::AsItIs), None) => self.bind(parent, name, new.map(|_| Binding::Whiteout)),
                _ => {
                    self.leave(parent, name, old);
                    self.expose(parent, name, new)
                }
            },
            (Some(Binding::Whiteout), Rule::Stay) => match new {
                None => self.bind(parent, name, None),
                Some(_) => Ok(bound),
            },
            (Some(Binding::Whiteout), Rule::Follow { .. }) if old == new => Ok(bound),
            (Some(Binding::Whiteout), Rule::Follow { keep, .. }) if keep.contains_key(&self.path) => match new {
                None => self.bind(parent, name, None),
                Some(_) => Ok(bound),
            },
            (Some(Binding::Whiteout), Rule::Follow { .. }) => self.expose(parent, name, new),
            (Some(Binding::Inode { ino, .. }), _) => {
                let Some(node) = self.node(Ino(ino))? else { return Ok(bound) };
                if node.is_directory() {
                    self.bound_directory(parent, name, Ino(ino), node, (old, new))
                } else {
                    self.bound_file(parent, name, (Ino(ino), node), (old, new))
                }
            }
        }
    }

    fn bound_directory(
        &mut self,
        parent: Ino,
        name: &[u8],
        ino: Ino,
        mut node: Node,
        (old, new): (Option<Entry>, Option<Entry>),
    ) -> Outcome<Option<Binding>> {
        let same = Some(Binding::Inode { ino: ino.0, kind: node.kind(), cookie: 0 });
        let shown = match node.content {
            Content::Base => tree_of(old),
            Content::Tree(tree) => Some(tree),
            _ => None,
        };
        let follows = matches!(self.rule, Rule::Follow { .. });
        if is_tree(new) {
            if node.content != Content::Base {
                // From now on it shows what the base has there; whatever of that it did not show is removed.
                if follows && old != new && shown.is_none() {
                    node.content = Content::Base;
                    self.nodes.insert(ino.0, Some(node));
                    self.descend(parent, name, ino, None, tree_of(new))?;
                    return Ok(same);
                }
                node.content = Content::Base;
                self.nodes.insert(ino.0, Some(node));
                let rule = std::mem::replace(&mut self.rule, Rule::Stay);
                let done = self.descend(parent, name, ino, shown, tree_of(new));
                self.rule = rule;
                done?;
                return Ok(same);
            }
            self.descend(parent, name, ino, shown, tree_of(new))?;
            return Ok(same);
        }
        if node.content != Content::Base || old == new {
            return Ok(same);
        }
        if !follows {
            node.content = shown.map_or(Content::Empty, Content::Tree);
            self.nodes.insert(ino.0, Some(node));
            return Ok(same);
        }
        self.descend(parent, name, ino, shown, None)?;
        let mut node = self.node(ino)?.unwrap_or(node);
        let left = self.bindings_now(ino)?;
        if left.values().any(|binding| *binding != Binding::Whiteout) {
            node.content = Content::Empty;
            self.nodes.insert(ino.0, Some(node));
            return Ok(same);
        }
        for name in left.into_keys() {
            self.change.bindings.push((ino.0, name, None));
        }
        self.unlinked(ino, node);
        self.forget(parent, name);
        self.expose(parent, name, new)
    }

    fn bound_file(
        &mut self,
        parent: Ino,
        name: &[u8],
        (ino, mut node): (Ino, Node),
        (old, new): (Option<Entry>, Option<Entry>),
    ) -> Outcome<Option<Binding>> {
        let same = Some(Binding::Inode { ino: ino.0, kind: node.kind(), cookie: 0 });
        if old != new {
            // It may be what the new base says.
            self.state.unsettled.insert(ino);
        }
        match self.rule {
            Rule::Stay => return Ok(same),
            Rule::Follow { keep, .. } if old == new || keep.contains_key(&self.path) => return Ok(same),
            Rule::Follow { .. } => {}
        }
        node.links.retain(|(at, called)| (*at, &**called) != (parent.0, name));
        node.ctime = self.now;
        if let Some((at, called)) = node.links.first() {
            self.ground.moved(ino, Ino(*at), called);
            self.nodes.insert(ino.0, Some(node));
        } else {
            self.unlinked(ino, node);
        }
        self.forget(parent, name);
        self.expose(parent, name, new)
    }

    /// The inode has no name any more.
    fn unlinked(&mut self, ino: Ino, mut node: Node) {
        node.links.clear();
        self.nodes.insert(ino.0, None);
        self.orphans.push((ino, node));
    }

    /// What the base had there is no longer shown; whoever has it open keeps it.
    fn leave(&mut self, parent: Ino, name: &[u8], old: Option<Entry>) {
        self.forget(parent, name);
        if let Some((kind, id)) = old.filter(|(kind, _)| kind.is_blob()) {
            let ino = Ino::of(parent, name, kind, &id);
            if self.ground.knows(ino) {
                self.orphans.push((ino, fresh(self.defaults, base_mode(kind), Content::Blob(id))));
            }
        }
    }

    fn forget(&mut self, parent: Ino, name: &[u8]) {
        self.touched.insert(parent);
        self.moved.names.push((parent, Box::from(name)));
        self.change.paths.push(self.path.clone().into());
    }

    /// Binds `name` to what the base had there, which it has no longer.
    fn refer(&mut self, parent: Ino, name: &[u8], (kind, id): Entry) -> Outcome<Binding> {
        let ino = Ino::of(parent, name, kind, &id);
        let content = match kind {
            EntryKind::Directory => Content::Tree(id),
            EntryKind::Gitlink => Content::Empty,
            _ => Content::Blob(id),
        };
        let mut node = fresh(self.defaults, base_mode(kind), content);
        node.links = vec![(parent.0, Box::from(name))];
        if kind == EntryKind::Directory {
            node.subdirectories = self.view.directory(&id)?.listing().directories();
        }
        let binding = self.binding(ino, node.kind());
        self.nodes.insert(ino.0, Some(node));
        self.bind(parent, name, Some(binding))?;
        Ok(binding)
    }

    /// Shows what the new base has there, as changed now.
    fn expose(&mut self, parent: Ino, name: &[u8], new: Option<Entry>) -> Outcome<Option<Binding>> {
        self.forget(parent, name);
        let Some((kind, id)) = new else { return self.bind(parent, name, None) };
        let number = Ino::of(parent, name, kind, &id);
        if kind == EntryKind::Directory {
            if self.hidden(&id)? {
                return self.bind(parent, name, Some(Binding::Whiteout));
            }
            // Bindings left from before would hide it.
            self.bind(parent, name, None)?;
            if self.is_taken(number)? {
                let ino = Ino::local(self.state.log.take_number());
                let mut node = fresh(self.defaults, base_mode(kind), Content::Base);
                node.links = vec![(parent.0, Box::from(name))];
                (node.mtime, node.ctime) = (self.now, self.now);
                let binding = self.binding(ino, node.kind());
                self.nodes.insert(ino.0, Some(node));
                self.bind(parent, name, Some(binding))?;
                self.descend(parent, name, ino, None, Some(id))?;
                return Ok(Some(binding));
            }
            self.descend(parent, name, number, None, Some(id))?;
            return Ok(self.bound_now(parent, name));
        }
        if kind == EntryKind::Gitlink {
            return self.bind(parent, name, None);
        }
        let ino = if self.is_taken(number)? { Ino::local(self.state.log.take_number()) } else { number };
        let mut node = fresh(self.defaults, base_mode(kind), Content::Blob(id));
        (node.mtime, node.ctime) = (self.now, self.now);
        node.links = vec![(parent.0, Box::from(name))];
        let binding = self.binding(ino, node.kind());
        self.nodes.insert(ino.0, Some(node));
        self.moved.inodes.push(ino);
        self.bind(parent, name, Some(binding))
    }

    /// Whether everything in `tree`, which is at the present path, is kept absent: Git leaves no directory then.
    fn hidden(&self, tree: &ObjectId) -> Outcome<bool> {
        let Rule::Follow { keep, .. } = self.rule else { return Ok(false) };
        let prefix = [&self.path[..], b"/"].concat();
        if keep.range(prefix.clone()..).next().is_none_or(|(path, _)| !path.starts_with(&prefix)) {
            return Ok(false);
        }
        let mut open = vec![(prefix, *tree)];
        while let Some((prefix, tree)) = open.pop() {
            for entry in self.view.directory(&tree)?.listing().iter() {
                let path = [&prefix[..], entry.name].concat();
                if entry.kind == EntryKind::Directory {
                    open.push(([&path[..], b"/"].concat(), entry.id));
                } else if !keep.contains_key(&path) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether another file has that number, or had it and is still open.
    fn is_taken(&self, number: Ino) -> Outcome<bool> {
        let drafted = self.nodes.get(&number.0);
        let stored = drafted.is_none() && self.state.log.node(number.0)?.is_some();
        let open = self.state.orphans.contains_key(&number) || self.orphans.iter().any(|(ino, _)| *ino == number);
        Ok(stored || open || matches!(drafted, Some(Some(_))))
    }

    fn bind(&mut self, parent: Ino, name: &[u8], binding: Option<Binding>) -> Outcome<Option<Binding>> {
        if binding.is_some() {
            self.hold()?;
        }
        self.change.bindings.push((parent.0, Box::from(name), binding));
        Ok(binding)
    }

    /// What was bound to `name` in the course of this.
    fn bound_now(&self, parent: Ino, name: &[u8]) -> Option<Binding> {
        let mine = |(at, called, _): &&(u64, Name, Option<Binding>)| (*at, &**called) == (parent.0, name);
        self.change.bindings.iter().rev().take(64).find(mine).and_then(|(.., binding)| *binding)
    }

    /// The bindings of `ino` as they will be.
    fn bindings_now(&self, ino: Ino) -> Outcome<BTreeMap<Name, Binding>> {
        let mut bindings = self.state.log.bindings(ino.0)?;
        for (at, name, binding) in &self.change.bindings {
            if *at == ino.0 {
                match binding {
                    Some(binding) => bindings.insert(name.clone(), *binding),
                    None => bindings.remove(name),
                };
            }
        }
        Ok(bindings)
    }
}

fn fresh(defaults: &Defaults, mode: u32, content: Content) -> Node {
    let Defaults { uid, gid, time } = *defaults;
    Node {
        mode,
        uid,
        gid,
        atime: time,
        mtime: time,
        ctime: time,
        rdev: 0,
        content,
        links: Vec::new(),
        subdirectories: 0,
        xattrs: Vec::new(),
        origin: Box::default(),
    }
}

fn count_directories(base: &BTreeMap<Name, Entry>, bound: &BTreeMap<Name, Binding>) -> u32 {
    let is_directory =
        |binding: &Binding| matches!(binding, Binding::Inode { kind, .. } if u32::from(*kind) << 12 == libc::S_IFDIR);
    let shown = base.iter().filter(|(name, (kind, _))| *kind == EntryKind::Directory && !bound.contains_key(*name));
    u32::try_from(shown.count() + bound.values().filter(|binding| is_directory(binding)).count()).unwrap_or(u32::MAX)
}

fn is_tree(entry: Option<Entry>) -> bool {
    tree_of(entry).is_some()
}

fn tree_of(entry: Option<Entry>) -> Tree {
    entry.and_then(|(kind, id)| (kind == EntryKind::Directory).then_some(id))
}
