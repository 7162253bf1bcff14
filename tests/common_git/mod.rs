//! Repositories and workspaces for tests that let stock Git judge.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gix::ObjectId;
use gix::hash::Kind;
use larder::git::fsmonitor::{HOOK_NAME, HookTarget};
use larder::git::gitdir::{self, GitdirSpec, HeadSpec, HeadState, WorktreeSpec, add_worktree, gitfile, record_branch};
use larder::git::index_file::{
    self, DEFAULT_MAX_PATHS, ExcludeFile, IndexFileError, IndexSpec, IndexWritten, Stat, StatRequest, UntrackedSpec,
};
use larder::store::{Listing, WorkspaceId};

/// A source repository and a common gitdir around its objects.
pub struct Fixture {
    /// Everything is in here; the name has a space, so that quoting is tested all the time.
    pub root: tempfile::TempDir,
    /// An ordinary repository.
    pub source: PathBuf,
    /// What `gitdir::create` made.
    pub common: PathBuf,
    format: String,
}

/// One worktree of a common gitdir.
pub struct Workspace {
    pub path: PathBuf,
    pub admin: PathBuf,
    pub head: HeadState,
    pub config_applies: bool,
    common: PathBuf,
    commit: ObjectId,
    answer: PathBuf,
}

impl AsRef<Path> for Workspace {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Runs Git cut off from the machine's configuration; its output, lossy. Panics when it fails.
pub fn git_in(directory: &Path, arguments: &[&str]) -> String {
    let output = command(directory, arguments).output().expect("git is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn git(place: &(impl AsRef<Path> + ?Sized), arguments: &[&str]) -> String {
    git_in(place.as_ref(), arguments)
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).args(arguments).env_clear().env("PATH", std::env::var_os("PATH").expect("PATH"));
    command.env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "T").env(format!("GIT_{who}_EMAIL"), "t@example.org");
        command.env(format!("GIT_{who}_DATE"), "1600000000 +0000");
    }
    command
}

