//! Every transport against real git: the same objects come over each of them,
//! every failure has its class, and no fault of the network makes wrong data.

#[path = "common/fake_remote.rs"]
#[allow(dead_code, reason = "not every lie is told here")]
mod fake_remote;
#[path = "git_transport/requests.rs"]
mod requests;
#[path = "git_transport/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use gix::ObjectId;
use gix::objs::Kind;
use larder::git::fetch_commit::CommitRequest;
use larder::git::remote::{ConnectOptions, GitConnection};
use larder::hydrate::remote::{Connection as _, Extent, FailureKind, RemoteError};
use larder::store::Depth;
use support::{Daemon, Fault, Fixture, Memory, Web, environment, faulty, git, id, open, remote};

fn request(commit: ObjectId, pack_dir: &Path) -> CommitRequest {
    CommitRequest {
        commit,
        depth: Depth::Commits(1),
        filter: true,
        haves: Vec::new(),
        shallow: Vec::new(),
        pack_dir: pack_dir.to_owned(),
        max_unfiltered_bytes: None,
    }
}

/// Resolves, fetches the commit with its trees, then all blobs and sizes, and compares with git.
fn everything(fixture: &Fixture, mut connection: GitConnection) {
    let resolved = connection.resolve(None).expect("HEAD");
    assert_eq!((resolved.commit, resolved.reference.as_deref()), (fixture.commit, Some("refs/heads/main")));
    let tag = connection.resolve(Some("v1")).expect("the tag");
    assert_eq!((tag.commit, tag.reference.as_deref()), (fixture.commit, Some("refs/tags/v1")));
    assert_eq!(connection.resolve(Some("other")).expect("a branch").head.as_deref(), Some("refs/heads/main"));

    // A gitdir that gets the pack; git itself then says whether it is good.
    let gitdir = tempfile::tempdir().expect("temporary directory");
    let format = format!("--object-format={}", connection.object_hash());
    git(gitdir.path(), &["init", "-q", "--bare", &format, "."]);
    let pack_dir = gitdir.path().join("objects/pack");
    let mut trees = Memory::default();
    let mut reports = 0;
    let fetched = connection
        .fetch_commit(&request(fixture.commit, &pack_dir), &mut trees, &mut |_| reports += 1)
        .expect("the commit");
    assert!(fetched.filtered && fetched.blobs == 0 && reports > 0 && fetched.commit_time == 1_700_000_000);
    assert_eq!(fetched.shallow, [fixture.commit]);
    assert_eq!(fetched.tree.to_string(), git(&fixture.bare, &["rev-parse", "main^{tree}"]));
    let expected = git(&fixture.bare, &["ls-tree", "-rtd", "main"]).lines().count() + 1;
    let distinct = trees.0.values().filter(|(kind, _)| *kind == Kind::Tree).count();
    assert!(distinct as u64 == fetched.trees && distinct <= expected && distinct > 5);
    let pack = fetched.pack.expect("something was new");
    git(gitdir.path(), &["verify-pack", pack.with_extension("idx").to_str().expect("UTF-8")]);
    assert!(pack.with_extension("promisor").exists());
    assert_eq!(fs::read_dir(&pack_dir).expect("there").count(), 3, "temporary files were left");
    for (tree, (kind, raw)) in trees.0.iter().filter(|(_, (kind, _))| *kind == Kind::Tree) {
        assert_eq!(*raw, fixture.content(*tree, *kind));
        larder::store::listing_from_git(tree, raw).expect("git's own trees are fine");
    }

    let wants = fixture.wants();
    let mut blobs = Memory::default();
    connection.fetch(&wants, Extent::Exact, &mut blobs).expect("all blobs");
    assert_eq!(blobs.0.keys().copied().collect::<Vec<_>>(), wants);
    for (blob, (kind, data)) in &blobs.0 {
        assert!(*kind == Kind::Blob && *data == fixture.content(*blob, Kind::Blob));
    }
    if connection.abilities().object_info {
        for (blob, size) in connection.sizes(&wants).expect("all sizes") {
            assert_eq!(size, blobs.0[&blob].1.len() as u64);
        }
    }
    // The same connection still serves; a tree brings nothing it was not asked to.
    let mut one = Memory::default();
    connection.fetch(&[fetched.tree], Extent::Exact, &mut one).expect("the root tree");
    assert_eq!(one.0.into_keys().collect::<Vec<_>>(), [fetched.tree]);
    let absent = id(&"5".repeat(wants[0].kind().len_in_hex()));
    let error = connection.fetch(&[wants[0], absent], Extent::Exact, &mut Memory::default()).expect_err("not there");
    assert_eq!((error.kind, error.object), (FailureKind::Missing, Some(absent)), "{error}");
    connection.fetch(&wants[..1], Extent::Exact, &mut Memory::default()).expect("it connects again by itself");
}

