//! `larder doctor` on real situations: real mounts, real servers on loopback, a daemon that is killed, a remote that hangs.
//!
//! What it finds is judged by the findings' names, severities and commands, and by what the machine is like afterwards.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use common::servers::{GitDaemon, HttpOptions, HttpServer};
use common::{COMMAND_LIMIT, Fixture, Outcome, eventually, exit, git_out, kill, kill_hard, repos, run, text};
use rustix::process::Signal;

/// A look ends within ten seconds; the rest is for a machine that is busy.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// `larder doctor ARGUMENTS --json`: its exit code and its document.
#[track_caller]
fn doctor(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = fixture.larder();
    command.arg("doctor").args(arguments).arg("--json");
    let outcome = run(command, LOOK_LIMIT);
    let document: Value = serde_json::from_slice(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", outcome.out(), outcome.err()));
    assert_schema(&document, arguments.contains(&"--fix"));
    (outcome.code, document)
}

/// The document's shape, and that what is told fits together.
#[track_caller]
fn assert_schema(document: &Value, fix: bool) {
    let fields = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(document), ["healthy", "rows"]);
    let rows = document["rows"].as_array().expect("a list");
    assert!(rows.len() > 15, "{document}");
    for row in rows {
        let mut expected = vec!["command", "detail", "fix", "fixable", "name", "severity"];
        if fix {
            expected.insert(4, "fixed");
        }
        let mut found = fields(row);
        found.sort();
        assert_eq!(found, expected, "{row}");
        assert!(["ok", "warning", "error"].contains(&row["severity"].as_str().expect("a word")), "{row}");
        assert!(!row["name"].as_str().expect("text").is_empty() && !row["detail"].as_str().expect("text").is_empty());
        assert_eq!(row["severity"] == "ok", row["fix"].is_null(), "{row}");
        assert!(row["severity"] != "ok" || row["command"].is_null(), "{row}");
        assert!(!row["fixable"].as_bool().expect("a truth") || row["command"].is_string(), "{row}");
        assert!(!fix || row["fixed"].is_boolean(), "{row}");
    }
    let errors = rows.iter().any(|row| row["severity"] == "error");
    assert_eq!(document["healthy"], !errors);
}

/// The one finding whose name begins so.
#[track_caller]
fn found(document: &Value, name: &str) -> Value {
    let rows: Vec<_> = all(document, name);
    assert_eq!(rows.len(), 1, "{name}: {document:#}");
    rows[0].clone()
}

fn all(document: &Value, name: &str) -> Vec<Value> {
    let rows = document["rows"].as_array().expect("a list");
    rows.iter().filter(|row| row["name"].as_str().is_some_and(|found| found.starts_with(name))).cloned().collect()
}

#[track_caller]
fn assert_found(document: &Value, name: &str, severity: &str, detail: &str) -> Value {
    let row = found(document, name);
    assert_eq!(row["severity"], severity, "{row}");
    assert!(row["detail"].as_str().expect("text").contains(detail), "{detail:?} is not in {row}");
    row
}

/// Runs a finding's command as a user would.
#[track_caller]
fn run_command(row: &Value) -> Outcome {
    let mut command = Command::new("bash");
    command.arg("-c").arg(row["command"].as_str().unwrap_or_else(|| panic!("no command: {row}")));
    run(command, COMMAND_LIMIT).success()
}

/// Makes a file look as if nothing touched it for an hour.
fn age(path: &Path) {
    let status = Command::new("touch").args(["-h", "-d", "1 hour ago"]).arg(path).status().expect("touch runs");
    assert!(status.success());
}

/// `source` of [`repos::small`], served by `git daemon`.
fn served(fixture: &Fixture) -> GitDaemon {
    repos::small(&fixture.path("served/source"));
    GitDaemon::serve(&fixture.path("served"))
}

