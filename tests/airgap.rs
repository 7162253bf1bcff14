//! `larder cache export` and `import`: a commit goes to a machine without a network in one file, and nothing else gets in.
//!
//! Owns a second writer of the format ([`Forged`]), which checks nothing: for files that no export writes.

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::compare::{assert_same, tree};
use common::servers::GitDaemon;
use common::{
    COMMAND_LIMIT, Fixture, Outcome, eventually, exit, git, git_out, kill, read, repos, run, text, wait_for, within,
};
use rustix::process::Signal;
use serde_json::Value;

/// A repository behind a server, mounted in the first of two homes.
struct Pair {
    here: Fixture,
    there: Fixture,
    source: PathBuf,
    server: GitDaemon,
    url: String,
    mount: PathBuf,
}

impl Pair {
    fn new(make: impl FnOnce(&Path)) -> Option<Self> {
        let (here, there) = (Fixture::new()?, Fixture::new()?);
        let source = here.path("served/source");
        make(&source);
        let server = GitDaemon::serve(&here.path("served"));
        let url = server.url("source");
        let mount = here.mount(&url, "m");
        Some(Self { here, there, source, server, url, mount })
    }

    /// A file of everything; then the network is gone.
    fn exported(self) -> Carried {
        let file = self.here.path("all.larder");
        export(&self.here, &file, &self.mount, &[]);
        let Self { here, there, source, server, url, .. } = self;
        drop(server);
        Carried { here, there, source, url, file }
    }
}

/// What is left when the network is gone.
struct Carried {
    here: Fixture,
    there: Fixture,
    source: PathBuf,
    url: String,
    file: PathBuf,
}

fn export(fixture: &Fixture, file: &Path, target: &Path, pathspecs: &[&str]) -> Value {
    fixture.json(&[&["cache", "export", text(file), text(target)], pathspecs].concat())
}

fn import(fixture: &Fixture, file: &Path) -> Value {
    fixture.json(&["cache", "import", text(file)])
}

fn refused(fixture: &Fixture, file: &Path) -> Outcome {
    fixture.fails(&[exit::CORRUPT], &["cache", "import", text(file)])
}

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {report}"))
}

/// The gitdir of the only repository.
fn gitdir(fixture: &Fixture) -> PathBuf {
    fixture.home().join("repositories/1.git")
}

