//! What is fetched before it is asked for: as much as the settings say, and never a wrong answer in between.

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::proxy::Proxy;
use common::servers::{GitDaemon, git_url};
use common::{Fixture, eventually, git_out, names, read, repos, text};

/// Files in `many/`, more than listing it may prefetch.
const MANY: usize = 300;

const OBJECTS: &str = "larder_remote_objects_total";
const REQUESTS: &str = "larder_remote_requests_total";

fn wide(settings: &str) -> Option<(Fixture, GitDaemon, std::path::PathBuf)> {
    let fixture = Fixture::with_settings(settings)?;
    repos::wide(&fixture.path("served/wide"), MANY);
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("wide"), "m");
    Some((fixture, server, mount))
}

fn queue_is_empty(fixture: &Fixture) -> bool {
    fixture.metric("larder_queue_depth") + fixture.metric("larder_inflight_objects") == 0
}

#[test]
fn off_fetches_the_file_that_is_opened() {
    let Some((fixture, _server, mount)) = wide("[hydrate]\nprefetch = \"off\"\n") else { return };
    assert_eq!(names(&mount.join("many")).expect("it lists").len(), MANY);
    read(&mount.join("many/f00007")).expect("it reads");
    assert_eq!(fixture.metric(OBJECTS), 1);
    let before = fixture.metric(REQUESTS);
    for name in names(&mount.join("many")).expect("it lists") {
        fs::symlink_metadata(mount.join("many").join(name)).expect("it has a size");
    }
    assert!(fixture.metric(REQUESTS) - before <= 4, "sizes of a directory are not asked for one by one");
}

#[test]
fn on_read_takes_the_siblings_along() {
    let Some((fixture, _server, mount)) = wide("") else { return };
    names(&mount.join("many")).expect("it lists");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(fixture.metric(OBJECTS), 0, "listing names fetches nothing");
    read(&mount.join("many/f00007")).expect("it reads");
    eventually(Duration::from_secs(10), "the batch is here", || fixture.metric(OBJECTS) == 256);
}

#[test]
fn on_list_takes_the_best_files_of_a_directory_along() {
    let Some((fixture, _server, mount)) = wide("[hydrate]\nprefetch = \"on-list\"\n") else { return };
    names(&mount.join("many")).expect("it lists");
    eventually(Duration::from_secs(10), "the batch is here", || fixture.metric(OBJECTS) == 256);
    eventually(Duration::from_secs(10), "nothing is left", || queue_is_empty(&fixture));
    assert_eq!(fixture.metric(OBJECTS), 256, "no more than 256 of a directory");
    assert_eq!(fixture.metric("larder_misses_total"), 0, "nobody waited");
}

#[test]
fn sizes_are_true_while_warms_come_and_go() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/deep");
    repos::init(&source, "sha1");
    for number in 0..1500_usize {
        repos::write(&source, format!("d{}/e{}/f{number}", number % 30, number % 3), vec![b'x'; number]);
    }
    repos::commit_all(&source, "deep");
    let server = GitDaemon::serve(&fixture.path("served"));
    let mount = fixture.mount(&server.url("deep"), "m");
    let walked = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each is another selection of nothing: a warm that ends at once.
            for number in 0..10_000 {
                if walked.load(Ordering::SeqCst) {
                    break;
                }
                fixture.ok(&["warm", text(&mount), &format!("nothing{number}")]);
            }
        });
        for number in 0..1500_usize {
            let path = mount.join(format!("d{}/e{}/f{number}", number % 30, number % 3));
            let size = fs::symlink_metadata(&path).map(|metadata| metadata.len());
            // Before the other thread is waited for.
            if size.as_ref().ok() != Some(&(number as u64)) {
                walked.store(true, Ordering::SeqCst);
            }
            assert_eq!(size.expect("it has a size"), number as u64, "{}", path.display());
        }
        walked.store(true, Ordering::SeqCst);
    });
}

#[test]
fn sizes_of_a_whole_walk_are_one_question() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("served/deep");
    repos::init(&source, "sha1");
    for number in 0..400_usize {
        repos::write(&source, format!("d{}/f{number}", number % 40), vec![b'x'; number]);
    }
    repos::commit_all(&source, "deep");
    git_out(&source, &["config", "transfer.advertiseObjectInfo", "true"]);
    let server = GitDaemon::serve(&fixture.path("served"));
    let proxy = Proxy::to(server.port());
    let mount = fixture.mount(&git_url(proxy.port(), "deep"), "m");
    proxy.set_rtt(Duration::from_millis(40));
    let walk = |directory: &Path| {
        for name in names(directory).expect("it lists") {
            fs::symlink_metadata(directory.join(name)).expect("it has a size");
        }
    };
    for number in 0..40 {
        walk(&mount.join(format!("d{number}")));
    }
    assert!(fixture.metric(REQUESTS) <= 2, "{} requests for sizes", fixture.metric(REQUESTS));
    assert_eq!(fixture.metric(OBJECTS), 0, "contents are not fetched for sizes");
}