#[test]
fn a_healthy_mount_has_nothing_but_good_findings_of_its_own() {
    let Some(fixture) = Fixture::new() else { return };
    let server = served(&fixture);
    let other = fixture.path("other");
    repos::small(&other);
    let (mount, _) = (fixture.mount(&server.url("source"), "m"), fixture.mount(text(&other), "n"));
    fs::read(mount.join("a.txt")).expect("hydrated");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    let remote = format!("remote {}", server.url("source"));
    assert_found(&document, &remote, "ok", "protocol v2, filter, no object-info");
    assert_found(&document, &format!("remote {}", text(&other)), "ok", "protocol v2, filter, object-info");
    assert_found(&document, "fuse abilities", "ok", "FUSE 7.");
    assert_found(&document, "workspace m", "ok", "ready");
    // Other tests of this machine leave dead mounts for a while, and those are told.
    let here = format!("mount {}", text(&fixture.path("")));
    let names = document["rows"].as_array().expect("rows").iter().filter_map(|row| row["name"].as_str());
    assert_eq!(names.filter(|name| name.starts_with(&here)).collect::<Vec<_>>(), Vec::<&str>::new());
    assert_found(&document, "store", "ok", "schema ");
    assert_found(&document, "leftovers", "ok", "none");
    assert_found(&document, "clock", "ok", "T");
    for name in ["kernel", "fuse module", "/dev/fuse", "fusermount3", "git", "ssh", "permission to mount"] {
        assert_eq!(found(&document, name)["severity"], "ok", "{name}");
    }
    for name in ["user namespace", "container", "environment", "open files", "inotify", "processes", "file system"] {
        found(&document, name);
    }

    // What is in the store by then is asked for by its id.
    eventually(Duration::from_secs(20), "the file read is stored", || {
        let (_, document) = doctor(&fixture, &["m"]);
        found(&document, &remote)["detail"].as_str().expect("text").contains("gives any object")
    });
    for target in ["m", text(&mount), text(&mount.join("dir/b.txt"))] {
        let (_, document) = doctor(&fixture, &[target]);
        assert_eq!(all(&document, "remote ").len(), 1, "{target}");
        assert_eq!(all(&document, "workspace ").len(), 1, "{target}");
    }
    let unknown = fixture.fails(&[exit::NOT_FOUND], &["doctor", "nobody"]);
    assert!(unknown.stdout.is_empty());
    // The same without a daemon, which it does not start.
    fixture.ok(&["shutdown"]);
    let (code, document) = doctor(&fixture, &["m"]);
    assert_eq!(code, Some(0), "{document:#}");
    assert_found(&document, "workspace m", "ok", "unmounted");
    assert_found(&document, "store", "ok", "opens: ");
    fixture.fails(&[exit::NOT_FOUND], &["doctor", "nobody"]);
    assert!(fixture.daemons().is_empty());
}

#[test]
fn a_remote_that_is_gone_is_a_warning_and_one_that_hangs_is_given_up() {
    let Some(fixture) = Fixture::new() else { return };
    let server = served(&fixture);
    let (port, remote) = (server.port(), format!("remote {}", server.url("source")));
    fixture.mount(&server.url("source"), "m");
    drop(server);
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    assert_found(&document, &remote, "warning", "Connection refused");
    // Accepts connections, and never says a word.
    let silent = TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    let row = assert_found(&document, &remote, "warning", "what is cached can be read");
    assert!(row["command"].is_null(), "no command of ours mends it: {row}");
    drop(silent);
}

#[test]
fn a_remote_that_can_less_is_told_with_what_that_means() {
    let Some(fixture) = Fixture::new() else { return };
    let server = served(&fixture);
    git_out(&fixture.path("served/source"), &["config", "uploadpack.allowFilter", "false"]);
    fixture.mount(&server.url("source"), "m");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    let row = assert_found(&document, &format!("remote {}", server.url("source")), "warning", "no filter");
    assert!(row["fix"].as_str().expect("text").contains("--allow-full"), "{row}");
    assert_eq!(row["command"], "git config uploadpack.allowFilter true");
    let mut mend = Command::new("bash");
    mend.arg("-c").arg("git config uploadpack.allowFilter true").current_dir(fixture.path("served/source"));
    run(mend, COMMAND_LIMIT).success();
    let (_, document) = doctor(&fixture, &[]);
    assert_eq!(found(&document, "remote ")["severity"], "ok");
    // A repository that is not there any more.
    fs::rename(fixture.path("served/source"), fixture.path("served/elsewhere")).expect("moved");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!((code, &found(&document, "remote ")["severity"]), (Some(1), &json!("error")));
}

