//! `larder report`: its data are true, names do no harm, and a real browser draws it.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::repos::{self, commit_all, noise, write};
use common::servers::GitDaemon;
use common::{COMMAND_LIMIT, Fixture, exit, first, read, run, text, within};
use serde_json::Value;

/// Files in `plain/`, which are read, and in `warm/`, which are only warmed.
const FILES: usize = 12;

/// Longest that a browser may take for a page.
const BROWSER_LIMIT: Duration = Duration::from_secs(30);

/// Names that want to be something else than names.
fn nasty() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"quote\"and'tick"[..],
        b"<script>document.documentElement.dataset.broken=1<",
        b"<!-- comment -->",
        b"<img src=x onerror=\"document.documentElement.dataset.broken=1\">",
        b"&amp;{{data}}",
        b"line\nbreak\ttab\x01\x1b[2J",
        b"not utf-8 \xff\xfe\xe2\x82",
        "emoji \u{1f980} 漢字".as_bytes(),
        "turned \u{202e}cod.exe".as_bytes(),
        "separated\u{2028}lines".as_bytes(),
        b"__proto__",
        b"-dash",
        &[b'n'; 255],
    ]
    .map(<[u8]>::to_vec)
    .into();
    names.sort();
    names
}

struct Scene {
    fixture: Fixture,
    mount: PathBuf,
    /// Each file's path, state and size.
    truth: BTreeMap<Vec<u8>, (char, i64)>,
    _server: GitDaemon,
}

impl Scene {
    fn new() -> Option<Self> {
        let fixture = Fixture::with_settings("[git]\nhistory = \"off\"\n[hydrate]\nprefetch = \"off\"")?;
        let source = fixture.path("remote/project");
        repos::init(&source, "sha1");
        let mut truth = BTreeMap::new();
        let mut put = |path: &[u8], state: char, bytes: Vec<u8>| {
            truth.insert(path.to_vec(), (state, i64::try_from(bytes.len()).expect("small")));
            write(&source, OsStr::from_bytes(path), bytes);
        };
        for number in 0..FILES {
            put(format!("plain/deep/f{number}.rs").as_bytes(), 'h', noise(number as u64, 3_000 + 900 * number));
            put(format!("warm/f{number}.c").as_bytes(), 'c', noise(100 + number as u64, 2_000 + 500 * number));
            put(format!("rest/d{number}/untouched.bin").as_bytes(), 'u', noise(200 + number as u64, 5_000));
        }
        for (number, name) in nasty().into_iter().enumerate() {
            put(&[b"nasty/", &name[..]].concat(), 'u', noise(300 + number as u64, 1_500));
        }
        // A directory whose name ends the script, with a slash as all have that do.
        put(b"<script>alert(1)</script>/x", 'u', noise(400, 800));
        put(b"edit/changed.txt", 'o', noise(500, 1_000));
        put(b"edit/stays.txt", 'u', noise(501, 1_000));
        put(b"edit/gone.txt", 'u', noise(502, 1_000));
        put(b"edit/moved.txt", 'u', noise(503, 1_234));
        put(b"empty", 'u', Vec::new());
        symlink("edit/stays.txt", source.join("link")).expect("made");
        commit_all(&source, "first");
        repos::advertise_sizes(&source);
        let server = GitDaemon::serve(&fixture.path("remote"));
        let mount = fixture.mount(&server.url("project"), "mount");
        let mut scene = Self { fixture, mount, truth, _server: server };
        scene.use_it();
        Some(scene)
    }

