//! Rules and drivers against a store, without a mount.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::store::{Batch, StoreOptions};

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(&dir.path().join("store.redb"), &StoreOptions::default()).expect("new store");
        fs::create_dir_all(dir.path().join("gitdir/info")).expect("writable");
        Self { dir, store }
    }

    /// Stores an attribute file's blob.
    fn blob(&self, content: &str) -> ObjectId {
        let id =
            gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, content.as_bytes()).expect("hashed");
        let mut batch = Batch::default();
        batch.blob(id, content.as_bytes());
        self.store.commit(batch).expect("stored");
        id
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Conversions of a user with this configuration; `timeout` for drivers.
    fn conversions(&self, config: &str, timeout: Duration) -> GitConversions {
        fs::write(self.path().join("gitconfig"), config).expect("writable");
        let home = self.path().to_str().expect("UTF-8").to_owned();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            variable("HOME", &home),
            variable("PATH", &std::env::var("PATH").expect("set")),
            variable("GIT_CONFIG_NOSYSTEM", "1"),
            variable("GIT_ATTR_NOSYSTEM", "1"),
            variable("GIT_CONFIG_GLOBAL", &format!("{home}/gitconfig")),
        ];
        let checkout = Checkout {
            environment,
            common: self.path().join("gitdir"),
            admin: self.path().join("gitdir"),
            scratch: self.path().join("filters"),
            timeout,
            commit: ObjectId::null(gix::hash::Kind::Sha1),
            reference: None,
        };
        GitConversions::new(self.store.clone(), checkout).expect("writable")
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn file(directory: &str, id: ObjectId) -> AttributesFile {
    AttributesFile { directory: directory.into(), id }
}

/// The rule of one file.
fn rule(
    conversions: &GitConversions,
    directory: &str,
    chain: &[AttributesFile],
    name: &str,
    kind: EntryKind,
) -> Option<Arc<dyn Conversion>> {
    let rules = conversions.rules(directory.as_bytes(), chain, &mut std::iter::once((name.as_bytes(), kind)));
    rules.expect("attributes are here").and_then(|rules| rules.into_iter().next().flatten())
}

fn made(rule: &Arc<dyn Conversion>, path: &str, raw: &[u8]) -> Result<Vec<u8>, ConvertErrorKind> {
    let id = ObjectId::null(gix::hash::Kind::Sha1);
    match rule.convert(&Source { id, path: path.as_bytes(), raw }).map_err(|error| error.kind)? {
        Output::Same => Ok(raw.to_vec()),
        Output::Bytes(bytes) => Ok(bytes),
        Output::Spooled(mut file, size) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("readable");
            assert_eq!(bytes.len() as u64, size);
            Ok(bytes)
        }
    }
}

#[test]
fn deeper_attributes_win_and_info_wins_over_all() {
    let place = Place::new();
    let root = place.blob("[attr]dos text eol=crlf\n*.a dos\n*.b dos\nx/*.c dos\n");
    let below = place.blob("[attr]dos -text\n*.a eol=lf\n");
    fs::write(place.path().join("gitdir/info/attributes"), "y/*.b -text\n").expect("writable");
    let conversions = place.conversions("", SECOND);
    assert!(conversions.may_convert(&[root, below]).expect("here"));
    let chain = [file("", root), file("x", below)];
    let has = |directory: &str, chain: &[AttributesFile], name: &str| {
        rule(&conversions, directory, chain, name, EntryKind::File).is_some()
    };
    assert!(has("", &chain[..1], "f.a"));
    assert!(!has("x", &chain, "f.a"), "a file below says otherwise");
    assert!(has("x", &chain, "f.b"), "macros below the root are ignored");
    assert!(has("x", &chain, "f.c") && !has("y", &chain[..1], "f.c"));
    assert!(!has("y", &chain[..1], "f.b"), "info/attributes");
    assert!(rule(&conversions, "", &chain[..1], "f.a", EntryKind::Symlink).is_none());
    assert!(rule(&conversions, "", &chain[..1], "f.a", EntryKind::Executable).is_some());
}

#[test]
fn what_has_no_effect_costs_nothing() {
    let place = Place::new();
    let plain = place.blob("* text=auto\n*.c diff=cpp text\n*.x filter=unknown\n*.y eol=lf\n*.z -ident\n");
    let conversions = place.conversions("[filter \"other\"]\n\tclean = cat\n", SECOND);
    assert!(!conversions.may_convert(&[plain]).expect("here"));
    assert!(place.conversions("[core]\n\tautocrlf = true\n", SECOND).may_convert(&[]).expect("here"));
    assert!(place.conversions("[core]\n\teol = crlf\n", SECOND).may_convert(&[plain]).expect("here"));
    assert!(place.conversions("[filter \"unknown\"]\n\tsmudge = cat\n", SECOND).may_convert(&[plain]).expect("here"));
    let missing = ObjectId::from_bytes_or_panic(&[9; 20]);
    assert!(matches!(conversions.may_convert(&[plain, missing]), Err(RulesError::Missing(ids)) if ids == [missing]));
}

