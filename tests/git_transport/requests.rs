//! What one request brings: no less than its extent says, nothing it excludes,
//! and nothing at all once nobody listens.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use larder::git::remote::GitConnection;
use larder::hydrate::remote::{Connection as _, Extent, FailureKind, LargeSink, RemoteError, Sink};

use super::fake_remote::{self as fake, BLOB, FakeRemote, TREE};
use super::support::{Daemon, Fixture, Memory, Web, git, id, open};

const EVERYTHING: Extent = Extent::Everything { max_blob_bytes: None };

fn fetched(connection: &mut GitConnection, wants: &[ObjectId], extent: Extent) -> BTreeSet<ObjectId> {
    let mut memory = Memory::default();
    connection.fetch(wants, extent, &mut memory).expect("all is there");
    memory.0.into_keys().collect()
}

/// The directories below and at `tree`.
fn trees(fixture: &Fixture, tree: &str) -> BTreeSet<ObjectId> {
    let below = git(&fixture.bare, &["ls-tree", "-rtd", "--object-only", tree]);
    below.lines().map(id).chain([id(&git(&fixture.bare, &["rev-parse", tree]))]).collect()
}

/// The server with filters and one without, by name.
fn servers(fixture: &Fixture, daemon: &Daemon) -> [(bool, GitConnection); 2] {
    let root = fixture.directory.path();
    git(root, &["clone", "-q", "--bare", "x.git", "plain.git"]);
    git(&root.join("plain.git"), &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    ["x.git", "plain.git"].map(|name| {
        let connection = open(daemon.url(name), fixture.options()).expect("served");
        (connection.abilities().filter, connection)
    })
}

#[test]
fn extents_bring_what_they_say() {
    let fixture = Fixture::new();
    let daemon = Daemon::start(fixture.directory.path());
    let all_trees = trees(&fixture, "main^{tree}");
    let root = id(&git(&fixture.bare, &["rev-parse", "main^{tree}"]));
    let folder = id(&git(&fixture.bare, &["rev-parse", "main:d1"]));
    let blobs: BTreeSet<_> = fixture.wants().into_iter().collect();
    let (small, large) = (fixture.blobs["d0/e0/f0.txt"], fixture.blobs["large.bin"]);
    let mut seen = Vec::new();
    for (filter, mut connection) in servers(&fixture, &daemon) {
        seen.push(filter);
        let fetch = &mut |wants: &[ObjectId], extent| fetched(&mut connection, wants, extent);
        assert_eq!(fetch(&[root, folder], Extent::Exact), [root, folder].into());
        assert_eq!(fetch(&[large, small, large], Extent::Exact), [large, small].into());
        assert_eq!(fetch(&[root], Extent::Trees), all_trees);
        assert_eq!(fetch(&[folder], Extent::Trees), trees(&fixture, "main:d1"));
        assert_eq!(fetch(&[root], EVERYTHING), &all_trees | &blobs);
        let here = git(&fixture.bare, &["ls-tree", "-r", "--object-only", "main:d1"]);
        let mut here: BTreeSet<_> = here.lines().map(id).chain(trees(&fixture, "main:d1")).collect();
        assert_eq!(fetch(&[folder], EVERYTHING), here);
        here.extend([large, small]);
        assert_eq!(fetch(&[large, folder, small], EVERYTHING), here);

        // "changed\n" is eight bytes long; everything else but the empty file is longer.
        for (max, comes) in [(8, vec![small, fixture.blobs["empty"]]), (7, vec![fixture.blobs["empty"]])] {
            let extent = Extent::Everything { max_blob_bytes: Some(max) };
            let mut expected = &all_trees | &comes.into_iter().collect();
            if !filter {
                expected.extend(&blobs);
            }
            assert_eq!(fetch(&[root], extent), expected, "at most {max} bytes");
            expected.insert(large);
            assert_eq!(fetch(&[root, large], extent), expected, "what is wanted comes at any size");
            assert_eq!(fetch(&[large, root], extent), expected, "in any order");
        }
        assert_eq!(fetch(&[root, large, small], Extent::Exact), [root, large, small].into());
        let whole = Extent::Everything { max_blob_bytes: Some(u64::MAX) };
        assert_eq!(fetch(&[root], whole), &all_trees | &blobs);
        assert!(fetch(&[], EVERYTHING).is_empty());

        let absent = id(&"5".repeat(40));
        for (wants, extent, missing) in [
            ([root, absent], EVERYTHING, absent),
            ([root, absent], Extent::Trees, absent),
            // Is there, but no tree.
            ([root, small], Extent::Trees, small),
            ([root, large], Extent::Trees, large),
        ] {
            let mut memory = Memory::default();
            let error = connection.fetch(&wants, extent, &mut memory).expect_err("not there");
            assert_eq!((error.kind, error.object), (FailureKind::Missing, Some(missing)), "{error}");
            assert!(memory.0.keys().all(|id| all_trees.contains(id)));
        }
    }
    assert_eq!(seen, [true, false]);
}

#[test]
fn requests_longer_than_any_buffer() {
    let fixture = Fixture::new();
    let many = fixture.many(65_536);
    assert_eq!(many.len(), 65_536);
    let root = fixture.directory.path();
    git(&root.join("many.git"), &["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let daemon = Daemon::start(root);
    let web = Web::start(root);
    let mut ssh = fixture.options();
    ssh.environment.push(("GIT_SSH_COMMAND".into(), "for last; do :; done; exec sh -c \"$last\"; :".into()));
    let elsewhere = format!("ssh://host.invalid{}/many.git", root.display());
    let mut wants = many.clone();
    // Refused at the first want, while most of the request is still on its way.
    wants.insert(0, id(&"5".repeat(40)));
    for (url, options) in [
        (root.join("many.git").into_os_string(), fixture.options()),
        (daemon.url("many.git").into(), fixture.options()),
        (web.url("open").replace("x.git", "many.git").into(), fixture.options()),
        (elsewhere.into(), ssh),
    ] {
        let mut connection = open(&url, options).expect("served");
        let mut count = Count::default();
        connection.fetch(&many, Extent::Exact, &mut count).expect("all of them");
        assert_eq!(count.0, many.len(), "{}", url.display());
        let error = connection.fetch(&wants, Extent::Exact, &mut count).expect_err("one is not there");
        assert_eq!((error.kind, error.object), (FailureKind::Missing, Some(wants[0])), "{}: {error}", url.display());
        assert_eq!(count.0, many.len(), "nothing came");
    }
}

#[derive(Default)]
struct Count(usize);

impl Sink for Count {
    fn object(&mut self, _id: ObjectId, _kind: Kind, _data: Bytes) -> Result<(), RemoteError> {
        self.0 += 1;
        Ok(())
    }

    fn large(&mut self, _raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Err(RemoteError::new(FailureKind::Local, "nothing large was wanted"))
    }
}

/// Takes one object, then no more.
struct Sated {
    taken: usize,
    /// Whether a large object is refused only once its bytes come.
    late: bool,
}

impl Sated {
    fn refusal() -> RemoteError {
        RemoteError::new(FailureKind::Local, "enough")
    }
}

impl Sink for Sated {
    fn object(&mut self, _id: ObjectId, _kind: Kind, _data: Bytes) -> Result<(), RemoteError> {
        self.taken += 1;
        if self.taken > 1 { Err(Self::refusal()) } else { Ok(()) }
    }

    fn large(&mut self, _raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        if self.late { Ok(Box::new(Full)) } else { Err(Self::refusal()) }
    }
}

struct Full;

impl io::Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::other(Sated::refusal()))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LargeSink for Full {
    fn finish(self: Box<Self>, _id: ObjectId) -> Result<(), RemoteError> {
        panic!("nothing was taken")
    }
}

#[test]
fn a_sink_that_refuses_ends_the_transfer_at_once() {
    let fixture = Fixture::new();
    refuse(&fixture, fixture.bare.as_os_str(), true);
    let daemon = Daemon::start(fixture.directory.path());
    refuse(&fixture, daemon.url("x.git").as_ref(), false);
    let web = Web::start(fixture.directory.path());
    refuse(&fixture, web.url("open").as_ref(), false);
}

fn refuse(fixture: &Fixture, url: &OsStr, local: bool) {
    let tree = id(&git(&fixture.bare, &["rev-parse", "main^{tree}"]));
    let large = fixture.blobs["large.bin"];
    for (wants, late) in [([tree, large], false), ([large, tree], true)] {
        let mut connection = open(url, fixture.options()).expect("served");
        let begun = Instant::now();
        let mut sink = Sated { taken: 0, late };
        let error = connection.fetch(&wants, EVERYTHING, &mut sink).expect_err("the sink is full");
        assert_eq!((error.kind, error.message.as_str()), (FailureKind::Local, "enough"));
        let received = connection.bytes_received();
        assert!(received < 4 << 20, "{received} bytes of 9 MiB were read: {}", url.display());
        assert!(begun.elapsed() < Duration::from_secs(5));
        if local {
            assert_eq!(super::serving(fixture), None, "upload-pack goes on");
        }
        assert_eq!(fetched(&mut connection, &[tree], Extent::Exact), [tree].into(), "it connects again");
    }
}

#[test]
fn packs_of_other_objects_bring_nothing() {
    let blob = |content: &[u8]| fake::entry(BLOB, content.len() as u64, b"", content);
    let (wanted, second) = (ObjectId::Sha1(fake::object_id("blob", b"wanted\n")), fake::object_id("blob", b"second\n"));
    let second = ObjectId::Sha1(second);
    let other_tree = [b"100644 f\0".as_slice(), second.as_slice()].concat();
    let tree = fake::entry(TREE, other_tree.len() as u64, b"", &other_tree);
    let fixture = Fixture::new();
    let mut zero_head = fake::pack(1, &[blob(b"wanted\n")]);
    zero_head[11] = 0;
    for (what, pack, kind, arrives) in [
        ("nothing", fake::pack(0, &[]), FailureKind::Missing, vec![]),
        ("no pack", Vec::new(), FailureKind::Corrupt, vec![]),
        ("another blob", fake::pack(1, &[blob(b"other\n")]), FailureKind::Missing, vec![]),
        ("other content", fake::pack(1, &[blob(b"wantec\n")]), FailureKind::Missing, vec![]),
        ("a tree", fake::pack(1, std::slice::from_ref(&tree)), FailureKind::Missing, vec![]),
        ("one of two", fake::pack(2, &[blob(b"second\n"), tree]), FailureKind::Missing, vec![second]),
        ("a count of none", zero_head, FailureKind::Corrupt, vec![]),
        ("one twice", fake::pack(2, &[blob(b"second\n"), blob(b"second\n")]), FailureKind::Missing, vec![second]),
    ] {
        let liar = FakeRemote::serve([7; 20], vec![pack]);
        let mut connection = open(liar.url(), fixture.options()).expect("it greets");
        // `Memory` refuses whatever comes twice or under a wrong id.
        let mut memory = Memory::default();
        let error = connection.fetch(&[wanted, second], Extent::Exact, &mut memory).expect_err(what);
        assert_eq!(error.kind, kind, "{what}: {error}");
        assert_eq!(memory.0.into_keys().collect::<Vec<_>>(), arrives, "{what}");
        if kind == FailureKind::Missing {
            assert_eq!(error.object, Some(wanted), "{what}: {error}");
        }
        // With the widest extent another tree is handed on, being what its id says; the want is missing all the same.
        let error = connection.fetch(&[wanted], EVERYTHING, &mut Discard).expect_err(what);
        assert_eq!(error.kind, kind, "{what}: {error}");
    }
    let liar = FakeRemote::serve([7; 20], vec![fake::pack(2, &[blob(b"second\n"), blob(b"wanted\n")])]);
    let mut connection = open(liar.url(), fixture.options()).expect("it greets");
    assert_eq!(fetched(&mut connection, &[wanted, second], Extent::Exact).len(), 2, "an honest pack is believed");
}

struct Discard;

impl Sink for Discard {
    fn object(&mut self, _id: ObjectId, _kind: Kind, _data: Bytes) -> Result<(), RemoteError> {
        Ok(())
    }

    fn large(&mut self, _raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Ok(Box::new(io::sink()))
    }
}
