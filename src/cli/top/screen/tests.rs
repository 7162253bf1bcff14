//! Screens as text, in every size that matters.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;

use super::super::asker::Sample;
use super::*;
use crate::daemon::facts::PathText;
use crate::daemon::facts::top::{Bucket, Counters, QueueLengths, WorkspaceRow};
use crate::daemon::facts::why::{DirectoryRow, ProcessRow, Sums};
use crate::daemon::protocol::{Wait, WaitKind};
use crate::store::WorkspaceState;

fn path(text: &str) -> PathText {
    PathText::from(text.as_bytes())
}

/// What a daemon of a busy machine might say after `uptime_ms`: 10 MiB a second, and names that try to steer.
pub(in crate::cli::top) fn report(uptime_ms: u64) -> TopReport {
    let seconds = uptime_ms / 1_000;
    let sums = |bytes| Sums { fetches: 1, objects: bytes / 100, bytes, waited_for: 1, waited_us: 1_500 };
    let wait = |waited_ms, path: &str| Wait {
        kind: WaitKind::Object,
        workspace: "first".into(),
        oid: "ab".repeat(20),
        path: path.into(),
        waited_ms,
        behind: "batch 12 on connection 1".into(),
        retries: 0,
    };
    let workspace = |name: &str, offline| WorkspaceRow {
        workspace: name.into(),
        state: WorkspaceState::Ready,
        offline,
        hits: 3_400 * seconds,
        misses: 12 * seconds,
        fetched: sums(5_000_000),
    };
    let process = |name: &str, bytes| ProcessRow {
        process: name.into(),
        pids: 1,
        sums: sums(bytes),
        workspace: "second".into(),
        mostly_in: path("src"),
    };
    let directory = |name: &str, bytes| DirectoryRow {
        workspace: "second".into(),
        directory: path(name),
        sums: sums(bytes),
        process: "indexer".into(),
    };
    TopReport {
        time: "2026-11-21T17:00:00.123Z".into(),
        version: "0.1.0".into(),
        pid: 4_711,
        home: "/home/someone/.local/share/larder".into(),
        uptime_ms,
        counters: Counters {
            hits: 3_400 * seconds,
            misses: 12 * seconds,
            remote_requests: 3 * seconds,
            remote_objects: 120 * seconds,
            remote_bytes: (10 << 20) * seconds,
            ..Counters::default()
        },
        reads: vec![
            Bucket { below_us: Some(320), count: 3_000 * seconds },
            Bucket { below_us: Some(1_280), count: 400 * seconds },
        ],
        hydrations: vec![Bucket { below_us: Some(40_960), count: 12 * seconds }],
        queue: QueueLengths {
            read: 3,
            sibling: 200,
            bulk: 32_768,
            inflight: 256,
            bulk_inflight: 8_192,
            unsaved_bytes: 12 << 20,
            ..QueueLengths::default()
        },
        waiters: 2,
        waits: vec![wait(2_300, "/m/first/src/a\x1b[2Jb.c"), wait(40, "/m/first/漢字/深い/パス.rs")],
        warms: vec![WarmRow {
            workspace: "first".into(),
            path: "/m/first: src".into(),
            running_ms: 65_000,
            objects: 34_000,
            bytes: 120 << 20,
            total_objects: Some(78_000),
        }],
        workspaces: vec![workspace("first", false), workspace("second", true)],
        window_ms: 60_000,
        recording: true,
        fetched: sums(9_000_000),
        processes: vec![process("indexer", 8_000_000), process("cat", 1_000_000)],
        directories: vec![directory("src/deep/down", 8_000_000), directory("", 1_000_000)],
    }
}

fn state() -> State {
    let mut state = State::new(Duration::from_secs(1), None, true);
    for second in 1..=30 {
        state.take(Sample::Report(Box::new(report(second * 1_000))));
    }
    state
}

/// What a terminal of that size shows.
fn painted(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    terminal.draw(|frame| draw(frame, state)).expect("memory");
    terminal.backend().to_string()
}