#[test]
fn credentials_are_tried_without_questions_and_never_shown() {
    let Some(fixture) = Fixture::new() else { return };
    repos::small(&fixture.path("served/source"));
    let login = Some(("ann".to_owned(), "s3cret".to_owned()));
    let options = HttpOptions { login, ..HttpOptions::default() };
    let server = HttpServer::serve(&fixture.path("served"), &fixture.path("http"), &options);
    // The address itself brings them, and only the mount hears of it.
    fixture.mount(&server.url_with("ann:s3cret@", "source"), "m");
    // The daemon's own history fetch would have helpers forget what is wrong.
    fixture.ok(&["shutdown"]);
    let look = |severity: &str, detail: &str| {
        let (code, document) = doctor(&fixture, &["m"]);
        let row = assert_found(&document, &format!("remote {}", server.url("source")), severity, detail);
        assert_eq!(code, Some(i32::from(severity == "error")), "{row}");
        let human = fixture.run(&["doctor"]);
        for secret in ["s3cret", "wr0ng", "ann"] {
            let told = format!("{document}{}{}", human.out(), human.err());
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        row
    };
    let row = look("error", "asks for credentials and no helper has any");
    let command = row["command"].as_str().expect("a command");
    assert!(command.ends_with(&format!("git ls-remote {}", server.url("source"))), "{command}");

    let stored = fixture.path("credentials");
    let helper = |password: &str| {
        let line = format!("http://ann:{password}@127.0.0.1:{}\n", server.port());
        fs::write(&stored, line).expect("the fixture is writable");
        fs::set_permissions(&stored, fs::Permissions::from_mode(0o600)).expect("own file");
        let settings = format!("[credential]\n\thelper = store --file={}\n", stored.display());
        fs::write(fixture.gitconfig(), settings).expect("the fixture is writable");
    };
    helper("wr0ng");
    look("error", "refused the credentials; helpers asked: store");
    let kept = fs::read_to_string(&stored).expect("there");
    assert!(kept.contains("wr0ng"), "a look makes no helper forget anything: {kept}");
    helper("s3cret");
    look("ok", "takes the credentials of Git's credential helper");

    // A program that would ask is not run.
    fs::write(fixture.gitconfig(), format!("[core]\n\taskPass = touch {}\n", text(&fixture.path("asked"))))
        .expect("writable");
    look("error", "no helper has any");
    assert!(!fixture.path("asked").exists());
}

#[test]
fn a_dead_mount_and_a_dead_socket_are_found_and_mended() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    fs::write(mount.join("mine"), "my work\n").expect("written");
    fixture.crash_daemon();
    let socket = fixture.home().join("run/daemon.sock");
    age(&socket);
    let name = format!("mount {}", mount.display());
    let (code, document) = doctor(&fixture, &["m"]);
    assert_eq!(code, Some(1), "{document:#}");
    let row = assert_found(&document, &name, "error", "its daemon is gone");
    assert_eq!(row["fixable"], true);
    assert_found(&document, &format!("socket {}", socket.display()), "warning", "nobody listens");
    assert!(fixture.daemons().is_empty() && fixture.is_mounted(&mount), "looking changes nothing");

    let (code, document) = doctor(&fixture, &["--fix"]);
    assert_eq!(code, Some(0), "{document:#}");
    for name in [name, format!("socket {}", socket.display())] {
        let row = found(&document, &name);
        assert_eq!((&row["severity"], &row["fixed"]), (&json!("ok"), &json!(true)), "{row}");
    }
    assert_eq!(found(&document, "kernel")["fixed"], false);
    assert!(!fixture.is_mounted(&mount) && !socket.exists() && fixture.daemons().is_empty());
    let (code, document) = doctor(&fixture, &["--fix"]);
    assert_eq!(code, Some(0));
    assert!(
        document["rows"].as_array().expect("rows").iter().all(|row| row["fixed"] == false),
        "nothing is left to mend"
    );
    // Nothing that a user made is lost.
    fixture.ok(&["daemon"]);
    assert_eq!(fs::read(mount.join("mine")).expect("mounted again"), b"my work\n");
}