#[test]
fn ids_tell_rules_sources_and_for_drivers_paths_apart() {
    let place = Place::new();
    let root = place.blob("*.a eol=crlf\n*.b eol=crlf\n*.c ident\n*.d filter=d\n");
    let conversions = place.conversions("[filter \"d\"]\n\tsmudge = cat\n", SECOND);
    let chain = [file("", root)];
    let rule = |name: &str| rule(&conversions, "", &chain, name, EntryKind::File).expect("converted");
    let one = ObjectId::from_bytes_or_panic(&[1; 20]);
    assert_eq!(rule("f.a").id(&one, b"f.a"), rule("f.b").id(&one, b"f.b"), "equal rules share their results");
    assert_ne!(rule("f.a").id(&one, b"f.a"), rule("f.c").id(&one, b"f.a"));
    assert_ne!(rule("f.d").id(&one, b"f.d"), rule("f.d").id(&one, b"g.d"), "a driver may go by the path");
    let other = place.conversions("[filter \"d\"]\n\tsmudge = tac\n", SECOND);
    let changed = super::tests::rule(&other, "", &chain, "f.d", EntryKind::File).expect("converted");
    assert_ne!(rule("f.d").id(&one, b"f.d"), changed.id(&one, b"f.d"), "another command is another result");
}

#[test]
fn large_output_is_spooled_and_a_filter_need_not_read() {
    let place = Place::new();
    let root = place.blob("*.big filter=big\n*.deaf filter=deaf\n*.echo filter=echo\n*.path filter=path\n");
    let config = "[filter \"big\"]\n\tsmudge = head -c 20000000 /dev/zero\n\trequired\n\
        [filter \"deaf\"]\n\tsmudge = echo no\n\trequired\n[filter \"echo\"]\n\tsmudge = cat\n\trequired\n\
        [filter \"path\"]\n\tsmudge = \"echo %f $GIT_DIR; pwd\"\n";
    let conversions = place.conversions(config, SECOND * 20);
    let chain = [file("", root)];
    let run = |name: &str, raw: &[u8]| {
        made(&rule(&conversions, "", &chain, name, EntryKind::File).expect("converted"), name, raw)
    };
    assert_eq!(run("f.big", b"x").map(|bytes| bytes.len()), Ok(20_000_000));
    let input = vec![b'x'; 3 << 20];
    assert_eq!(run("f.deaf", &input), Ok(b"no\n".to_vec()));
    assert_eq!(run("f.echo", &input), Ok(input), "more than a pipe holds, both ways");
    let home = place.path().display();
    let expected = format!("it's.path {home}/gitdir\n{home}/filters\n");
    assert_eq!(run("it's.path", b"").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()), Ok(expected));
}

#[test]
fn a_silent_driver_is_killed_with_what_it_started() {
    let place = Place::new();
    let root = place.blob("*.one filter=one\n*.many filter=many\n*.optional filter=optional\n");
    let sleep = "sh -c 'sleep 3599 & sleep 3599'";
    let config = format!(
        "[filter \"one\"]\n\tsmudge = {sleep}\n\trequired\n[filter \"many\"]\n\tprocess = {sleep}\n\trequired\n\
        [filter \"optional\"]\n\tsmudge = {sleep}\n"
    );
    let conversions = place.conversions(&config, SECOND);
    let chain = [file("", root)];
    let run = |name: &str| made(&rule(&conversions, "", &chain, name, EntryKind::File).expect("converted"), name, b"x");
    let begun = Instant::now();
    assert_eq!(run("f.one"), Err(ConvertErrorKind::TimedOut));
    assert_eq!(run("f.many"), Err(ConvertErrorKind::TimedOut));
    assert_eq!(run("f.optional"), Ok(b"x".to_vec()), "one that is not required leaves the file as it is");
    assert!(begun.elapsed() < SECOND * 20, "a time-out each");
}

#[test]
fn closing_ends_what_runs_and_is_no_answer() {
    let place = Place::new();
    let root = place.blob("*.one filter=one\n");
    let conversions = place.conversions("[filter \"one\"]\n\tsmudge = sleep 3599\n", SECOND * 100);
    let rule = rule(&conversions, "", &[file("", root)], "f.one", EntryKind::File).expect("converted");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| made(&rule, "f.one", b"x"));
        std::thread::sleep(SECOND / 5);
        conversions.close();
        assert_eq!(running.join().expect("no panic"), Err(ConvertErrorKind::Closed), "not required, and yet no file");
    });
    assert!(begun.elapsed() < SECOND * 50);
    assert_eq!(made(&rule, "f.one", b"x"), Err(ConvertErrorKind::Closed));
}