    /// Reads, warms, changes.
    fn use_it(&mut self) {
        self.fixture.ok(&["warm", text(&self.mount), "warm"]);
        for number in 0..FILES {
            read(&self.mount.join(format!("plain/deep/f{number}.rs"))).expect("read");
        }
        let mount = self.mount.clone();
        within(COMMAND_LIMIT, "changing", move || {
            fs::read_link(mount.join("link")).expect("read");
            fs::write(mount.join("edit/changed.txt"), "what I made of it").expect("written");
            fs::write(mount.join("edit/new.txt"), vec![b'n'; 70_000]).expect("written");
            fs::remove_file(mount.join("edit/gone.txt")).expect("removed");
            fs::rename(mount.join("edit/moved.txt"), mount.join("edit/renamed.txt")).expect("renamed");
        });
        self.truth.insert(b"link".to_vec(), ('h', 14));
        self.truth.insert(b"edit/changed.txt".to_vec(), ('o', 17));
        self.truth.insert(b"edit/new.txt".to_vec(), ('o', 70_000));
        self.truth.remove(&b"edit/gone.txt"[..]);
        self.truth.remove(&b"edit/moved.txt"[..]);
        self.truth.insert(b"edit/renamed.txt".to_vec(), ('o', 1_234));
    }

    fn report(&self, name: &str) -> (PathBuf, String) {
        let file = self.fixture.path(name);
        self.fixture.ok(&["report", text(&self.mount), "-o", text(&file)]);
        let page = fs::read_to_string(&file).expect("written, and UTF-8");
        (file, page)
    }
}

/// The data that the script reads.
fn data(page: &str) -> Value {
    let (_, after) = page.split_once("<script type=\"application/json\" id=\"data\">").expect("there are data");
    let (json, _) = after.split_once("</script>").expect("they end");
    serde_json::from_str(json).expect("JSON")
}

/// Paths, states and sizes that the data say.
fn told(data: &Value) -> BTreeMap<Vec<u8>, (char, i64)> {
    let bytes = |value: &Value| -> Vec<u8> {
        let numbers = value.as_array().expect("bytes").iter();
        numbers.map(|byte| u8::try_from(byte.as_u64().expect("a number")).expect("a byte")).collect()
    };
    let mut paths: Vec<Vec<u8>> = Vec::new();
    let mut found = BTreeMap::new();
    for directory in data["dirs"].as_array().expect("directories") {
        let own = if directory["b"].is_null() {
            directory["n"].as_str().expect("a name").as_bytes().to_vec()
        } else {
            bytes(&directory["b"])
        };
        let path = match directory["p"].as_u64() {
            None => Vec::new(),
            Some(parent) => [&paths[usize::try_from(parent).expect("small")][..], &own, b"/"].concat(),
        };
        paths.push(path.clone());
        let states: Vec<char> = directory["t"].as_str().unwrap_or_default().chars().collect();
        let names = directory["f"].as_str().unwrap_or_default().split('/');
        for (at, name) in names.enumerate().take(states.len()) {
            let odd = &directory["x"][at.to_string()];
            let name = if odd.is_null() { name.as_bytes().to_vec() } else { bytes(odd) };
            let size = directory["s"][at].as_i64().expect("a size");
            assert!(found.insert([&path[..], &name].concat(), (states[at], size)).is_none(), "twice: {name:?}");
        }
    }
    found
}

#[track_caller]
fn assert_told(found: &BTreeMap<Vec<u8>, (char, i64)>, wanted: &BTreeMap<Vec<u8>, (char, i64)>) {
    for (path, wanted) in wanted {
        assert_eq!(found.get(path), Some(wanted), "{}", String::from_utf8_lossy(path));
    }
    let more: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[expect(clippy::print_stderr, reason = "who skips a test is told")]
/// Runs a headless Chromium on `file`; `None` if there is to be none.
fn chromium(fixture: &Fixture, file: &Path, size: &str, arguments: &[&str]) -> Option<String> {
    if std::env::var_os("LARDER_TEST_NO_BROWSER").is_some_and(|value| value == "1") {
        eprintln!("no browser test: LARDER_TEST_NO_BROWSER=1");
        return None;
    }
    let profile = tempfile::tempdir_in(fixture.path("")).expect("the fixture is writable");
    let mut command = Command::new("chromium");
    // Nothing but the page: no network, no first run, no updates.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--hide-scrollbars", "--force-device-scale-factor=1", "--virtual-time-budget=4000"]);
    command.arg(format!("--user-data-dir={}", text(profile.path()))).arg(format!("--window-size={size}"));
    command.args(arguments).arg(format!("file://{}", text(file)));
    command.env_remove("LARDER_HOME").env("HOME", profile.path());
    Some(run(command, BROWSER_LIMIT).success().out())
}

/// An attribute that the script set on the page.
fn attribute<'a>(dom: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = dom.split_once("<head").expect("a page");
    head.split_once(&format!(" {name}=\""))?.1.split('"').next()
}