/// Distinct blobs of a commit in a repository, with their paths.
fn blobs(repository: &Path, rev: &str, pathspecs: &[&str]) -> Vec<String> {
    let listed = git_out(repository, &[&["ls-tree", "-r", "-z", rev, "--"], pathspecs].concat());
    let mut ids: Vec<String> = listed
        .split('\0')
        .filter_map(|line| line.split_once(" blob "))
        .filter_map(|(_, rest)| Some(rest.split_once('\t')?.0.to_owned()))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// What `git cat-file --batch` says of objects.
fn contents(fixture: &Fixture, repository: &Path, ids: &[String]) -> Vec<u8> {
    let list = fixture.path("ids");
    fs::write(&list, ids.join("\n") + "\n").expect("the fixture is writable");
    let mut command = Command::new("sh");
    let script = format!("git -C {} cat-file --batch < {}", text(repository), text(&list));
    let plain = git(repository);
    command.args(["-c", &script]).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(command, COMMAND_LIMIT).success().stdout
}

/// Every tree and byte of a commit is the same in both repositories.
#[track_caller]
fn assert_same_commit(fixture: &Fixture, source: &Path, other: &Path, rev: &str) {
    let commit = git_out(source, &["rev-parse", rev]);
    let listed = |repository: &Path| git_out(repository, &["ls-tree", "-r", "-t", "-z", &commit]);
    assert_eq!(listed(source), listed(other));
    let ids = [blobs(source, &commit, &[]), vec![commit.clone()]].concat();
    assert!(contents(fixture, source, &ids) == contents(fixture, other, &ids), "contents differ");
}

/// A `larder` in the background.
fn start(fixture: &Fixture, arguments: &[&str]) -> Child {
    let mut command = fixture.larder();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("larder runs")
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn part(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.part", text(file)))
}

/// A copy of `file` with one bit turned over.
fn flipped(fixture: &Fixture, file: &Path, at: u64, bit: u8) -> PathBuf {
    let damaged = fixture.path("damaged.larder");
    fs::copy(file, &damaged).expect("the fixture is writable");
    let out = fs::OpenOptions::new().read(true).write(true).open(&damaged).expect("just made");
    let mut byte = [0];
    out.read_exact_at(&mut byte, at).expect("inside");
    out.write_all_at(&[byte[0] ^ (1 << bit)], at).expect("inside");
    damaged
}

/// Bytes of everything before the first record.
fn header_bytes(file: &[u8]) -> usize {
    let length = u32::from_le_bytes(file[12..16].try_into().expect("four bytes"));
    16 + usize::try_from(length).expect("small") + 32
}

fn round_trip(format: &str) {
    let Some(pair) = Pair::new(|source| repos::generated(source, format)) else { return };
    let commit = git_out(&pair.source, &["rev-parse", "main"]);
    let file = pair.here.path("all.larder");
    let report = export(&pair.here, &file, &pair.mount, &[]);
    let all = blobs(&pair.source, "main", &[]);
    assert_eq!(number(&report, "objects"), all.len() as u64, "{report}");
    assert_eq!((number(&report, "skipped"), number(&report, "file_bytes")), (0, length(&file)), "{report}");
    assert!(number(&report, "fetched") > 0 && number(&report, "raw_bytes") > number(&report, "stored_bytes"));
    assert_eq!((&report["commit"], &report["repository"]), (&Value::from(&*commit), &Value::from(&*pair.url)));
    assert_eq!(report["reference"], "refs/heads/main");
    assert!(!part(&file).exists());
    let Pair { here, there, source, server, url, .. } = pair;
    drop(server);
    let imported = import(&there, &file);
    for field in ["objects", "trees", "raw_bytes", "stored_bytes", "file_bytes", "commit", "tree", "repository"] {
        assert_eq!(imported[field], report[field], "{field}");
    }
    assert_eq!(number(&imported, "skipped"), 0);
    // Git itself finds everything, with the remote dead: what it lacks comes from the cache.
    let gitdir = gitdir(&there);
    for name in ["refs/heads/main", "refs/remotes/origin/main", "refs/remotes/origin/HEAD"] {
        assert_eq!(git_out(&gitdir, &["rev-parse", name]), commit, "{name}");
    }
    assert_eq!(git_out(&gitdir, &["config", "remote.origin.url"]), url);
    assert_eq!(git_out(&gitdir, &["log", "--format=%H", "main"]), commit, "the history ends here");
    assert_same_commit(&there, &source, &gitdir, "main");
    // Again: nothing is new, and the cache keeps what no workspace shows yet.
    let again = import(&there, &file);
    assert_eq!(number(&again, "skipped"), number(&again, "objects") + number(&again, "trees"), "{again}");
    let collected = there.json(&["gc"]);
    assert_eq!(number(&collected, "freed_objects"), 0, "{collected}");
    assert_eq!(number(&collected, "kept_objects"), all.len() as u64, "{collected}");
    drop(here);
}

#[test]
fn a_commit_arrives_byte_for_byte() {
    round_trip("sha1");
}

#[test]
fn a_sha256_commit_arrives_byte_for_byte() {
    round_trip("sha256");
}

#[test]
fn an_export_goes_on_after_the_daemon_was_killed() {
    let Some(pair) = Pair::new(|source| repos::generated(source, "sha1")) else { return };
    pair.here.ok(&["warm", text(&pair.mount)]);
    let file = pair.here.path("all.larder");
    let daemon = pair.here.daemon();
    let mut child = start(&pair.here, &["cache", "export", text(&file), text(&pair.mount)]);
    eventually(Duration::from_secs(20), "the export is under way", || length(&part(&file)) > 1 << 20);
    kill(daemon, Signal::KILL);
    let code = wait_for(&mut child, COMMAND_LIMIT).expect("it ends").code();
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert!(!file.exists());
    // A torn write, as a loss of power may leave it.
    let kept = length(&part(&file));
    let torn = fs::OpenOptions::new().append(true).open(part(&file)).and_then(|mut out| out.write_all(&[0; 5000]));
    torn.expect("writable");
    // Another selection has other records.
    let other = pair.here.path("other.larder");
    fs::copy(part(&file), part(&other)).expect("writable");
    assert_eq!(number(&export(&pair.here, &other, &pair.mount, &["sources"]), "skipped"), 0);
    let report = export(&pair.here, &file, &pair.mount, &[]);
    assert!(number(&report, "skipped") > 0, "{kept} bytes were there: {report}");
    assert!(!part(&file).exists());
    drop(pair.server);
    let imported = import(&pair.there, &file);
    assert_eq!(imported["raw_bytes"], report["raw_bytes"]);
    assert_same_commit(&pair.there, &pair.source, &gitdir(&pair.there), "main");
}

#[test]
fn an_export_that_was_cut_anywhere_becomes_the_same_file() {
    let Some(pair) = Pair::new(|source| drop(repos::small(source))) else { return };
    let whole = pair.here.path("whole.larder");
    export(&pair.here, &whole, &pair.mount, &[]);
    let bytes = fs::read(&whole).expect("written");
    // The header is kept, so the file is the same to the last byte.
    let from = header_bytes(&bytes);
    for cut in (from..bytes.len()).step_by(bytes.len() / 25) {
        let file = pair.here.path(format!("cut{cut}.larder"));
        fs::write(part(&file), &bytes[..cut]).expect("writable");
        export(&pair.here, &file, &pair.mount, &[]);
        assert!(fs::read(&file).expect("written") == bytes, "cut at {cut}");
        // Damage in what is there is noticed too, and written again.
        let mut damaged = bytes[..cut].to_vec();
        damaged[from + (cut - from) / 2..].iter_mut().take(1).for_each(|byte| *byte ^= 4);
        let file = pair.here.path(format!("damaged{cut}.larder"));
        fs::write(part(&file), &damaged).expect("writable");
        export(&pair.here, &file, &pair.mount, &[]);
        assert!(fs::read(&file).expect("written") == bytes, "damaged below {cut}");
    }
}

#[test]
fn an_import_goes_on_after_the_daemon_was_killed() {
    let Some(pair) = Pair::new(|source| repos::generated(source, "sha1")) else { return };
    let Carried { here, there, source, file, .. } = pair.exported();
    there.ok(&["daemon"]);
    let daemon = there.daemon();
    let mut child = start(&there, &["cache", "import", text(&file)]);
    eventually(Duration::from_secs(20), "the import is under way", || {
        length(&there.home().join("store.redb")) > 4 << 20
    });
    kill(daemon, Signal::KILL);
    let code = wait_for(&mut child, COMMAND_LIMIT).expect("it ends").code();
    // A fast machine may have been done.
    assert_eq!(gitdir(&there).exists(), code == Some(0), "nothing half imported can be mounted: {code:?}");
    // Now the client goes away: the daemon ends the import, and what came in is on the disk before that.
    let mut child = start(&there, &["cache", "import", text(&file)]);
    eventually(Duration::from_secs(20), "the import is under way", || {
        number(&there.json(&["gc", "--dry-run"]), "kept_objects") > 0
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    there.ok(&["shutdown"]);
    let report = import(&there, &file);
    assert!(number(&report, "skipped") > number(&report, "trees"), "{report}");
    assert_same_commit(&there, &source, &gitdir(&there), "main");
    drop(here);
}

#[test]
fn a_flipped_bit_is_refused_by_the_name_of_the_object() {
    let Some(pair) = Pair::new(|source| drop(repos::wide(source, 60))) else { return };
    let Carried { here, there, source, file, .. } = pair.exported();
    let bytes = fs::read(&file).expect("written");
    let from = header_bytes(&bytes) as u64;
    let all = bytes.len() as u64;
    let known = git_out(&source, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]);
    // Places in the commit, in trees, in small files and in large ones; what came before them stays each time.
    let near = (0..20).map(|step| from + step * 37);
    let far = (1..20).map(|step| from + step * (all - from) / 20);
    for at in near.chain(far) {
        let damaged = flipped(&there, &file, at, (at % 8) as u8);
        let error = refused(&there, &damaged).err();
        let named = error.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 40);
        assert!(named.is_some_and(|id| known.contains(id)), "byte {at}: {error}");
        assert!(error.contains("at byte "), "byte {at}: {error}");
        assert!(!gitdir(&there).exists());
    }
    for at in [0, 3, 9, 13, 20, from - 5, all - 1, all - 40] {
        let error = refused(&there, &flipped(&there, &file, at, 2)).err();
        assert!(error.contains("is refused"), "byte {at}: {error}");
        assert!(!gitdir(&there).exists());
    }
    // Nothing of what was damaged is in the cache.
    import(&there, &file);
    assert_same_commit(&there, &source, &gitdir(&there), "main");
    drop(here);
}

#[test]
fn what_came_before_the_damage_stays_and_nothing_of_the_damaged_record() {
    let Some(pair) = Pair::new(|source| repos::generated(source, "sha1")) else { return };
    let Carried { here, there, source, file, .. } = pair.exported();
    // The largest record is that of the noise: a place in the middle of its many pieces.
    let bytes = fs::read(&file).expect("written");
    let noise = repos::noise(42, repos::LARGE_BYTES);
    let middle = repos::LARGE_BYTES / 2 + 100;
    let found = bytes.windows(64).position(|window| window == &noise[middle..middle + 64]).expect("stored as it is");
    let id = git_out(&source, &["rev-parse", "main:large/noise.bin"]);
    let error = refused(&there, &flipped(&there, &file, found as u64, 0)).err();
    assert!(error.contains(&format!("blob {id} (large/noise.bin)")), "{error}");
    let kept = number(&there.json(&["gc", "--dry-run"]), "kept_objects");
    let all = blobs(&source, "main", &[]).len() as u64;
    assert!(kept > 0 && kept < all, "{kept} of {all}");
    let report = import(&there, &file);
    assert_eq!(number(&report, "skipped"), kept + number(&report, "trees"), "{report}");
    assert_same_commit(&there, &source, &gitdir(&there), "main");
    drop(here);
}

#[test]
fn cut_files_newer_ones_and_other_files_are_told_apart() {
    let Some(pair) = Pair::new(|source| drop(repos::small(source))) else { return };
    let Carried { here, there, file, .. } = pair.exported();
    let bytes = fs::read(&file).expect("written");
    let short = there.path("short.larder");
    for cut in (8..bytes.len()).step_by(13) {
        fs::write(&short, &bytes[..cut]).expect("writable");
        let error = refused(&there, &short).err();
        assert!(error.contains(&format!("is cut short: it ends at byte {cut}")), "{error}");
    }
    let mut newer = bytes.clone();
    newer[8..12].copy_from_slice(&[7, 0, 248, 255]);
    fs::write(&short, newer).expect("writable");
    let error = there.fails(&[exit::REFUSED], &["cache", "import", text(&short)]).err();
    assert!(error.contains("version 7"), "{error}");
    for other in [&b""[..], b"PACK", b"an ordinary text file, and no export\n"] {
        fs::write(&short, other).expect("writable");
        assert!(refused(&there, &short).err().contains("no export"));
    }
    fs::write(&short, [&bytes[..], b"x"].concat()).expect("writable");
    assert!(refused(&there, &short).err().contains("bytes follow the end"));
    there.fails(&[exit::NOT_FOUND], &["cache", "import", text(&there.path("nowhere"))]);
    there.fails(&[exit::USAGE], &["cache", "import", text(&there.path(""))]);
    assert!(!gitdir(&there).exists());
    import(&there, &file);
    drop(here);
}

#[test]
fn pathspecs_select_files_and_all_directories_come() {
    let Some(pair) = Pair::new(|source| {
        repos::generated(source, "sha1");
        repos::advertise_sizes(source);
    }) else {
        return;
    };
    let specs = ["sources/d1", "*.md", ":!sources/d1/f1.c"];
    let file = pair.here.path("some.larder");
    let report = export(&pair.here, &file, &pair.mount, &specs);
    // Attribute files come along: nothing can be converted without them.
    let mut wanted = blobs(&pair.source, "main", &["sources/d1/", "README.md", ".gitattributes"]);
    let left_out = git_out(&pair.source, &["rev-parse", "main:sources/d1/f1.c"]);
    wanted.retain(|id| *id != left_out);
    assert_eq!(number(&report, "objects"), wanted.len() as u64, "{report}");
    let trees = git_out(&pair.source, &["ls-tree", "-r", "-t", "-z", "--format=%(objecttype) %(objectname)", "main"]);
    let mut trees: Vec<&str> = trees.split('\0').filter(|line| line.starts_with("tree ")).collect();
    trees.sort_unstable();
    trees.dedup();
    assert_eq!(number(&report, "trees"), trees.len() as u64 + 1, "{report}");
    drop(pair.server);
    let imported = import(&pair.there, &file);
    assert_eq!(imported["pathspecs"], serde_json::json!(specs));
    let gitdir = gitdir(&pair.there);
    assert!(contents(&pair.there, &pair.source, &wanted) == contents(&pair.there, &gitdir, &wanted));
    assert_eq!(number(&pair.there.json(&["gc", "--dry-run"]), "kept_objects"), wanted.len() as u64);
    let listed = |repository: &Path| git_out(repository, &["ls-tree", "-r", "-t", "-z", "main"]);
    assert_eq!(listed(&pair.source), listed(&gitdir));
    // The rest can come later, and what is here is passed over.
    let commit = git_out(&pair.source, &["rev-parse", "main"]);
    assert_eq!(git_out(&gitdir, &["rev-parse", "main"]), commit);
}

#[test]
fn what_is_missing_is_fetched_or_named() {
    let Some(pair) = Pair::new(|source| repos::generated(source, "sha1")) else { return };
    pair.here.ok(&["warm", text(&pair.mount), "sources"]);
    let Pair { here, there, source, server, mount, .. } = pair;
    drop(server);
    let file = here.path("all.larder");
    let outcome = here.fails(&[exit::REMOTE], &["cache", "export", text(&file), text(&mount), "tools", "sources"]);
    let id = git_out(&source, &["rev-parse", "main:tools/run"]);
    assert!(outcome.err().contains(&format!("1 file is not in the cache: tools/run ({id})")), "{}", outcome.err());
    assert!(!file.exists());
    let report = export(&here, &here.path("some.larder"), &mount, &["sources"]);
    assert_eq!(number(&report, "fetched"), 0);
    import(&there, &here.path("some.larder"));
}

#[test]
fn nothing_is_overwritten() {
    let Some(pair) = Pair::new(|source| drop(repos::small(source))) else { return };
    let file = pair.here.path("file");
    fs::write(&file, "mine\n").expect("writable");
    let arguments = ["cache", "export", text(&file), text(&pair.mount)];
    pair.here.fails(&[exit::REFUSED], &arguments);
    fs::remove_file(&file).expect("there");
    fs::write(part(&file), "mine too\n").expect("writable");
    pair.here.fails(&[exit::REFUSED], &arguments);
    assert_eq!(fs::read_to_string(part(&file)).expect("there"), "mine too\n");
    let inside = pair.mount.join("x.larder");
    pair.here.fails(&[exit::REFUSED], &["cache", "export", text(&inside), text(&pair.mount)]);
    pair.here.fails(&[exit::NOT_FOUND], &["cache", "export", text(&pair.here.path("no/x")), text(&pair.mount)]);
    pair.here.fails(&[exit::NOT_FOUND], &["cache", "export", text(&pair.here.path("x")), "nobody"]);
    pair.here.fails(&[exit::USAGE], &["cache", "export", text(&pair.here.path("x")), text(&pair.mount), "../x"]);
    // Relative to where the client is.
    pair.here.ok(&["cache", "export", "relative.larder", text(&pair.mount)]);
    assert!(pair.here.path("relative.larder").exists());
}

#[test]
fn a_later_commit_brings_the_difference_and_moves_the_branch() {
    let Some(pair) = Pair::new(|source| repos::generated(source, "sha1")) else { return };
    let first = pair.here.path("first.larder");
    export(&pair.here, &first, &pair.mount, &[]);
    repos::write(&pair.source, "README.md", "third\n");
    git_out(&pair.source, &["commit", "-q", "-am", "third"]);
    let third = git_out(&pair.source, &["rev-parse", "main"]);
    let again = pair.here.mount(&pair.url, "again");
    let second = pair.here.path("second.larder");
    export(&pair.here, &second, &again, &[]);
    drop(pair.server);
    import(&pair.there, &first);
    let report = import(&pair.there, &second);
    assert_eq!(number(&report, "skipped"), number(&report, "objects") + number(&report, "trees") - 2, "{report}");
    let gitdir = gitdir(&pair.there);
    assert_eq!(git_out(&gitdir, &["rev-parse", "main"]), third);
    assert_eq!(git_out(&gitdir, &["rev-list", "--count", "main"]), "2", "what was imported before is its history");
    assert_same_commit(&pair.there, &pair.source, &gitdir, "main");
}

/// A second writer of the format, which checks nothing.
struct Forged(Vec<u8>);

impl Forged {
    fn begin(header: &Value) -> Self {
        let header = serde_json::to_vec(header).expect("serializable");
        let mut out = b"\x89LARDER\n\x01\0\xfe\xff".to_vec();
        out.extend_from_slice(&u32::try_from(header.len()).expect("small").to_le_bytes());
        out.extend_from_slice(&header);
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        Self(out)
    }

    /// A record of one raw piece, that says it has `size` raw bytes.
    fn record(mut self, kind: u8, id: [u8; 20], raw: &[u8], size: u64) -> Self {
        let mut record = vec![kind];
        record.extend_from_slice(&id);
        record.extend_from_slice(&size.to_le_bytes());
        let check = blake3::hash(&record);
        record.extend_from_slice(&check.as_bytes()[..16]);
        if !raw.is_empty() {
            record.extend_from_slice(&u32::try_from(raw.len()).expect("small").to_le_bytes());
            record.extend_from_slice(raw);
        }
        let check = blake3::hash(&record);
        record.extend_from_slice(check.as_bytes());
        self.0.extend_from_slice(&record);
        self
    }

    fn object(self, kind: u8, id: [u8; 20], raw: &[u8]) -> Self {
        self.record(kind, id, raw, raw.len() as u64)
    }

    fn end(mut self, counts: [u64; 4]) -> Vec<u8> {
        self.0.push(255);
        for count in counts {
            self.0.extend_from_slice(&count.to_le_bytes());
        }
        let check = blake3::hash(&self.0);
        self.0.extend_from_slice(check.as_bytes());
        self.0
    }
}

#[test]
fn forged_files_get_nothing_in() {
    let Some(fixture) = Fixture::new() else { return };
    let scratch = fixture.path("scratch");
    repos::init(&scratch, "sha1");
    let object = |kind: &str, raw: &[u8]| repos::raw_object(&scratch, kind, raw);
    let content = b"content\n";
    let blob = object("blob", content);
    let plain = repos::raw_tree(&[("100644", b"file", blob)]);
    let tree_id = object("tree", &plain);
    let commit_raw = repos::commit_of(tree_id);
    let commit_id = object("commit", &commit_raw);
    let header = |commit: [u8; 20], tree: [u8; 20]| {
        serde_json::json!({
            "repository": "https://example.org/a.git", "reference": "refs/heads/main", "commit": repos::hex(&commit),
            "tree": repos::hex(&tree), "object_hash": "sha1", "pathspecs": [], "created": "", "larder": "",
        })
    };
    let with = |field: &str, value: Value| {
        let mut header = header(commit_id, tree_id);
        header[field] = value;
        header
    };
    let ordinary = |header: &Value| {
        let forged = Forged::begin(header).object(1, commit_id, &commit_raw).object(2, tree_id, &plain);
        forged.object(3, blob, content).end([1, 1, 0, (commit_raw.len() + plain.len() + content.len()) as u64])
    };
    let file = fixture.path("forged.larder");
    let try_one = |bytes: Vec<u8>, wanted: &str| {
        fs::write(&file, bytes).expect("writable");
        let error = refused(&fixture, &file).err();
        assert!(error.contains(wanted), "{wanted:?} is not in: {error}");
        assert!(!fixture.home().join("repositories").exists(), "{wanted}");
    };
    for name in ["refs/heads/../../../x", "HEAD", "refs/larder/x", "refs/heads/a.lock", "refs/heads/a\u{1}"] {
        try_one(ordinary(&with("reference", name.into())), "no branch or tag");
    }
    for url in ["relative/path", "ext::sh -c x", "https://user:secret@example.org/a.git", "-oProxyCommand=x:y", ""] {
        try_one(ordinary(&with("repository", url.into())), "its header names");
    }
    try_one(ordinary(&with("pathspecs", serde_json::json!(["../.."]))), "pathspecs");
    try_one(ordinary(&with("object_hash", "sha256".into())), "object format");
    try_one(ordinary(&with("object_hash", "md5".into())), "object format");
    try_one(ordinary(&with("tree", "1".repeat(40).into())), "does not have the tree");
    // Names that no checkout may have.
    for name in [&b".."[..], b".git", b"a/b", b"GIT~1"] {
        let bad = repos::raw_tree(&[("100644", name, blob)]);
        let bad_id = object("tree", &bad);
        let bad_commit = repos::commit_of(bad_id);
        let bad_commit_id = object("commit", &bad_commit);
        let forged = Forged::begin(&header(bad_commit_id, bad_id)).object(1, bad_commit_id, &bad_commit);
        try_one(forged.object(2, bad_id, &bad).end([1, 0, 0, 0]), &format!("tree {}", repos::hex(&bad_id)));
    }
    let begun = || Forged::begin(&header(commit_id, tree_id)).object(1, commit_id, &commit_raw);
    let rows = || begun().object(2, tree_id, &plain);
    let blob_name = format!("blob {} (file)", repos::hex(&blob));
    try_one(rows().object(3, blob, b"another\n").end([1, 1, 0, 0]), &blob_name);
    try_one(rows().object(3, tree_id, content).end([1, 1, 0, 0]), &blob_name);
    try_one(rows().end([1, 0, 0, (commit_raw.len() + plain.len()) as u64]), &blob_name);
    try_one(rows().record(3, blob, content, 60 << 30).0, &blob_name);
    try_one(rows().record(3, blob, content, u64::MAX).0, "absurd size");
    try_one(begun().record(2, tree_id, &plain, 1 << 40).0, "absurd size");
    try_one(rows().object(3, blob, content).object(3, blob, content).end([1, 2, 0, 0]), "does not belong there");
    try_one(rows().object(3, blob, content).end([1, 1, 0, 7]), "counts other objects");
    try_one(begun().object(9, tree_id, &plain).end([1, 0, 0, 0]), "unknown kind");
    // Sizes that do not fit what is known.
    let partly = with("pathspecs", serde_json::json!(["file"]));
    let sized = |sizes: &[u8]| {
        let forged = Forged::begin(&partly).object(1, commit_id, &commit_raw).object(2, tree_id, &plain);
        let sum = commit_raw.len() + plain.len() + content.len() + sizes.len();
        forged.object(3, blob, content).object(4, tree_id, sizes).end([1, 1, 1, sum as u64])
    };
    let sizes_name = format!("the sizes of tree {}", repos::hex(&tree_id));
    try_one(sized(&7_u64.to_le_bytes()), &sizes_name);
    try_one(sized(&[0; 16]), &sizes_name);
    // And this writer writes what is read.
    fs::write(&file, sized(&8_u64.to_le_bytes())).expect("writable");
    import(&fixture, &file);
    fs::write(&file, ordinary(&header(commit_id, tree_id))).expect("writable");
    let report = import(&fixture, &file);
    assert_eq!((number(&report, "objects"), number(&report, "skipped")), (1, 2), "{report}");
}

#[test]
fn an_imported_commit_is_mounted_without_any_network() {
    for format in ["sha1", "sha256"] {
        let Some(pair) = Pair::new(|source| repos::generated(source, format)) else { return };
        let Carried { here, there, source, url, file } = pair.exported();
        import(&there, &file);
        let mount = there.path("m");
        there.ok(&["mount", &url, text(&mount), "--offline"]);
        assert_eq!(git_out(&mount, &["rev-parse", "HEAD"]), git_out(&source, &["rev-parse", "main"]));
        assert_eq!(there.git_out(&mount, &["status", "--porcelain"]), "");
        let clone = repos::clone(&source, None, &there.path("clone"));
        let shown = mount.clone();
        let (wanted, found) = within(COMMAND_LIMIT, "comparing", move || (tree(&clone), tree(&shown)));
        assert_same(&wanted, &found);
        assert_eq!(number(&there.status(&mount), "queue_depth"), 0);
        drop(here);
    }
}

#[test]
fn sizes_and_names_of_files_that_were_left_out_are_known_without_any_network() {
    let Some(pair) = Pair::new(|source| {
        repos::generated(source, "sha1");
        repos::advertise_sizes(source);
    }) else {
        return;
    };
    // Sizes are learned in the background.
    let wanted = tree(&repos::clone(&pair.source, None, &pair.here.path("clone")));
    let mount = pair.mount.clone();
    within(COMMAND_LIMIT, "looking at all files", move || common::compare::identities(&mount));
    let file = pair.here.path("some.larder");
    export(&pair.here, &file, &pair.mount, &["sources"]);
    drop(pair.server);
    import(&pair.there, &file);
    let mount = pair.there.path("m");
    pair.there.ok(&["mount", &pair.url, text(&mount), "--offline"]);
    let shown = mount.clone();
    let found = within(COMMAND_LIMIT, "looking at all files", move || common::compare::identities(&shown));
    assert_eq!(found.len(), wanted.len());
    for (path, identity) in &found {
        if let Some(common::compare::Entry::File { size, .. }) = wanted.get(path) {
            assert_eq!(identity.size, *size, "{}", path.escape_ascii());
        }
    }
    read(&mount.join("sources/d1/f1.c")).expect("selected");
    let error = read(&mount.join("tools/run")).expect_err("not selected");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NETUNREACH.raw_os_error()), "{error}");
}