/// A number Git traced with `trace2_data_intmax`.
pub fn count(trace: &str, key: &str) -> Option<u64> {
    let (_, rest) = trace.rsplit_once(&format!("{key}:"))?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

impl Fixture {
    fn new(format: &str) -> Self {
        let root = tempfile::Builder::new().prefix("larder test-").tempdir().expect("temporary directory");
        let path = root.path().canonicalize().expect("exists");
        let source = path.join("source");
        let argument = format!("--object-format={format}");
        git_in(&path, &["init", "-q", "-b", "main", &argument, "source"]);
        git(&source, &["config", "uploadpack.allowFilter", "true"]);
        Self { common: path.join("common"), source, format: format.into(), root }
    }

    /// A common gitdir around the objects of a gitdir that is there already.
    pub fn around(gitdir: &Path) -> Self {
        let mut fixture = Self::new("sha1");
        fs::remove_dir_all(&fixture.source).expect("removed");
        symlink(gitdir, &fixture.source).expect("link");
        let shallow = gitdir::shallow(gitdir).expect("readable");
        fixture.create_common(&shallow);
        let alternates = format!("{}\n", gitdir.join("objects").display());
        fs::write(fixture.common.join("objects/info/alternates"), alternates).expect("written");
        gitdir.clone_into(&mut fixture.source);
        record_branch(&fixture.common, "main", fixture.head()).expect("recorded");
        fixture
    }

    fn kind(&self) -> Kind {
        if self.format == "sha1" { Kind::Sha1 } else { Kind::Sha256 }
    }

    pub fn head(&self) -> ObjectId {
        ObjectId::from_hex(git(&self.source, &["rev-parse", "HEAD"]).trim_end().as_bytes()).expect("an id")
    }

    fn create_common(&self, shallow: &[ObjectId]) {
        self.create_at(&self.common, shallow);
        let alternates = format!("{}\n", self.source.join(".git/objects").display());
        fs::write(self.common.join("objects/info/alternates"), alternates).expect("written");
    }

    /// Creates a common gitdir for this source.
    pub fn create_at(&self, common: &Path, shallow: &[ObjectId]) {
        let url = format!("file://{}", self.source.display());
        let spec = GitdirSpec {
            object_format: self.kind(),
            url: url.as_bytes(),
            refspecs: gitdir::refspecs(!shallow.is_empty(), Some("main")),
            partial: true,
            shallow,
        };
        gitdir::create(common, &spec).expect("created");
    }

    /// Every kind of entry and name that has tripped an index writer.
    pub fn nasty(format: &str) -> Self {
        let fixture = Self::new(format);
        let source = &fixture.source;
        let put = |name: &[u8], content: &str| {
            let path = source.join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().expect("inside")).expect("created");
            fs::write(path, content).expect("written");
        };
        let names: [&[u8]; 16] = [
            b"a",
            b"a.b",
            b"a-b/c",
            b"b/c",
            b"b.c",
            b"b-c",
            b"b0",
            b"sub/deep/file",
            b"sub/deep/er/file",
            b"non\xffutf8/\xfe",
            b"new\nline",
            b"tab\tquote\"back\\slash",
            b" leading and trailing ",
            b"ignored-dir/tracked",
            b"empty",
            b"aux.c",
        ];
        for name in names {
            put(name, &format!("content of {}\n", name.escape_ascii()));
        }
        put(b"empty", "");
        put(b".gitignore", "*.ignored\nignored-dir/\n");
        put(b"sub/.gitignore", "");
        put(b"sub/deep/.gitignore", "no-newline-at-end");
        put(b"ignored-dir/.gitignore", "x\n");
        put(b"b/.gitattributes", "*.png binary\n");
        put(b".gitmodules", "[submodule \"module\"]\n\tpath = module\n\turl = ./module\n");
        put(b"many/x", "x");
        for i in 0..300 {
            put(format!("many/{i}/f").as_bytes(), "x");
        }
        fs::set_permissions(source.join("b-c"), fs::Permissions::from_mode(0o755)).expect("executable");
        symlink("b/c", source.join("link")).expect("link");
        symlink("a", source.join("many/.gitignore")).expect("link");
        git(source, &["add", "-f", "."]);
        let commit = "1".repeat(fixture.kind().len_in_hex());
        git(source, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
        git(source, &["commit", "-qm", "first"]);
        fixture.create_common(&[]);
        fixture
    }

    /// `d/d/…/f` with `depth` directories, and a file `z`, made without a working tree.
    pub fn deep(depth: usize) -> Self {
        let fixture = Self::new("sha1");
        let blob = git(&fixture.source, &["hash-object", "-w", "/dev/null"]);
        let blob = ObjectId::from_hex(blob.trim_end().as_bytes()).expect("an id");
        let scratch = fixture.root.path().join("trees");
        fs::create_dir(&scratch).expect("created");
        let mut tree = [b"100644 f\0", blob.as_bytes()].concat();
        for level in 0..=depth {
            if level > 0 {
                let id = gix::objs::compute_hash(Kind::Sha1, gix::objs::Kind::Tree, &tree).expect("hashed");
                tree = [b"40000 d\0", id.as_bytes()].concat();
            }
            if level == depth {
                tree.extend_from_slice(&[b"100644 z\0", blob.as_bytes()].concat());
            }
            fs::write(scratch.join(level.to_string()), &tree).expect("written");
        }
        let paths: Vec<String> = (0..=depth).map(|level| format!("{}/{level}", scratch.display())).collect();
        let list = scratch.join("list");
        fs::write(&list, paths.join("\n")).expect("written");
        let output = command(&fixture.source, &["hash-object", "-w", "-t", "tree", "--literally", "--stdin-paths"])
            .stdin(fs::File::open(&list).expect("opened"))
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let root = String::from_utf8(output.stdout).expect("ids").lines().last().expect("a root").to_owned();
        let commit = git(&fixture.source, &["commit-tree", "-m", "deep", &root]);
        git(&fixture.source, &["update-ref", "refs/heads/main", commit.trim_end()]);
        fixture.create_common(&[]);
        fixture
    }

    /// A checkout of `branch` with Larder's gitdir instead of its own.
    pub fn workspace(&self, branch: &str) -> Workspace {
        let name = (1..100).map(|n| format!("mount {n}")).find(|name| !self.root.path().join(name).exists());
        record_branch(&self.common, branch, self.head()).expect("recorded");
        self.workspace_in(&self.common, &name.expect("fewer than 100"), branch)
    }

    pub fn workspace_in(&self, common: &Path, name: &str, branch: &str) -> Workspace {
        let root = self.root.path().canonicalize().expect("exists");
        let source = self.source.to_str().expect("test path");
        git_in(&root, &["clone", "-q", "-b", branch, source, name]);
        fs::remove_dir_all(root.join(name).join(".git")).expect("removed");
        self.attach(common, &root.join(name), branch)
    }

    /// The same with an empty working tree: only fsmonitor says that nothing is missing.
    pub fn bare_workspace(&self, branch: &str) -> Workspace {
        let path = self.root.path().canonicalize().expect("exists").join("bare mount");
        fs::create_dir(&path).expect("created");
        record_branch(&self.common, branch, self.head()).expect("recorded");
        self.attach(&self.common, &path, branch)
    }

    pub fn attach(&self, common: &Path, path: &Path, branch: &str) -> Workspace {
        let answer = path.with_extension("answer");
        let script = path.with_extension("hook");
        let text = format!("#!/bin/sh\ntest \"$1\" = 2 || exit 1\nexec cat '{}'\n", answer.display());
        fs::write(&script, text).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
        let target = HookTarget { workspace: WorkspaceId(1), socket: "/nonexistent/socket".into() };
        let head = HeadSpec::Branch { name: branch.into(), commit: self.head() };
        let name = path.file_name().and_then(OsStr::to_str).expect("test path");
        let spec = WorktreeSpec { name, mount: path, head: &head, hook: Some((&script, &target)) };
        let added = add_worktree(common, &spec).expect("added");
        assert_eq!(fs::read_link(added.admin.join(HOOK_NAME)).expect("a link"), script);
        fs::write(path.join(".git"), gitfile(&added.admin)).expect("written");
        let workspace = Workspace {
            path: path.to_owned(),
            admin: added.admin,
            head: added.head,
            config_applies: added.config_applies,
            common: common.to_owned(),
            commit: self.head(),
            answer,
        };
        workspace.answer(b"t\0");
        workspace
    }

    /// A tree whose bytes were changed is refused.
    pub fn fails_on_damage(&self, kind: Kind, head: &ObjectId) {
        let tree = gitdir::commit_info(&self.common, head).expect("commit").tree;
        let other = git(&self.source, &["rev-parse", "HEAD:sub"]);
        let other = ObjectId::from_hex(other.trim_end().as_bytes()).expect("an id");
        // A loose object outranks nothing: empty the database, then leave one object under another's name.
        let loose = |id: &ObjectId| {
            let hex = id.to_string();
            self.common.join("objects").join(&hex[..2]).join(&hex[2..])
        };
        let output = command(&self.source, &["cat-file", "tree", &other.to_string()]).output().expect("git");
        let scratch = self.root.path().join("object");
        fs::write(&scratch, &output.stdout).expect("written");
        fs::remove_file(self.common.join("objects/info/alternates")).expect("removed");
        let path = scratch.to_str().expect("test path");
        git_in(&self.common, &["hash-object", "-w", "-t", "tree", "--literally", path]);
        fs::create_dir_all(loose(&tree).parent().expect("inside")).expect("created");
        fs::rename(loose(&other), loose(&tree)).expect("renamed");
        let commit = command(&self.source, &["cat-file", "commit", &head.to_string()]).output().expect("git");
        fs::write(&scratch, &commit.stdout).expect("written");
        git_in(&self.common, &["hash-object", "-w", "-t", "commit", "--literally", path]);
        let read = gitdir::Objects::open(&self.common, kind).expect("opened");
        let error = read.read_trees(head, |_, _| Ok::<_, std::io::Error>(())).expect_err("damaged");
        assert!(error.to_string().contains("hashes to"), "{error}");
    }
}

impl Workspace {
    /// What the fsmonitor hook answers from now on.
    pub fn answer(&self, answer: &[u8]) {
        fs::write(&self.answer, answer).expect("written");
    }

    pub fn write_index(&self) -> IndexWritten {
        self.write_index_with(&|_, id| Some(*id))
    }

    pub fn write_index_with(&self, exclude_id: &dyn Fn(&[u8], &ObjectId) -> Option<ObjectId>) -> IndexWritten {
        self.try_write_index(exclude_id).expect("written")
    }

    pub fn try_write_index(
        &self,
        exclude_id: &dyn Fn(&[u8], &ObjectId) -> Option<ObjectId>,
    ) -> Result<IndexWritten, IndexFileError> {
        self.write_from(&self.trees(), true, exclude_id)
    }

    /// The root tree and all trees.
    pub fn trees(&self) -> (ObjectId, HashMap<ObjectId, Listing>) {
        let mut trees = HashMap::new();
        let read = gitdir::read_commit_and_trees(&self.common, &self.commit, |id, listing| {
            trees.insert(id, listing);
            Ok::<_, std::io::Error>(())
        });
        (read.expect("readable").info.tree, trees)
    }

    /// Writes the index from trees read before, with the files' true stat data or none.
    pub fn write_from(
        &self,
        (root, trees): &(ObjectId, HashMap<ObjectId, Listing>),
        lstat: bool,
        exclude_id: &dyn Fn(&[u8], &ObjectId) -> Option<ObjectId>,
    ) -> Result<IndexWritten, IndexFileError> {
        let kind = self.commit.kind();
        let stat = |request: &StatRequest<'_>| {
            if !lstat {
                return Stat::default();
            }
            let path = self.path.join(OsStr::from_bytes(request.path));
            fs::symlink_metadata(path).map(|metadata| Stat::from_metadata(&metadata)).unwrap_or_default()
        };
        let spec = IndexSpec {
            object_format: kind,
            root: *root,
            trees: &|id| trees.get(id).cloned().ok_or_else(|| "absent".into()),
            stat: &stat,
            fsmonitor_token: Some("t"),
            untracked: Some(UntrackedSpec {
                worktree: &self.path,
                info_exclude: ExcludeFile::read(&self.common.join("info/exclude"), kind),
                excludes_file: ExcludeFile::default(),
                show_all: false,
                exclude_id,
            }),
            max_paths: DEFAULT_MAX_PATHS,
        };
        index_file::write(&self.admin, &spec)
    }

    /// Runs Git and returns what it traced.
    pub fn trace(&self, arguments: &[&str]) -> String {
        let trace = self.path.with_extension("trace");
        let _ = fs::remove_file(&trace);
        let output = command(&self.path, arguments).env("GIT_TRACE2_PERF", &trace).output().expect("git is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(&trace).expect("traced")
    }
}

/// An extension found in an index.
pub struct Extension {
    pub name: [u8; 4],
    pub offset: usize,
    pub content: Vec<u8>,
}

impl Extension {
    /// All extensions of a version 4 index, found by walking its entries.
    pub fn all(index: &[u8], format: &str) -> Vec<Self> {
        let id = if format == "sha1" { 20 } else { 32 };
        let u32_at = |at: usize| u32::from_be_bytes(index[at..at + 4].try_into().expect("four bytes")) as usize;
        assert_eq!((&index[..4], u32_at(4)), (&b"DIRC"[..], 4));
        let mut at = 12;
        for _ in 0..u32_at(8) {
            at += 40 + id + 2;
            while index[at] & 0x80 != 0 {
                at += 1;
            }
            at += 1;
            at += index[at..].iter().position(|&byte| byte == 0).expect("ended by NUL") + 1;
        }
        let mut found = Vec::new();
        while at < index.len() - id {
            let length = u32_at(at + 4);
            let name = index[at..at + 4].try_into().expect("four bytes");
            found.push(Self { name, offset: at, content: index[at + 8..at + 8 + length].to_vec() });
            at += 8 + length;
        }
        assert_eq!(at, index.len() - id);
        found
    }
}

/// The content of one extension.
pub fn extension(index: &[u8], format: &str, name: [u8; 4]) -> Vec<u8> {
    let found = Extension::all(index, format).into_iter().find(|extension| extension.name == name);
    found.unwrap_or_else(|| panic!("no {}", name.escape_ascii())).content
}