/// How many pixels of a picture have each colour.
fn colours(file: &Path) -> (u32, u32, BTreeMap<[u8; 3], u32>) {
    let decoder = png::Decoder::new(BufReader::new(File::open(file).expect("a picture")));
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("small")];
    let info = reader.next_frame(&mut pixels).expect("a frame");
    assert_eq!(info.bit_depth, png::BitDepth::Eight);
    let mut found = BTreeMap::new();
    for pixel in pixels[..info.buffer_size()].chunks_exact(info.color_type.samples()) {
        *found.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
    }
    (info.width, info.height, found)
}

/// A colour of the style sheet's light scheme.
fn colour(page: &str, name: &str) -> [u8; 3] {
    let (_, after) = page.split_once(&format!("--{name}: #")).expect("a colour");
    let number = u32::from_str_radix(&after[..6], 16).expect("hexadecimal");
    [16, 8, 0].map(|shift| u8::try_from(number >> shift & 255).expect("a byte"))
}

#[test]
fn the_page_is_true_harmless_and_drawn_by_a_browser() {
    let Some(scene) = Scene::new() else { return };
    let (file, page) = scene.report("report.html");
    assert_told(&told(&data(&page)), &scene.truth);
    harmless(&page);
    numbers_without_a_script(&page);

    let Some(dom) = chromium(&scene.fixture, &file, "1280,1600", &["--dump-dom"]) else { return };
    assert_eq!(attribute(&dom, "data-ready"), Some("true"), "{}", &dom[..dom.len().min(400)]);
    assert_eq!(attribute(&dom, "data-errors"), Some("0"), "{:?}", attribute(&dom, "data-error"));
    assert_eq!(attribute(&dom, "data-broken"), None, "a name became a part of the page");
    let cells: usize = attribute(&dom, "data-cells").and_then(|cells| cells.parse().ok()).expect("counted");
    assert!(cells > scene.truth.len() / 2, "{cells} cells for {} files", scene.truth.len());
    // The script's table names what the root has; its buttons are there.
    let (_, rows) = dom.split_once("<tbody id=\"rows\">").expect("a table");
    let (rows, _) = rows.split_once("</tbody>").expect("it ends");
    assert!(rows.contains("<button type=\"button\">plain/</button>"), "{rows}");
    assert!(rows.contains("&lt;script&gt;alert(1)&lt;/"), "{rows}");

    used(&scene, &page);
    for (size, width, height) in [("1280,1600", 1280, 1600), ("420,900", 420, 900)] {
        let picture = scene.fixture.path(format!("{width}.png"));
        let argument = format!("--screenshot={}", text(&picture));
        chromium(&scene.fixture, &file, size, &[&argument]);
        let (wide, high, found) = colours(&picture);
        // A window can't be narrower than the browser has it.
        assert!(wide >= width && high >= height - 200, "{wide} by {high}");
        assert!(found.len() > 50, "only {} colours: nothing is drawn", found.len());
        for name in ["hydrated", "untouched", "cached", "overlay"] {
            let pixels = found.get(&colour(&page, name)).copied().unwrap_or(0);
            assert!(pixels > 1_000, "{pixels} pixels are {name} at {size}");
        }
    }
}

/// What a user does, as events; what the page made of each in an attribute.
const USER: &str = r"
const root = document.documentElement, canvas = document.getElementById('canvas'), tip = document.getElementById('tip');
const key = function (name) { canvas.dispatchEvent(new KeyboardEvent('keydown', { key: name })); };
const seen = {};
const note = function (what) {
  seen[what] = { shown: root.dataset.shown, tip: !tip.hidden && tip.textContent, live: document.getElementById('live').textContent,
    inside: document.getElementById('inside').textContent, cells: Number(root.dataset.cells), rows: document.getElementById('rows').rows.length };
  root.dataset.seen = JSON.stringify(seen);
};
note('begin');
const box = canvas.getBoundingClientRect();
canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + 40, clientY: box.top + box.height - 30 })); note('hover');
key('ArrowRight'); key('ArrowDown'); note('arrows');
key('Enter'); note('enter');
key('Backspace'); note('back');
document.querySelector('#rows button').click(); note('table');
document.querySelector('#crumbs .up').click(); note('up');
document.querySelector('[data-area=files]').click(); note('files');
document.querySelectorAll('.legend .key')[3].click(); note('only');
";