fn failure(url: impl AsRef<std::ffi::OsStr>, options: ConnectOptions) -> RemoteError {
    let error = match open(url, options) {
        Ok(mut connection) => connection.resolve(None).expect_err("this was to fail"),
        Err(error) => error,
    };
    assert!(!error.message.contains('\n') && error.message.len() < 600, "{error}");
    error
}

#[test]
fn local_repositories_of_every_shape() {
    let fixture = Fixture::new();
    // No leave from the repository's own configuration is needed here.
    for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "transfer.advertiseObjectInfo"] {
        git(&fixture.bare, &["config", "--unset", setting]);
    }
    let root = fixture.directory.path();
    everything(&fixture, open(&fixture.bare, fixture.options()).expect("bare"));
    everything(&fixture, open(format!("file://{}", fixture.bare.display()), fixture.options()).expect("file://"));
    everything(&fixture, open(root.join("work"), fixture.options()).expect("with a .git directory"));
    everything(&fixture, open(root.join("x"), fixture.options()).expect("x for x.git"));
    git(&root.join("work"), &["worktree", "add", "-q", "--detach", "../tree"]);
    let mut worktree = open(root.join("tree"), fixture.options()).expect("with a .git file");
    assert_eq!(worktree.resolve(None).expect("HEAD").commit, fixture.commit);
}

#[test]
fn what_is_no_repository_is_missing() {
    let fixture = Fixture::new();
    let root = fixture.directory.path();
    assert_eq!(failure(root.join("nowhere"), fixture.options()).kind, FailureKind::Missing);
    fs::create_dir(root.join("plain")).expect("fresh");
    let error = failure(root.join("plain"), fixture.options());
    assert_eq!(error.kind, FailureKind::Missing, "{error}");
    git(root, &["init", "-q", "--bare", "hollow.git"]);
    let error = failure(root.join("hollow.git"), fixture.options());
    assert!(error.kind == FailureKind::Missing && error.message.contains("no commits"), "{error}");
    let mut connection = open(&fixture.bare, fixture.options()).expect("bare");
    for rev in ["absent", "refs/heads/mai", "main~1", &"5".repeat(64)] {
        assert_eq!(connection.resolve(Some(rev)).expect_err("no such thing").kind, FailureKind::Missing, "{rev}");
    }
}

#[test]
fn a_repository_of_somebody_else_is_denied_as_git_denies_it() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    // Git's own switch for testing this without being root.
    options.environment.push(("GIT_TEST_ASSUME_DIFFERENT_OWNER".into(), "1".into()));
    let error = failure(&fixture.bare, options);
    assert!(error.kind == FailureKind::Denied && error.message.contains("safe.directory"), "{error}");
}

#[test]
fn git_daemon() {
    let fixture = Fixture::new();
    let daemon = Daemon::start(fixture.directory.path());
    everything(&fixture, open(daemon.url("x.git"), fixture.options()).expect("served"));
    assert_eq!(failure(daemon.url("absent"), fixture.options()).kind, FailureKind::Missing);
    let port = daemon.port;
    drop(daemon);
    assert_eq!(failure(format!("git://127.0.0.1:{port}/x"), fixture.options()).kind, FailureKind::Offline);
    let nameless = failure("git://no-such-host.invalid/x", fixture.options());
    assert_eq!(nameless.kind, FailureKind::Offline, "{nameless}");
}