#[test]
fn a_path_with_control_characters_steers_no_terminal_and_its_command_still_means_it() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m\u{1b}[31m it's\t\u{202e}x");
    fixture.crash_daemon();
    let human = fixture.run(&["doctor"]);
    assert!(human.out().contains("m\\x1b[31m it's\\t\\u{202e}x"), "{}", human.out());
    assert!(!human.out().contains(['\u{1b}', '\u{202e}']), "{:?}", human.out());
    let lines = ["ok ", "warning ", "error ", "  "];
    assert!(human.out().lines().all(|line| lines.iter().any(|begin| line.starts_with(begin))), "{}", human.out());
    let (_, document) = doctor(&fixture, &[]);
    let row = found(&document, "mount ");
    assert_eq!(row["name"], format!("mount {}", mount.display()), "JSON has it as it is");
    run_command(&row);
    assert!(!fixture.is_mounted(&mount), "{row}");
}

#[test]
fn directories_open_to_others_are_closed() {
    let Some(fixture) = Fixture::new() else { return };
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
    for directory in [fixture.home(), fixture.home().join("run")] {
        fs::create_dir_all(&directory).expect("made");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("own directory");
    }
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0));
    run_command(&assert_found(&document, "run directory", "warning", "mode 0755"));
    assert_eq!(mode(&fixture.home().join("run")), 0o700);
    let (_, document) = doctor(&fixture, &["--fix"]);
    let row = assert_found(&document, "state directory", "ok", "mode changed from 0755 to 0700");
    assert_eq!(row["fixed"], true);
    assert_eq!(mode(&fixture.home()), 0o700);
    let human = fixture.ok(&["doctor", "--fix"]).out();
    assert!(human.contains("ok       state directory: "), "{human}");
}

#[test]
fn a_store_of_another_schema_is_left_as_it_is() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.ok(&["daemon"]);
    fixture.ok(&["shutdown"]);
    let store = fixture.home().join("store.redb");
    let set = |version: u64| {
        let database = redb::Database::create(&store).expect("opens");
        let write = database.begin_write().expect("writes");
        let table = redb::TableDefinition::<&str, u64>::new("meta");
        write.open_table(table).expect("there").insert("schema", version).expect("written");
        write.commit().expect("durable");
    };
    set(999);
    let (code, document) = doctor(&fixture, &["--fix"]);
    assert_eq!(code, Some(1));
    let row = assert_found(&document, "store", "error", "schema 999");
    assert_eq!((&row["fixable"], &row["fixed"]), (&json!(false), &json!(false)));
    // Whether there is such a workspace nobody can say.
    let (code, document) = doctor(&fixture, &["m"]);
    assert_eq!(code, Some(1));
    assert_found(&document, "workspace m", "error", "nothing is known");
    set(5);
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    let row = assert_found(&document, "store", "warning", "schema 5");
    assert_eq!(row["command"], "larder daemon");
    fixture.ok(&["daemon"]);
    let (_, document) = doctor(&fixture, &[]);
    assert_eq!(found(&document, "store")["severity"], "ok");
    fixture.ok(&["shutdown"]);
    fs::write(&store, b"no store").expect("written");
    let (code, document) = doctor(&fixture, &["--fix"]);
    assert_eq!((code, &found(&document, "store")["severity"]), (Some(1), &json!("error")));
    assert_eq!(fs::read(&store).expect("there"), b"no store", "nothing is removed");
}