/// Drives the page as a user would. Its policy lets no other script run, so it is taken out for that.
fn used(scene: &Scene, page: &str) {
    let (before, after) = page.split_once("<meta http-equiv=").expect("a policy");
    let (_, after) = after.split_once('\n').expect("it ends");
    let driven = format!("{before}{after}").replace("</body>", &format!("<script>{USER}</script></body>"));
    let file = scene.fixture.path("driven.html");
    fs::write(&file, driven).expect("written");
    let Some(dom) = chromium(&scene.fixture, &file, "1280,1600", &["--dump-dom"]) else { return };
    assert_eq!(attribute(&dom, "data-errors"), Some("0"), "{:?}", attribute(&dom, "data-error"));
    let seen = attribute(&dom, "data-seen").expect("driven").replace("&quot;", "\"").replace("&lt;", "<");
    let seen: Value = serde_json::from_str(&seen.replace("&gt;", ">").replace("&amp;", "&")).expect("JSON");
    assert_eq!((&seen["begin"]["shown"], &seen["begin"]["tip"]), (&"0".into(), &false.into()), "{seen:#}");
    assert!(seen["hover"]["tip"].as_str().is_some_and(|tip| tip.contains("B, ")), "{seen:#}");
    assert!(seen["arrows"]["live"].as_str().is_some_and(|live| live.contains('/')), "read aloud: {seen:#}");
    assert_ne!(seen["enter"]["shown"], "0", "{seen:#}");
    assert_eq!(seen["back"]["shown"].as_str().map(|shown| shown != seen["enter"]["shown"]), Some(true), "{seen:#}");
    assert_ne!(seen["table"]["inside"], seen["up"]["inside"], "{seen:#}");
    assert!(seen["files"]["cells"].as_u64() > Some(10) && seen["only"]["cells"] == seen["files"]["cells"], "{seen:#}");

    // The policy itself: the same script does nothing in the page as it is written.
    let file = scene.fixture.path("kept.html");
    fs::write(&file, page.replace("</body>", &format!("<script>{USER}</script></body>"))).expect("written");
    let dom = chromium(&scene.fixture, &file, "1280,1600", &["--dump-dom"]).expect("there is a browser");
    assert_eq!((attribute(&dom, "data-ready"), attribute(&dom, "data-seen")), (Some("true"), None));
}

/// Nothing that is loaded, no name that is more than a name.
#[track_caller]
fn harmless(page: &str) {
    assert!(page.starts_with("<!doctype html>\n<!-- larder report -->\n"));
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"));
    let (markup, data) = page.split_once("<script type=\"application/json\"").expect("data");
    for bad in [" src=\"", " href=", "@import", "url(", "<link", "http:", "https:", "<script", "<img", "onerror=\""] {
        let markup = markup.replace("url()", "");
        assert!(!markup.contains(bad), "{bad:?} in the markup");
    }
    assert_eq!(data.matches("</script").count(), 2, "a name ends a script");
    assert!(!page.contains('\u{202e}') || !markup.contains('\u{202e}'), "a name turns what stands beside it");
    assert!(!page.contains("<!-- comment"), "a name is a comment");
}

/// What a browser without scripts shows.
#[track_caller]
fn numbers_without_a_script(page: &str) {
    for wanted in [
        "<p class=\"what\">Read</p><p class=\"big\">13</p>",
        "<p class=\"what\">Cached</p><p class=\"big\">12</p>",
        "<p class=\"what\">Changed</p><p class=\"big\">3</p>",
        "<bdi>plain</bdi>/",
        "larder warm",
        "<span class=\"tag\">shown</span>",
        "today",
        "aria-label=\"Warmed: ",
    ] {
        assert!(page.contains(wanted), "{wanted:?} is missing");
    }
}