#[test]
fn ssh_through_the_users_command() {
    let fixture = Fixture::new();
    let root = fixture.directory.path();
    let script = root.join("fake ssh");
    // Notes how it was called, then plays the other end.
    let text = "#!/bin/sh\nprintf '%s\\n' \"$@\" >> \"$HOME/called\"\nfor last; do :; done\nexec sh -c \"$last\"\n";
    fs::write(&script, text).expect("fresh file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("own file");
    let url = format!("ssh://me@host.invalid:2222{}", fixture.bare.display());
    let with = |name: &str, value: String| {
        let mut options = fixture.options();
        options.environment.push((name.to_owned(), value));
        options
    };
    let quoted = format!("'{}'", script.display());
    everything(&fixture, open(&url, with("GIT_SSH_COMMAND", quoted.clone())).expect("a shell command"));
    everything(&fixture, open(&url, with("GIT_SSH", script.display().to_string())).expect("a program"));
    git(root, &["config", "--global", "core.sshCommand", &quoted]);
    everything(&fixture, open(&url, fixture.options()).expect("from the configuration"));
    let called = fs::read_to_string(root.join("called")).expect("it was called");
    for words in ["BatchMode=yes\n", "SendEnv=GIT_PROTOCOL\n", "-p\n2222\nme@host.invalid\ngit-upload-pack '/"] {
        assert!(called.contains(words), "{words:?} in {called}");
    }
    for (says, kind) in [
        ("me@host: Permission denied (publickey).", FailureKind::Denied),
        ("Host key verification failed.", FailureKind::Denied),
        ("ssh: Could not resolve hostname host: Name or service not known", FailureKind::Offline),
        ("ssh: connect to host host port 22: Connection refused", FailureKind::Offline),
        ("ERROR: Repository not found.", FailureKind::Missing),
        ("bash: git-upload-pack: command not found", FailureKind::Unsupported),
    ] {
        let error = failure(&url, with("GIT_SSH_COMMAND", format!("echo '{says}' >&2; exit 255; :")));
        assert!(error.kind == kind && error.message.contains(says), "{error}");
    }
    let begun = Instant::now();
    let mut options = with("GIT_SSH_COMMAND", "sleep 1000; :".to_owned());
    options.timeout = Duration::from_secs(1);
    assert_eq!(failure(&url, options).kind, FailureKind::Offline);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn servers_of_older_protocols_are_told_apart() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.environment.push(("GIT_SSH_COMMAND".into(), "unset GIT_PROTOCOL; shift 5; sh -c \"$1\"; :".into()));
    let error = failure(format!("ssh://host.invalid{}", fixture.bare.display()), options);
    assert!(error.kind == FailureKind::Unsupported && error.message.contains("version 2"), "{error}");
}

#[test]
fn smart_http() {
    let fixture = Fixture::new();
    let root = fixture.directory.path();
    let web = Web::start(root);
    everything(&fixture, open(web.url("open"), fixture.options()).expect("open to all"));
    assert!(*web.connections.lock().expect("no panic") <= 2, "connections are used again");
    everything(&fixture, open(web.url("moved"), fixture.options()).expect("followed"));
    let seen = web.seen.lock().expect("no panic").clone();
    assert!(seen.iter().filter(|line| line.contains("/moved/")).all(|line| line.starts_with("GET")), "{seen:?}");
    for (behaviour, kind) in [
        ("forbidden", FailureKind::Denied),
        ("header", FailureKind::Denied),
        ("auth", FailureKind::Denied),
        ("busy", FailureKind::Transient),
        ("limited", FailureKind::Transient),
        ("closed", FailureKind::Transient),
        ("broken", FailureKind::Transient),
        ("web", FailureKind::Missing),
        ("dumb", FailureKind::Unsupported),
        ("loop", FailureKind::Missing),
    ] {
        let error = failure(web.url(behaviour), fixture.options());
        assert_eq!(error.kind, kind, "{behaviour}: {error}");
    }
    assert!(failure(web.url("busy"), fixture.options()).message.contains("retry after 7"));
    for (behaviour, seconds) in [("limited", Some(1)), ("busy", Some(7)), ("closed", None), ("forbidden", None)] {
        let error = failure(web.url(behaviour), fixture.options());
        assert_eq!(error.retry_after, seconds.map(Duration::from_secs), "{behaviour}: {error}");
    }
    let error = failure(web.url("open").replace("x.git", "absent.git"), fixture.options());
    assert_eq!(error.kind, FailureKind::Missing, "{error}");
    let mut options = fixture.options();
    options.environment.push(("http_proxy".into(), "http://127.0.0.1:9".into()));
    assert_eq!(failure(web.url("open"), options.clone()).kind, FailureKind::Offline);
    options.environment.push(("no_proxy".into(), "127.0.0.1".into()));
    open(web.url("open"), options).expect("not through the proxy");
    git(root, &["config", "--global", "http.proxy", "http://127.0.0.1:9"]);
    assert_eq!(failure(web.url("open"), fixture.options()).kind, FailureKind::Offline);
}

#[test]
fn http_credentials_and_extra_headers() {
    let fixture = Fixture::new();
    let root = fixture.directory.path();
    let web = Web::start(root);
    let with_user = |user: &str| web.url("auth").replace("http://", &format!("http://{user}@"));
    everything(&fixture, open(with_user("me:secret"), fixture.options()).expect("from the address"));
    let mut options = fixture.options();
    options.environment.push(("GIT_CONFIG_COUNT".into(), "1".into()));
    options.environment.push(("GIT_CONFIG_KEY_0".into(), "http.extraHeader".into()));
    options.environment.push(("GIT_CONFIG_VALUE_0".into(), "Authorization: Bearer token".into()));
    open(web.url("away"), options).expect("followed");
    open(with_user("me:secret").replace("/auth/", "/away/"), fixture.options()).expect("followed");
    let seen = web.seen.lock().expect("no panic").clone();
    let sent = |path: &str, what: &str| seen.iter().any(|line| line.contains(path) && line.contains(what));
    assert!(sent("/away/", "Bearer") && sent("/away/", "Basic"), "{seen:?}");
    assert!(sent("/open/", "GET") && !sent("/open/", "Bearer") && !sent("/open/", "Basic"), "{seen:?}");
    let error = failure(with_user("me:wrong"), fixture.options());
    assert!(error.kind == FailureKind::Denied && !error.message.contains("wrong"), "{error}");

    // A helper of Git's: asked once, told what came of it.
    let helper = root.join("helper");
    let text = "#!/bin/sh\n(echo \"$1:\"; cat) >> \"$HOME/asked\"\n[ $1 = get ] && printf 'username=me\\npassword=%s\\n' \"$(cat $HOME/password)\"\nexit 0\n";
    fs::write(&helper, text).expect("fresh file");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("own file");
    git(root, &["config", "--global", "credential.helper", helper.to_str().expect("UTF-8")]);
    let asked = || fs::read_to_string(root.join("asked")).unwrap_or_default();
    fs::write(root.join("password"), "wrong").expect("fresh file");
    assert_eq!(failure(web.url("auth"), fixture.options()).kind, FailureKind::Denied);
    assert!(asked().contains("get:") && asked().contains("erase:") && !asked().contains("store:"), "{}", asked());
    fs::write(root.join("password"), "secret").expect("own file");
    fs::remove_file(root.join("asked")).expect("it was asked");
    let remote = remote(web.url("auth"), fixture.options());
    everything(&fixture, remote.open().expect("from the helper"));
    remote.open().expect("again");
    assert_eq!((asked().matches("get:").count(), asked().matches("store:").count()), (1, 1), "{}", asked());
    git(root, &["config", "--global", "--unset", "credential.helper"]);

    fs::write(root.join(".netrc"), "machine 127.0.0.1 login me password secret\n").expect("fresh file");
    open(web.url("auth"), fixture.options()).expect("from .netrc");

    // Scoped to another host it does not go to this one; in the gitdir's configuration it counts too.
    let gitdir = fixture.bare.clone();
    git(&gitdir, &["config", "http.https://elsewhere.invalid/.extraHeader", "X-Token: t"]);
    let mut options = fixture.options();
    options.gitdir = Some(gitdir.clone());
    assert_eq!(failure(web.url("header"), options.clone()).kind, FailureKind::Denied);
    git(&gitdir, &["config", &format!("http.http://127.0.0.1:{}/.extraHeader", web.port), "X-Token: t"]);
    open(web.url("header"), options).expect("with the header");
}

#[test]
fn a_server_without_filters_needs_leave_and_has_a_bound() {
    let fixture = Fixture::new();
    git(&fixture.bare, &["config", "uploadpack.allowFilter", "false"]);
    let daemon = Daemon::start(fixture.directory.path());
    let packs = tempfile::tempdir().expect("temporary directory");
    let mut connection = open(daemon.url("x.git"), fixture.options()).expect("served");
    let mut run = |limit: Option<u64>| {
        let request = CommitRequest { max_unfiltered_bytes: limit, ..request(fixture.commit, packs.path()) };
        let mut memory = Memory::default();
        connection.fetch_commit(&request, &mut memory, &mut |_| ()).map(|fetched| (fetched, memory))
    };
    for limit in [None, Some(1 << 20)] {
        let error = run(limit).err().expect("not allowed");
        assert!(error.kind == FailureKind::Unsupported && error.message.contains("no filters"), "{error}");
    }
    assert_eq!(fs::read_dir(packs.path()).expect("there").count(), 0, "something was left behind");
    let (fetched, memory) = run(Some(64 << 20)).expect("allowed");
    assert!(!fetched.filtered && fetched.blobs == fixture.wants().len() as u64);
    assert!(fixture.wants().iter().all(|id| memory.0.contains_key(id)));
    assert!(!fetched.pack.expect("something was new").with_extension("promisor").exists());
}

#[test]
fn history_deepens_without_what_is_here_already() {
    let fixture = Fixture::new();
    let packs = tempfile::tempdir().expect("temporary directory");
    let mut connection = open(&fixture.bare, fixture.options()).expect("bare");
    let parent = id(&git(&fixture.bare, &["rev-parse", "main~1"]));
    let (mut first, mut second, mut full) = (Memory::default(), Memory::default(), Memory::default());
    let one = connection.fetch_commit(&request(parent, packs.path()), &mut first, &mut |_| ()).expect("the parent");
    assert_eq!(one.shallow, [parent]);
    let next =
        CommitRequest { haves: vec![parent], shallow: one.shallow.clone(), ..request(fixture.commit, packs.path()) };
    connection.fetch_commit(&next, &mut second, &mut |_| ()).expect("the child");
    let on_top = CommitRequest { depth: Depth::Full, shallow: Vec::new(), ..next };
    let two = connection.fetch_commit(&on_top, &mut Memory::default(), &mut |_| ()).expect("the child alone");
    assert_eq!(two.trees, 3, "only the directories that differ");
    let all = CommitRequest { depth: Depth::Full, ..request(fixture.commit, packs.path()) };
    let all = connection.fetch_commit(&all, &mut full, &mut |_| ()).expect("all of history");
    assert!(all.shallow.is_empty());
    assert_eq!(full.0.values().filter(|(kind, _)| *kind == Kind::Commit).count(), 2);
    let deep =
        CommitRequest { depth: Depth::Full, shallow: vec![fixture.commit], ..request(fixture.commit, packs.path()) };
    let deep = connection.fetch_commit(&deep, &mut Memory::default(), &mut |_| ()).expect("the rest");
    assert_eq!(deep.unshallow, [fixture.commit]);
    let blob = fixture.wants()[0];
    let error = connection
        .fetch_commit(&request(blob, packs.path()), &mut Memory::default(), &mut |_| ())
        .expect_err("not a commit");
    assert_eq!(error.kind, FailureKind::Missing, "{error}");
}

#[test]
fn sha256_repositories() {
    let fixture = Fixture::with_format("sha256");
    everything(&fixture, open(&fixture.bare, fixture.options()).expect("bare"));
    let daemon = Daemon::start(fixture.directory.path());
    everything(&fixture, open(daemon.url("x.git"), fixture.options()).expect("served"));
}

/// One whole conversation; how many objects came before it failed, if it did.
fn conversation(fixture: &Fixture, port: u16) -> Result<Memory, RemoteError> {
    let options = ConnectOptions { timeout: Duration::from_secs(2), ..fixture.options() };
    let packs = tempfile::tempdir().expect("temporary directory");
    let mut memory = Memory::default();
    let mut run = || {
        let mut connection = open(format!("git://127.0.0.1:{port}/x.git"), options.clone())?;
        let commit = connection.resolve(Some("main"))?.commit;
        connection.fetch_commit(&request(commit, packs.path()), &mut memory, &mut |_| ())?;
        connection.fetch(&fixture.wants(), Extent::Exact, &mut memory)
    };
    let result = run();
    let left = fs::read_dir(packs.path()).expect("there").count();
    assert!(left == 0 || left == 3, "half a pack was left behind");
    result.map(|()| memory)
}

#[test]
fn faults_at_any_byte_end_in_an_error_or_right_data() {
    let fixture = Fixture::new();
    let daemon = Daemon::start(fixture.directory.path());
    let whole = conversation(&fixture, daemon.port).expect("no fault yet");
    // Greeting, refs, shallow lines, trees, blobs, the large blob; some positions within lengths and bands.
    let positions = (0..700).step_by(23).chain((700..12_000).step_by(997)).chain([100_000, 5_000_000]);
    let faults: Vec<Fault> = positions.flat_map(|position| [Fault::Cut(position), Fault::Flip(position)]).collect();
    let strike = |fault: Fault| {
        let begun = Instant::now();
        match conversation(&fixture, faulty(daemon.port, fault)) {
            Ok(memory) => assert!(memory.0.keys().eq(whole.0.keys()), "{fault:?}: not everything came"),
            Err(error) => assert!(!error.message.is_empty()),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{fault:?} took too long");
    };
    // Most of the time is spent waiting for time-outs.
    std::thread::scope(|scope| {
        for part in faults.chunks(faults.len().div_ceil(8)) {
            scope.spawn(|| part.iter().copied().for_each(strike));
        }
    });
    for position in [0, 50, 700, 3000, 1_000_000] {
        let begun = Instant::now();
        let error = conversation(&fixture, faulty(daemon.port, Fault::Stall(position))).err().expect("it stalled");
        assert_eq!(error.kind, FailureKind::Offline, "{error}");
        assert!((1..6).contains(&begun.elapsed().as_secs()));
    }
}

#[test]
fn a_stuck_transfer_can_be_cancelled() {
    let fixture = Fixture::new();
    let daemon = Daemon::start(fixture.directory.path());
    let port = faulty(daemon.port, Fault::Stall(100_000));
    let mut connection = open(format!("git://127.0.0.1:{port}/x.git"), fixture.options()).expect("the fault is later");
    let handle = connection.cancel_handle();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        handle.cancel();
    });
    let begun = Instant::now();
    let error = connection.fetch(&fixture.wants(), Extent::Exact, &mut Memory::default()).expect_err("cancelled");
    assert!(error.message.contains("cancelled") && begun.elapsed() < Duration::from_secs(5), "{error}");
    canceller.join().expect("no panic");
    assert!(connection.resolve(None).is_err(), "it stays cancelled");
}