#[test]
fn settings_and_variables_without_effect_are_named() {
    let toml = "[hydrate]\nprefetch = \"off\"\nsources = [\"*.nix\"]\n[cache]\nmax_size = 1125899906842624\n[gc]\ninterval = \"0s\"\n";
    let Some(mut fixture) = Fixture::with_settings(toml) else { return };
    let file = fixture.path("config/larder/config.toml");
    fixture.ok(&["daemon"]);
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    for key in ["hydrate.sources", "cache.max_size", "gc.interval"] {
        assert_eq!(found(&document, &format!("setting {key}"))["severity"], "warning", "{key}");
    }
    assert!(all(&document, "settings changed").is_empty());
    fs::write(&file, "[cache]\nmin_free = 1125899906842624\n").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("own file");
    let hour = SystemTime::now() + Duration::from_hours(1);
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(hour)).expect("own file");
    fs::write(fixture.home().join("config.toml"), "").expect("written");
    fixture.set_env("GIT_DIR", "/nowhere/.git");
    fixture.set_env("LARDER_COLOUR", "s3cret");
    fixture.set_env("RUST_LOG", "debug");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    assert_found(&document, "setting cache.min_free", "warning", "nothing can be cached");
    assert_eq!(found(&document, "settings changed")["command"], "larder shutdown");
    assert_eq!(all(&document, "settings file").len(), 2, "open to others, and one that nobody reads");
    assert_eq!(found(&document, "environment GIT_DIR")["command"], "unset GIT_DIR");
    assert_found(&document, "environment LARDER_COLOUR", "warning", "no effect");
    assert_found(&document, "environment RUST_LOG", "warning", "no effect");
    assert!(!document.to_string().contains("s3cret"));
}

#[test]
fn what_crashes_left_is_found_and_not_touched() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    fixture.mount(text(&source), "m");
    let gitdir = fixture.home().join("repositories/1.git");
    let lock = gitdir.join("packed-refs.lock");
    let overlay = fixture.home().join("overlay/77");
    fs::write(&lock, "").expect("written");
    fs::create_dir_all(&overlay).expect("made");
    assert_eq!(found(&doctor(&fixture, &[]).1, "leftovers")["severity"], "ok", "they are young");
    age(&lock);
    age(&overlay);
    let (code, document) = doctor(&fixture, &["--fix"]);
    assert_eq!(code, Some(0), "{document:#}");
    assert!(lock.exists() && overlay.exists(), "no crash says that nobody needs them");
    assert_eq!(found(&document, "leftovers in ")["command"], "larder gc");
    run_command(&found(&document, "lock "));
    assert!(!lock.exists());
    fixture.ok(&["gc"]);
    assert_eq!(found(&doctor(&fixture, &[]).1, "leftovers")["severity"], "ok");
}

/// A daemon of version 0.0.1: it answers pings and ends when it is told to, or says nothing at all.
struct OldDaemon(Child);

const OLD_DAEMON: &str = r#"
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
while True:
    client, _ = server.accept()
    if sys.argv[2] == "silent":
        kept = client
        continue
    line = client.makefile().readline()
    request = json.loads(line)["request"] if line else None
    if request == "ping":
        answer = {"done": {"pong": {"version": "0.0.1", "pid": os.getpid()}}}
    elif request == "shutdown":
        answer = {"done": "ok"}
    else:
        answer = {"failed": {"class": "usage", "message": "not understood", "hint": None}}
    client.sendall(json.dumps(answer).encode() + b"\n")
    client.close()
    if request == "shutdown":
        os.unlink(sys.argv[1])
        break
"#;

impl OldDaemon {
    fn start(fixture: &Fixture, how: &str) -> Self {
        let run_dir = fixture.home().join("run");
        fs::create_dir_all(&run_dir).expect("made");
        for directory in [fixture.home(), run_dir.clone()] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("own directory");
        }
        let mut command = Command::new("python3");
        command.arg("-c").arg(OLD_DAEMON).arg(run_dir.join("daemon.sock")).arg(how);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python runs");
        let mut line = [0; 9];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("it listens");
        Self(child)
    }
}

impl Drop for OldDaemon {
    fn drop(&mut self) {
        kill_hard(&mut self.0);
    }
}