#[test]
fn it_is_told_without_a_daemon_while_warming_and_from_a_directory_on() {
    let Some(scene) = Scene::new() else { return };
    // Begun in a directory: all is there, and the map begins in it.
    let page = scene.fixture.ok(&["report", text(&scene.mount.join("plain/deep")), "-o", "-"]).out();
    let start = usize::try_from(data(&page)["start"].as_u64().expect("a number")).expect("small");
    assert_eq!(data(&page)["dirs"][start]["n"], "deep");
    assert_told(&told(&data(&page)), &scene.truth);
    // While a warm runs, in the background.
    scene.fixture.ok(&["warm", text(&scene.mount), "--background"]);
    let (_, page) = scene.report("warming.html");
    assert_eq!(told(&data(&page)).len(), scene.truth.len());

    scene.fixture.ok(&["unmount", text(&scene.mount)]);
    scene.fixture.ok(&["shutdown"]);
    let page = scene.fixture.ok(&["report", "mount", "-o", "-"]).out();
    let found = told(&data(&page));
    assert!(page.contains("The workspace is not mounted"));
    assert!(scene.fixture.daemons().is_empty(), "reading starts none");
    // The commit's files, and what was read is remembered.
    assert_eq!(found.get(&b"plain/deep/f3.rs"[..]).map(|told| told.0), Some('h'));
    assert!(found.contains_key(&b"edit/gone.txt"[..]) && !found.contains_key(&b"edit/new.txt"[..]));
    assert!(found.values().all(|(state, _)| *state != 'o'));
}

fn report<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["report", "mount"], arguments].concat()
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let Some(fixture) = Fixture::new() else { return };
    let source = fixture.path("remote/project");
    repos::small(&source);
    let server = GitDaemon::serve(&fixture.path("remote"));
    let mount = fixture.mount(&server.url("project"), "mount");
    let file = fixture.path("r.html");
    let told = first(fixture.json(&report(&["-o", text(&file)])));
    assert_eq!(told["files"].as_u64(), Some(4), "{told}");
    assert_eq!(told["bytes"].as_u64(), Some(fs::metadata(&file).expect("written").len()));
    assert_eq!(told["file"], text(&file));
    assert!(told["seconds"].as_f64().is_some());
    // An older report is replaced, through a link too, which stays one.
    let link = fixture.path("link.html");
    symlink(&file, &link).expect("made");
    fixture.ok(&report(&["-o", text(&link)]));
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    // Anything else is not, unless it is wanted.
    fs::write(&file, "my notes").expect("written");
    fixture.fails(&[exit::REFUSED], &report(&["-o", text(&file)]));
    assert_eq!(fs::read(&file).expect("there"), b"my notes");
    fixture.ok(&report(&["-o", text(&file), "--force"]));
    assert!(fs::read(&file).expect("there").starts_with(b"<!doctype html>"));
    fixture.fails(&[exit::REFUSED], &report(&["-o", "/dev/null", "--force"]));
    fixture.fails(&[exit::REFUSED], &report(&["-o", text(&mount)]));
    fixture.fails(&[1], &report(&["-o", text(&fixture.path("nowhere/r.html"))]));
    fixture.fails(&[exit::USAGE], &report(&["-o", "-", "--json"]));
    fixture.fails(&[exit::USAGE], &["report", "mount"]);
    fixture.fails(&[exit::NOT_FOUND], &["report", "nothing", "-o", text(&fixture.path("n.html"))]);
    fixture.fails(&[exit::NOT_FOUND], &["report", "/", "-o", text(&fixture.path("n.html"))]);
    let left: Vec<_> = fs::read_dir(fixture.path("")).expect("there").filter_map(Result::ok).collect();
    assert!(left.iter().all(|entry| !entry.file_name().as_bytes().starts_with(b".larder-report")), "{left:?}");
    assert!(!fixture.path("n.html").exists());
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o111, 0);
}
