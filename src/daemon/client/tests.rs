//! A made-up daemon at the other end of the socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use super::start::log_tail;
use super::*;

/// Answers one connection with `lines` and returns what was asked.
fn daemon(socket: &Path, lines: Vec<Vec<u8>>) -> JoinHandle<String> {
    let listener = bind(socket).expect("bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut asked = String::new();
        BufReader::new(stream.try_clone().expect("cloned")).read_line(&mut asked).expect("a line");
        for line in lines {
            // A client that gave up reading is what some of these tests are about.
            let _ = stream.write_all(&line).and_then(|()| stream.write_all(b"\n"));
        }
        asked
    })
}

fn line(reply: &Reply) -> Vec<u8> {
    serde_json::to_vec(reply).expect("serializable")
}

fn home() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("s");
    (dir, socket)
}

fn fail(lines: Vec<Vec<u8>>) -> Failure {
    let (_dir, socket) = home();
    let server = daemon(&socket, lines);
    let failure = Client::at(socket).ask(Request::List).expect_err("no answer");
    server.join().expect("served");
    failure
}

#[test]
fn progress_comes_before_the_answer() {
    let (_dir, socket) = home();
    let progress = Progress { phase: "fetching".to_owned(), objects: 3, bytes: 9, total_objects: None };
    let replies = vec![line(&Reply::Progress(progress.clone())), line(&Reply::Done(Answer::Ok))];
    let server = daemon(&socket, replies);
    let mut seen = Vec::new();
    let answer = Client::at(socket).call(Request::Prepare { target: "w".to_owned() }, &mut |p| seen.push(p.clone()));
    assert!(matches!(answer, Ok(Answer::Ok)));
    assert_eq!(seen, [progress]);
    let asked: Envelope = serde_json::from_str(&server.join().expect("served")).expect("an envelope");
    assert_eq!(asked.version, PROTOCOL_VERSION);
    assert!(matches!(asked.request, Request::Prepare { target } if target == "w"));
}

#[test]
fn a_refusal_keeps_its_class_and_hint() {
    let refusal = Failure::new(FailureClass::Refused, "cannot unmount w: it is busy").hint("close its files");
    let failure = fail(vec![line(&Reply::Failed(refusal))]);
    assert_eq!(failure.class, FailureClass::Refused);
    assert_eq!(failure.hint.as_deref(), Some("close its files"));
}

#[test]
fn garbage_and_silence_are_failures_not_panics() {
    let other_version = fail(vec![b"{\"later\":1}".to_vec()]);
    assert!(other_version.message.contains("another version"), "{other_version}");
    assert!(other_version.hint.expect("what to do").contains(&format!("`kill {}`", std::process::id())));
    assert!(fail(vec![]).message.ends_with("it ended before answering"));
    assert!(fail(vec![vec![b'x'; MAX_LINE_BYTES + 10]]).message.ends_with("its answer is too long"));
}

#[test]
fn nobody_there_is_not_found_and_no_pong() {
    let (_dir, socket) = home();
    let client = Client::at(socket.clone());
    assert!(matches!(client.ping(), Ok(None)));
    assert_eq!(client.ask(Request::List).expect_err("nobody").class, FailureClass::NotFound);
    drop(bind(&socket).expect("bound"));
    assert!(socket.exists());
    assert!(matches!(client.ping(), Ok(None)));
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let (_dir, socket) = home();
    drop(bind(&socket).expect("bound"));
    let living = bind(&socket).expect("bound over the dead one");
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(bind(&socket).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    drop(living);
}

#[test]
fn a_path_longer_than_the_kernel_takes_still_serves() {
    let (dir, _) = home();
    let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&deep).expect("created");
    let socket = deep.join("daemon.sock");
    assert!(UnixListener::bind(&socket).is_err(), "the kernel takes it: this test shows nothing");
    drop(bind(&socket).expect("bound"));
    let server = daemon(&socket, vec![line(&Reply::Done(Answer::Pong { version: "1".to_owned(), pid: 7 }))]);
    assert_eq!(Client::at(socket).ping().expect("a pong"), Some(("1".to_owned(), 7)));
    server.join().expect("served");
}

#[test]
fn the_log_s_tail_is_what_came_last() {
    let (dir, _) = home();
    let log = dir.path().join("log");
    assert_eq!(log_tail(&log, 0), None);
    fs::write(&log, "old\n1\n2\n\n3\n4\n5\n6\n").expect("written");
    assert_eq!(log_tail(&log, 4).as_deref(), Some("2 | 3 | 4 | 5 | 6"));
    assert_eq!(log_tail(&log, 17), None);
    assert_eq!(log_tail(&log, 1000).as_deref(), Some("2 | 3 | 4 | 5 | 6"));
}

#[test]
fn git_s_repository_variables_are_known() {
    assert!(is_about_one_repository("GIT_DIR") && is_about_one_repository("GIT_INDEX_FILE"));
    assert!(!is_about_one_repository("GIT_SSH_COMMAND") && !is_about_one_repository("HOME"));
}