#[test]
fn an_older_daemon_is_replaced() {
    let Some(fixture) = Fixture::new() else { return };
    let mut old = OldDaemon::start(&fixture, "answers");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    let row = assert_found(&document, "daemon", "warning", "is larder 0.0.1");
    assert_eq!((&row["command"], &row["fixable"]), (&json!("larder shutdown"), &json!(true)));
    // A child that ended is gone for others only once it was waited for.
    let waiting = std::thread::spawn(move || old.0.wait().map(|_| old));
    let (code, document) = doctor(&fixture, &["--fix"]);
    assert_eq!(code, Some(0), "{document:#}");
    let row = assert_found(&document, "daemon", "ok", "was ended; larder ");
    assert_eq!(row["fixed"], true);
    assert_eq!(fixture.daemons().len(), 1);
    drop(waiting.join().expect("no panic").expect("waited for"));
}

#[test]
fn a_daemon_that_does_not_answer_is_an_error_and_named() {
    let Some(fixture) = Fixture::new() else { return };
    let old = OldDaemon::start(&fixture, "silent");
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(1), "{document:#}");
    let row = assert_found(&document, "daemon", "error", "does not answer");
    assert_eq!(row["command"], format!("kill {}", old.0.id()));
    assert_eq!(row["fixable"], false);
}

#[test]
fn a_daemon_that_stands_still_keeps_nobody_waiting() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("source");
    repos::small(&source);
    let mount = fixture.mount(text(&source), "m");
    let pid = fixture.daemon();
    kill(pid, Signal::STOP);
    let (code, document) = doctor(&fixture, &["--fix"]);
    kill(pid, Signal::CONT);
    assert_eq!(code, Some(1), "{document:#}");
    assert_eq!(found(&document, "daemon")["command"], format!("kill {pid}"));
    let row = assert_found(&document, &format!("mount {}", mount.display()), "error", "does not answer");
    assert_eq!((&row["fixable"], &row["fixed"]), (&json!(false), &json!(false)));
    assert_eq!(fs::read(mount.join("a.txt")).expect("it goes on"), b"alpha\n");
    assert_eq!(doctor(&fixture, &[]).0, Some(0));
}

#[test]
fn state_in_memory_is_warned_of() {
    if !Path::new("/dev/shm").is_dir() {
        return;
    }
    let Some(mut fixture) = Fixture::new() else { return };
    let home = tempfile::tempdir_in("/dev/shm").expect("writable");
    fixture.set_env("LARDER_HOME", home.path());
    let (code, document) = doctor(&fixture, &[]);
    assert_eq!(code, Some(0), "{document:#}");
    assert_found(&document, "file system", "warning", "tmpfs");
}

/// Runs its arguments in a terminal of 20 columns and prints what that shows.
const NARROW: &str = "
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 50, 20, 0, 0))
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
";

#[test]
fn a_narrow_terminal_and_a_reader_that_leaves_are_served() {
    let Some(fixture) = Fixture::new() else { return };
    fs::create_dir_all(fixture.home()).expect("made");
    fs::set_permissions(fixture.home(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let larder = fixture.larder();
    let mut command = Command::new("python3");
    command.args(["-c", NARROW]).arg(larder.get_program()).arg("doctor");
    for (name, value) in larder.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let shown = run(command, COMMAND_LIMIT).success().out();
    assert!(shown.lines().count() > 20, "{shown}");
    for line in shown.lines().map(|line| line.trim_end_matches('\r')) {
        assert!(line.chars().count() <= 20 || line.starts_with(" run: "), "{line:?}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    let mut piped = fixture.larder();
    let mut child = piped.arg("doctor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert!(output.stderr.is_empty() && matches!(output.status.code(), Some(0 | 1)), "{output:?}");
}

#[test]
fn help_has_examples() {
    let Some(fixture) = Fixture::new() else { return };
    let help = fixture.ok(&["doctor", "--help"]).out();
    assert!(help.contains("Examples:") && help.contains("larder doctor --fix"), "{help}");
}