#[test]
fn connections_leave_no_children_and_no_descriptors() {
    let fixture = Fixture::new();
    let descriptors = || {
        let open = fs::read_dir("/proc/self/fd").expect("proc is mounted").flatten();
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains(&*marker(&fixture))))
            .count()
    };
    let mut child = None;
    for _ in 0..20 {
        let mut connection = open(&fixture.bare, fixture.options()).expect("bare");
        connection.resolve(None).expect("HEAD");
        child = serving(&fixture);
        assert!(child.is_some(), "a child serves it");
    }
    assert!(
        child.is_some_and(|child| !Path::new(&format!("/proc/{child}")).exists()),
        "the child is gone, not a zombie"
    );
    assert_eq!((serving(&fixture), descriptors()), (None, 0));
}

fn marker(fixture: &Fixture) -> String {
    fixture.directory.path().to_string_lossy().into_owned()
}

/// A process whose command line names the fixture.
fn serving(fixture: &Fixture) -> Option<u32> {
    let marker = marker(fixture);
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(&marker).then_some(process)
    })
}

#[test]
fn the_clients_environment_is_used_without_its_repository() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.environment = environment(fixture.directory.path());
    for name in ["GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_WORK_TREE", "GIT_NAMESPACE"] {
        options.environment.push((name.to_owned(), "/nonexistent".to_owned()));
    }
    everything(&fixture, open(&fixture.bare, options).expect("as if not in a hook"));
}
