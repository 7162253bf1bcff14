//! The built binary as a user or a script runs it, without a daemon.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use larder::store::{
    Batch, Depth, EntryKind, Generation, GenerationRecord, Listing, ObjectIdText, Repository, Store, StoreOptions,
    Workspace, WorkspaceState,
};
use serde_json::Value;
use tempfile::TempDir;

const LARDER: &str = env!("CARGO_BIN_EXE_larder");

/// A command in a home of its own that no other test and no user shares.
fn larder(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(LARDER);
    command.args(arguments).env("LARDER_HOME", home).env("XDG_CONFIG_HOME", home.join("config"));
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn run(home: &TempDir, arguments: &[&str]) -> Output {
    larder(home.path(), arguments).output().expect("the binary runs")
}

fn home() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_standard_error() {
    let home = home();
    let wrong: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["mount"],
        &["mount", "repo"],
        &["mount", "ftp://host/repo", "/mnt"],
        &["mount", "repo", "/mnt", "--depth", "0"],
        &["mount", "repo", "/mnt", "--depth", "some"],
        &["mount", "repo", "/mnt", "--require-commit", "abc"],
        &["mount", "repo", "/mnt", "--name", "a/b"],
        &["mount", "repo", "/mnt", "--rev", "-x"],
        &["mount", "repo", "/"],
        &["mount", "", "/mnt"],
        &["completions", "tcsh"],
        &["status", ""],
        &["daemon", "--background"],
    ];
    for arguments in wrong {
        let output = run(&home, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(fs::read_dir(home.path()).expect("readable").count(), 0, "wrong usage left something behind");
}

#[test]
fn with_json_errors_are_one_document_on_standard_error() {
    let home = home();
    for (arguments, class, code) in [
        (&["--json", "mount", "repo", "/mnt", "--depth", "0"][..], "usage", 2),
        (&["status", "none", "--json"], "not_found", 3),
        (&["unmount", "none", "--json"], "not_found", 3),
        (&["prepare", "none", "--json"], "not_found", 3),
        (&["metrics", "--json"], "not_found", 3),
    ] {
        let output = run(&home, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let error = &json(&output.stderr)["error"];
        assert_eq!(error["class"], class, "{arguments:?}");
        assert!(error["message"].as_str().is_some_and(|text| !text.contains('\n')), "{arguments:?}");
        assert!(error["hint"].is_string() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_error_says_what_failed_and_what_to_do() {
    let output = run(&home(), &["status", "none"]);
    assert_eq!(
        text(&output.stderr),
        "larder: cannot find the workspace \"none\": there is none of that name or path\n\
         hint: `larder list` shows all\n"
    );
}

#[test]
fn help_names_every_command_and_every_flag() {
    let home = home();
    let help = run(&home, &["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    let commands = "mount unmount list status prepare doctor waits metrics daemon shutdown completions man";
    for command in commands.split(' ') {
        assert!(text(&help.stdout).contains(&format!("\n  {command} ")), "{command}");
        let own = run(&home, &[command, "--help"]);
        assert!(own.status.success() && text(&own.stdout).contains("Usage: larder"), "{command}");
    }
    let mount = run(&home, &["mount", "--help"]);
    for flag in "--rev --name --depth --read-only --async --require-commit --gitdir --allow-full --json".split(' ') {
        assert!(text(&mount.stdout).contains(flag), "{flag}");
    }
    assert!(text(&mount.stdout).contains("EROFS"));
    assert!(!help.stdout.contains(&0x1b) && !mount.stdout.contains(&0x1b), "help is coloured");
    let version = run(&home, &["--version"]);
    assert_eq!(text(&version.stdout), format!("larder {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_exist_for_every_shell() {
    let home = home();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&home, &["completions", shell]);
        assert!(output.status.success(), "{shell}");
        assert!(text(&output.stdout).contains("require-commit"), "{shell}");
        assert!(!text(&output.stdout).contains("detached"), "{shell} offers a hidden flag");
    }
}

#[test]
fn manual_pages_are_printed_and_written() {
    let home = home();
    let page = run(&home, &["man"]);
    assert!(page.status.success() && text(&page.stdout).contains(".TH larder 1"));
    let dir = home.path().join("man");
    let written = run(&home, &["man", "--dir", dir.to_str().expect("UTF-8")]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    for page in ["larder.1", "larder-mount.1", "larder-doctor.1"] {
        assert!(fs::metadata(dir.join(page)).is_ok_and(|meta| meta.len() > 100), "{page}");
    }
}

#[test]
fn nothing_is_started_and_nothing_written_to_look() {
    let home = home();
    let list = run(&home, &["list", "--json"]);
    assert_eq!(json(&list.stdout), serde_json::json!({ "rows": [] }));
    let status = run(&home, &["status", "--json"]);
    assert_eq!(json(&status.stdout), serde_json::json!({ "rows": [] }));
    let waits = run(&home, &["waits", "--json"]);
    assert_eq!(json(&waits.stdout), serde_json::json!({ "rows": [] }));
    let shutdown = run(&home, &["shutdown", "--json"]);
    assert_eq!(json(&shutdown.stdout), serde_json::json!({ "stopped": false }));
    assert!(text(&run(&home, &["list"]).stdout).starts_with("no workspaces"));
    assert_eq!(fs::read_dir(home.path()).expect("readable").count(), 0);
}

#[test]
fn doctor_reports_findings_quickly_and_exits_by_them() {
    let home = home();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let began = Instant::now();
    let output = run(&home, &["doctor", "--json"]);
    assert!(began.elapsed() < Duration::from_secs(20));
    let document = json(&output.stdout);
    let rows = document["rows"].as_array().expect("rows");
    let severity = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        row.map(|row| row["severity"].as_str().expect("a word").to_owned())
    };
    for name in ["kernel", "/dev/fuse", "git", "ssh", "store", "disk", "daemon", "settings", "mounts"] {
        assert!(severity(name).is_some() || name == "mounts", "{name}: {document}");
    }
    assert_eq!(severity("state directory").as_deref(), Some("warning"), "{document}");
    for row in rows {
        assert_eq!(row["severity"] == "ok", row["fix"].is_null(), "{row}");
        assert!(row["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{row}");
    }
    let errors = rows.iter().any(|row| row["severity"] == "error");
    assert_eq!(output.status.code(), Some(i32::from(errors)));
    assert_eq!(document["healthy"], !errors);
}

#[test]
fn a_wrong_settings_file_is_wrong_usage_and_a_finding_of_doctor() {
    let home = home();
    let dir = home.path().join("config/larder");
    fs::create_dir_all(&dir).expect("created");
    fs::write(dir.join("config.toml"), "[network]\ntimout = \"3s\"\n").expect("written");
    let list = run(&home, &["list"]);
    assert_eq!(list.status.code(), Some(2));
    assert!(text(&list.stderr).contains("did you mean \"network.timeout\"?"), "{}", text(&list.stderr));
    let doctor = run(&home, &["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(1));
    let rows = json(&doctor.stdout)["rows"].as_array().expect("rows").clone();
    assert!(rows.iter().any(|row| row["name"] == "settings" && row["severity"] == "error"));
    assert!(run(&home, &["completions", "bash"]).status.success());
}

#[test]
fn a_reader_that_hangs_up_is_no_error() {
    let home = home();
    for arguments in [&["completions", "bash"][..], &["man"], &["--help"], &["list", "--json"], &["doctor"]] {
        let mut child =
            larder(home.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        drop(child.stdout.take());
        let mut complaint = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut complaint).expect("UTF-8");
        let status = child.wait().expect("ends");
        assert!(complaint.is_empty(), "{arguments:?}: {complaint}");
        assert!(matches!(status.code(), Some(0 | 1)), "{arguments:?}: {status}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let home = home();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = larder(home.path(), &["man"]).stdout(full).stderr(Stdio::piped()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("larder: cannot write to standard output: "));
}

#[test]
fn the_fsmonitor_hook_makes_git_scan_when_nobody_answers() {
    let home = home();
    let hook = home.path().join("larder-fsmonitor");
    symlink(LARDER, &hook).expect("linked");
    let state = home.path().join("larder-fsmonitor.json");
    for content in [None, Some("not JSON"), Some(r#"{"workspace":1,"socket":"/nonexistent/s"}"#)] {
        if let Some(content) = content {
            fs::write(&state, content).expect("written");
        }
        for version in ["1", "2"] {
            let output = Command::new(&hook).args([version, "token"]).env_clear().output().expect("runs");
            assert_eq!(output.status.code(), Some(1), "{content:?}");
            assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{content:?}");
        }
    }
}

#[test]
fn a_daemon_that_cannot_start_says_why_through_the_client() {
    let home = home();
    // The store's place is taken by a directory that is not empty.
    fs::create_dir_all(home.path().join("store.redb/in-the-way")).expect("created");
    let output = run(&home, &["daemon"]);
    assert!(!output.status.success());
    let complaint = text(&output.stderr);
    assert!(complaint.starts_with("larder: ") && complaint.contains("\nhint: "), "{complaint}");
    assert!(complaint.lines().count() <= 2, "{complaint}");
}

#[test]
fn without_a_daemon_the_store_says_what_is_known() {
    let home = home();
    let commit = fill(home.path());
    let one = json(&run(&home, &["status", "linux", "--json"]).stdout);
    let expected = serde_json::json!({
        "workspace": "linux", "path": "/mnt/linux", "state": "unmounted", "repository": "git://host/linux.git",
        "rev": "main", "commit": commit, "generation": 1, "files": 3, "hydrated_objects": 1, "hydrated_bytes": 5, "counting": false,
        "overlay_entries": 0, "queue_depth": 0, "inflight_objects": 0, "offline": false, "stays_offline": false,
        "last_error": null, "gitdir": null, "last_gc": null,
        "history": { "state": "off", "commits": null, "reason": null },
    });
    assert_eq!(one, expected);
    for target in ["/mnt/linux", "/mnt/linux/some/file", "mnt/linux", "/mnt/x/../linux/."] {
        assert_eq!(json(&run(&home, &["status", target, "--json"]).stdout), expected, "{target}");
    }
    assert_eq!(run(&home, &["status", "/mnt/linux-next"]).status.code(), Some(3));
    let rows = json(&run(&home, &["list", "--json"]).stdout)["rows"].as_array().expect("rows").clone();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[1]["name"], &rows[1]["state"]), (&Value::from("linux"), &Value::from("unmounted")));
    assert_eq!((&rows[0]["name"], &rows[0]["state"]), (&Value::from("broken"), &Value::from("failed")));
    let doctor = json(&run(&home, &["doctor", "--json"]).stdout);
    let store = doctor["rows"].as_array().expect("rows").iter().find(|row| row["name"] == "store").expect("looked at");
    assert_eq!(store["severity"], "ok", "{store}");
    assert!(store["detail"].as_str().is_some_and(|detail| detail.contains("1 blobs and 2 trees")), "{store}");
}

#[test]
fn a_store_that_another_process_holds_or_that_is_no_store_is_reported() {
    let home = home();
    let path = home.path().join("store.redb");
    let held = Store::open(&path, &StoreOptions { cache_bytes: 1 << 20 }).expect("a store");
    let output = run(&home, &["list"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    drop(held);
    fs::write(&path, b"not a store").expect("written");
    let output = run(&home, &["list", "--json"]);
    assert!(!output.status.success() && json(&output.stderr)["error"]["hint"].is_string());
    assert_eq!(run(&home, &["doctor"]).status.code(), Some(1));
}

/// A store with a prepared workspace, one of its two blobs hydrated, and one whose preparation failed.
fn fill(home: &Path) -> String {
    let id = |byte: u8| gix::ObjectId::from_bytes_or_panic(&[byte; 20]);
    let store = Store::open(&home.join("store.redb"), &StoreOptions { cache_bytes: 1 << 20 }).expect("a store");
    let entry = |name: &'static [u8], mode: u16, byte: u8| larder::store::Entry {
        name,
        kind: EntryKind::from_mode(mode).expect("a mode of Git's"),
        mode,
        id: id(byte),
    };
    let below = Listing::pack(20, vec![entry(b"b", 0o100_644, 1), entry(b"c", 0o100_644, 2)]).expect("packed");
    let top = Listing::pack(20, vec![entry(b"a", 0o100_644, 1), entry(b"d", 0o040_000, 3)]).expect("packed");
    let mut batch = Batch::default();
    batch.blob(id(1), b"hello");
    batch.tree(id(3), &below);
    batch.tree(id(4), &top);
    store.commit(batch).expect("committed");

    let repository = Repository {
        id: store.next_repository_id().expect("a number"),
        url: "git://host/linux.git".to_owned(),
        gitdir: home.join("repositories/1"),
        external_gitdir: false,
    };
    store.put_repository(&repository).expect("written");
    let linux = Workspace {
        id: store.next_workspace_id().expect("a number"),
        name: "linux".to_owned(),
        path: "/mnt/linux".into(),
        repository: repository.id,
        rev: Some("main".to_owned()),
        require_commit: None,
        depth: Depth::Commits(1),
        state: WorkspaceState::Ready,
        current: Some(Generation(1)),
        last_error: None,
        uid: 0,
        gid: 0,
        allow_full: false,
        admin: None,
        reference: None,
        mounted: true,
        switching: None,
        refresh_seconds: None,
        offline: false,
        base_time: None,
        read_only: false,
    };
    let generation = GenerationRecord {
        workspace: linux.id,
        generation: Generation(1),
        commit: ObjectIdText(id(9)),
        tree: ObjectIdText(id(4)),
        commit_time: 0,
        files: 3,
        created: 0,
        origin: "mount".to_owned(),
    };
    store.publish(&generation, &linux).expect("published");
    let broken = Workspace {
        id: store.next_workspace_id().expect("a number"),
        name: "broken".to_owned(),
        path: "/mnt/broken".into(),
        state: WorkspaceState::Failed,
        current: None,
        last_error: Some("no route to host".to_owned()),
        ..linux
    };
    store.put_workspace(&broken).expect("written");
    store.flush().expect("durable");
    id(9).to_string()
}
