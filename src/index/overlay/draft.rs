//! One operation in the making: the nodes and names it is going to change.

use std::collections::BTreeMap;

use super::names::check_name;
use super::{Defaults, Found, Ground, Outcome, OverlayError, State, base_mode};
use crate::index::ino::Ino;
use crate::index::view::View;
use crate::store::EntryKind;
use crate::store::overlay::{Binding, Change, Content, Name, Node, Stamp};

/// What an operation looks at.
pub(super) struct Draft<'a> {
    pub(super) state: &'a mut State,
    pub(super) view: &'a View,
    pub(super) ground: &'a dyn Ground,
    pub(super) defaults: &'a Defaults,
    nodes: BTreeMap<u64, Option<Node>>,
    bindings: Vec<(u64, Name, Option<Binding>)>,
    paths: Vec<Name>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &'a mut State, view: &'a View, ground: &'a dyn Ground, defaults: &'a Defaults) -> Self {
        Self { state, view, ground, defaults, nodes: BTreeMap::new(), bindings: Vec::new(), paths: Vec::new() }
    }

    pub(super) fn find(&self, parent: Ino, name: &[u8]) -> Outcome<Found> {
        self.state.find(self.view, self.ground, parent, name)
    }

    /// The node of directory `ino`, made with those of all directories above it where they are missing.
    pub(super) fn directory(&mut self, ino: Ino) -> Outcome<&mut Node> {
        if !self.nodes.contains_key(&ino.0) {
            let node = match self.state.node(ino)? {
                Some(node) if node.is_directory() => Node::clone(&node),
                Some(_) => return Err(OverlayError::NotDirectory),
                None => self.take_directory(ino)?,
            };
            self.nodes.insert(ino.0, Some(node));
        }
        self.drafted(ino)
    }

    /// A node for a directory of the base, bound where it is.
    fn take_directory(&mut self, ino: Ino) -> Outcome<Node> {
        let base = self.state.base(self.view, self.ground, ino)?;
        let mut node = self.fresh(libc::S_IFDIR | 0o755, Content::Base);
        node.subdirectories = base.map_or(0, |directory| directory.listing().directories());
        if ino == Ino::ROOT {
            return Ok(node);
        }
        let (parent, name) = self.ground.place(ino).ok_or(OverlayError::Stale)?;
        self.directory(parent)?;
        node.links = vec![(parent.0, name.clone())];
        self.bind(parent, &name, ino, node.kind());
        Ok(node)
    }

    /// The node of `ino`, made from what the base has where it is missing.
    pub(super) fn node(&mut self, ino: Ino) -> Outcome<&mut Node> {
        if self.nodes.contains_key(&ino.0) {
            return self.drafted(ino);
        }
        if let Some(node) = self.state.node(ino)? {
            self.nodes.insert(ino.0, Some(Node::clone(&node)));
            return self.drafted(ino);
        }
        let place = self.ground.place(ino);
        if let Some((parent, name)) = &place {
            // The root's `.git` is neither the base's nor the user's: it must not be taken for a directory.
            check_name(*parent, name)?;
        }
        let Some((kind, id)) = self.ground.blob(ino) else { return self.directory(ino) };
        let (parent, name) = place.ok_or(OverlayError::Stale)?;
        // What the kernel holds of a generation that is gone has no name to be changed under.
        match self.find(parent, &name)? {
            Found::Base { id: now, .. } if now == id => {}
            _ => return Err(OverlayError::Stale),
        }
        let mut node = self.fresh(base_mode(kind), Content::Blob(id));
        node.links = vec![(parent.0, name.clone())];
        self.directory(parent)?;
        self.bind(parent, &name, ino, node.kind());
        self.nodes.insert(ino.0, Some(node));
        self.drafted(ino)
    }

    /// The node of what was found, as a draft.
    pub(super) fn found(&mut self, parent: Ino, name: &[u8], found: &Found) -> Outcome<(Ino, &mut Node)> {
        match found {
            Found::Nothing => Err(OverlayError::NotFound),
            Found::Bound { ino, node } => {
                self.nodes.entry(ino.0).or_insert_with(|| Some(Node::clone(node)));
                Ok((*ino, self.drafted(*ino)?))
            }
            Found::Base { kind, id, ino, .. } => {
                let content = if kind.is_blob() { Content::Blob(*id) } else { Content::Base };
                let mut node = self.fresh(base_mode(*kind), content);
                if *kind == EntryKind::Directory {
                    node.subdirectories = self.view.directory(id)?.listing().directories();
                }
                node.links = vec![(parent.0, Box::from(name))];
                self.nodes.insert(ino.0, Some(node));
                Ok((*ino, self.drafted(*ino)?))
            }
        }
    }

    fn drafted(&mut self, ino: Ino) -> Outcome<&mut Node> {
        self.nodes.get_mut(&ino.0).and_then(Option::as_mut).ok_or(OverlayError::Stale)
    }

    /// A node owned by the workspace's owner, with the base's times.
    pub(super) fn fresh(&self, mode: u32, content: Content) -> Node {
        let Defaults { uid, gid, time } = *self.defaults;
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

    pub(super) fn put(&mut self, ino: Ino, node: Node) {
        self.nodes.insert(ino.0, Some(node));
    }

    /// The node goes: the inode is unlinked, or as the base has it.
    pub(super) fn drop_node(&mut self, ino: Ino) -> Option<Node> {
        self.nodes.insert(ino.0, None).flatten()
    }

    pub(super) fn bind(&mut self, parent: Ino, name: &[u8], ino: Ino, kind: u8) {
        let cookie = self.state.log.take_number();
        self.bindings.push((parent.0, Box::from(name), Some(Binding::Inode { ino: ino.0, kind, cookie })));
    }

    /// Nothing is there any more, whatever the base has.
    pub(super) fn unbind(&mut self, parent: Ino, name: &[u8]) -> Outcome<()> {
        let base = self.state.find_base(self.view, self.ground, parent, name)?;
        self.bindings.push((parent.0, Box::from(name), base.map(|_| Binding::Whiteout)));
        Ok(())
    }

    /// As the base has it.
    pub(super) fn clear(&mut self, parent: Ino, name: &[u8]) {
        self.bindings.push((parent.0, Box::from(name), None));
    }

    /// The entries of `parent` changed: its times, and by how many the number of its subdirectories.
    pub(super) fn touch_directory(&mut self, parent: Ino, now: Stamp, subdirectories: i32) -> Outcome<()> {
        let node = self.directory(parent)?;
        (node.mtime, node.ctime) = (now, now);
        node.subdirectories = node.subdirectories.saturating_add_signed(subdirectories);
        self.state.listings.remove(parent);
        Ok(())
    }

    /// Git is to look at `name` in `parent`.
    pub(super) fn report(&mut self, parent: Ino, name: &[u8], directory: bool) -> Outcome<()> {
        let mut path = self.state.path(self.ground, parent, name)?;
        if directory {
            path.push(b'/');
        }
        self.paths.push(path.into());
        Ok(())
    }

    /// Git is to look at every name of `ino`.
    pub(super) fn report_links(&mut self, ino: Ino) -> Outcome<()> {
        let links = self.drafted(ino)?.links.clone();
        for (parent, name) in links {
            self.report(Ino(parent), &name, false)?;
        }
        Ok(())
    }

    /// Acknowledges it.
    pub(super) fn apply(self) -> Outcome<()> {
        let change = Change {
            bindings: self.bindings,
            nodes: self.nodes.into_iter().collect(),
            paths: self.paths,
            ..Change::default()
        };
        // A name that is bound now is listed from its node, not as the base has it.
        for (parent, ..) in &change.bindings {
            self.state.listings.remove(Ino(*parent));
        }
        self.state.unsettled.extend(change.nodes.iter().map(|(ino, _)| Ino(*ino)));
        Ok(self.state.log.apply(change)?)
    }
}