fn assert_shows(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn a_wide_screen_shows_everything() {
    let text = painted(&state(), 120, 40);
    assert_shows(
        &text,
        &[
            "17:00:00Z  up 30s  every 1s  /home/someone/.local/share/larder",
            "10 MiB/s  120 objects/s  3.0 requests/s",
            "12 misses/s  3,400 hits/s  99.6%",
            "300 MiB in 3,600 objects",
            "read    320us 1.3ms 1.3ms 1.3ms",
            "fetch    41ms  41ms  41ms  41ms",
            "bulk        32,768 ██",
            "sibling        200 █",
            "43%  34,000/78,000 objects, 120 MiB, 1m 5s  /m/first: src",
            "▶ Waiters (2)",
            "2.3s object first          batch 12 on connection 1",
            "src/a\\x1b[2Jb.c",
            "Workspaces (2)",
            "ready, offline",
            "Processes, last 1m 0s",
            "BYTES▼",
            "7.6 MiB   80,000     1ms indexer",
            "d:/src/deep/down",
        ],
    );
}

#[test]
fn an_ordinary_screen_shows_every_table() {
    let text = painted(&state(), 80, 24);
    assert_shows(
        &text,
        &["10 MiB/s", "320us", "sibling", "43%", "Waiters (2)", "Workspaces (2)", "indexer", "second:/src", "q quit"],
    );
}

#[test]
fn a_small_screen_shows_the_focused_table() {
    let mut state = state();
    let text = painted(&state, 20, 5);
    assert_shows(&text, &["larder top", "10 MiB/s", "Waiters (2)", "2.3s"]);
    state.key(KeyCode::Tab.into());
    assert_shows(&painted(&state, 20, 5), &["Workspaces (2)", "first"]);
    state.key(KeyCode::Down.into());
    assert_shows(&painted(&state, 20, 5), &["second"]);
}

#[test]
fn no_size_is_too_small() {
    let mut state = state();
    for helping in [false, true] {
        state.helping = helping;
        for (width, height) in [(1, 1), (1, 50), (200, 1), (2, 3), (59, 20), (60, 20), (77, 21), (78, 22), (300, 100)] {
            painted(&state, width, height);
        }
    }
    let empty = State::new(Duration::from_secs(1), None, true);
    for (width, height) in [(1, 1), (20, 5), (80, 24), (120, 40)] {
        painted(&empty, width, height);
    }
}

#[test]
fn it_says_when_there_is_no_daemon_or_no_answer() {
    let mut state = state();
    state.take(Sample::Absent);
    let text = painted(&state, 80, 24);
    assert_shows(&text, &["no daemon runs; waiting for one"]);
    assert!(!text.contains("MiB/s"), "{text}");
    state.take(Sample::Report(Box::new(report(1_000))));
    assert_shows(
        &painted(&state, 80, 24),
        &["up 1s", "nobody"].map(|part| if part == "nobody" { "Waiters" } else { part }),
    );
    state.key(KeyCode::Char('p').into());
    state.key(KeyCode::Char('?').into());
    assert_shows(&painted(&state, 80, 24), &["paused", "sort it the other way round", "p go on"]);
}

#[test]
fn without_colours_there_are_none() {
    let mut state = state();
    state.colours = false;
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("memory");
    terminal.draw(|frame| draw(frame, &state)).expect("memory");
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)), "the selected row is still seen");
}

#[test]
fn text_fits_its_cells_exactly() {
    for (text, width, is_number, head, fitted) in [
        ("abc", 5, false, "KIND", "abc  "),
        ("12", 5, true, "BYTES", "   12"),
        ("abcdef", 4, false, "KIND", "abc…"),
        ("abcdef", 4, false, "PATH", "…def"),
        ("漢字漢", 4, false, "KIND", "漢… "),
        ("漢字漢", 4, false, "PATH", "…漢 "),
        ("abc", 0, false, "PATH", ""),
        ("abc", 1, false, "PATH", "…"),
    ] {
        assert_eq!(fit(text, width, is_number, head), fitted);
    }
}
