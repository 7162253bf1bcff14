//! Repositories made with real git, servers for them, and a network that fails.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use larder::git::remote::{ConnectOptions, GitConnection, GitRemote};
use larder::git::url::RepoUrl;
use larder::hydrate::remote::{LargeSink, RemoteError, Sink};

/// A directory with a repository in it, and what a client would have in its environment.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub bare: PathBuf,
    pub commit: ObjectId,
    pub blobs: BTreeMap<String, ObjectId>,
}

/// Runs git in `at`, away from the user's configuration.
pub fn git(at: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(at)
        .args(arguments)
        .env_clear()
        .envs(environment(at))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_DATE"), "1700000000 +0000")))
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// An environment of which the tests know everything.
pub fn environment(home: &Path) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let home = home.to_str().expect("temporary paths are UTF-8");
    let path = std::env::var("PATH").expect("there is a PATH");
    let mut all = vec![own("HOME", home), own("PATH", &path), own("GIT_CONFIG_NOSYSTEM", "1")];
    for who in ["AUTHOR", "COMMITTER"] {
        all.push(own(&format!("GIT_{who}_NAME"), "Test"));
        all.push(own(&format!("GIT_{who}_EMAIL"), "test@example.com"));
    }
    all
}

impl Fixture {
    pub fn new() -> Self {
        Self::with_format("sha1")
    }

    /// A bare repository `x.git` with two commits, nested directories, deltas and one large file.
    pub fn with_format(format: &str) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let work = directory.path().join("work");
        std::fs::create_dir(&work).expect("fresh directory");
        git(&work, &["init", "-q", "-b", "main", &format!("--object-format={format}")]);
        for number in 0..60 {
            let folder = work.join(format!("d{}/e{}", number % 5, number % 3));
            std::fs::create_dir_all(&folder).expect("fresh directory");
            let lines: Vec<_> = (0..400).map(|line| format!("line {line} of {}", (line * number) % 7)).collect();
            let text = lines.join("\n");
            std::fs::write(folder.join(format!("f{number}.txt")), text).expect("fresh file");
        }
        std::fs::write(work.join("large.bin"), noise(9 << 20)).expect("fresh file");
        std::fs::write(work.join("empty"), "").expect("fresh file");
        git(&work, &["add", "."]);
        git(&work, &["commit", "-qm", "first"]);
        std::fs::write(work.join("d0/e0/f0.txt"), "changed\n").expect("writable");
        git(&work, &["commit", "-qam", "second"]);
        git(&work, &["tag", "-am", "annotated", "v1"]);
        git(&work, &["branch", "other", "HEAD~1"]);
        git(directory.path(), &["clone", "-q", "--bare", "work", "x.git"]);
        let bare = directory.path().join("x.git");
        git(&bare, &["repack", "-adfq"]);
        for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "transfer.advertiseObjectInfo"] {
            git(&bare, &["config", setting, "true"]);
        }
        let commit = id(&git(&bare, &["rev-parse", "main"]));
        let listed = git(&bare, &["ls-tree", "-r", "main"]);
        let entry = |line: &str| {
            let (meta, name) = line.split_once('\t')?;
            Some((name.to_owned(), id(meta.split(' ').nth(2)?)))
        };
        let blobs = listed.lines().filter_map(entry).collect();
        Self { directory, bare, commit, blobs }
    }

    pub fn options(&self) -> ConnectOptions {
        ConnectOptions {
            timeout: Duration::from_secs(20),
            environment: environment(self.directory.path()),
            ..ConnectOptions::default()
        }
    }

    /// A repository `many.git` of `count` tiny blobs; their ids.
    pub fn many(&self, count: usize) -> Vec<ObjectId> {
        let root = self.directory.path();
        git(root, &["init", "-q", "--bare", "-b", "main", "many.git"]);
        let mut stream = String::from("commit refs/heads/main\ncommitter T <t> 1 +0000\ndata 0\n\n");
        for number in 0..count {
            let content = format!("number {number}\n");
            let folder = number % 97;
            let entry = format!("M 644 inline {folder}/{number}\ndata {}\n{content}", content.len());
            stream.push_str(&entry);
        }
        let script = root.join("stream");
        std::fs::write(&script, stream).expect("fresh file");
        let input = std::fs::File::open(&script).expect("just written");
        let mut import = Command::new("git");
        import.arg("-C").arg(root.join("many.git")).args(["fast-import", "--quiet"]).stdin(input);
        assert!(import.envs(environment(root)).status().expect("git is installed").success());
        let listed = git(root, &["-C", "many.git", "ls-tree", "-r", "--object-only", "main"]);
        listed.lines().map(id).collect()
    }

    pub fn wants(&self) -> Vec<ObjectId> {
        let mut wants: Vec<_> = self.blobs.values().copied().collect();
        wants.sort_unstable();
        wants.dedup();
        wants
    }

    /// The object as git itself has it.
    pub fn content(&self, id: ObjectId, kind: Kind) -> Vec<u8> {
        let output = Command::new("git")
            .current_dir(&self.bare)
            .args(["cat-file", &kind.to_string(), &id.to_string()])
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{id} is not a {kind}");
        output.stdout
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}

pub fn id(hex: &str) -> ObjectId {
    ObjectId::from_hex(hex.trim().as_bytes()).expect("git prints ids")
}

pub fn remote(url: impl AsRef<std::ffi::OsStr>, options: ConnectOptions) -> GitRemote {
    GitRemote::new(RepoUrl::parse(url).expect("an address"), options)
}

pub fn open(url: impl AsRef<std::ffi::OsStr>, options: ConnectOptions) -> Result<GitConnection, RemoteError> {
    remote(url, options).open()
}

/// Keeps what it is given, having checked it.
#[derive(Default)]
pub struct Memory(pub BTreeMap<ObjectId, (Kind, Vec<u8>)>);

impl Memory {
    fn keep(&mut self, id: ObjectId, kind: Kind, data: Vec<u8>) {
        let computed = gix::objs::compute_hash(id.kind(), kind, &data).expect("no attack");
        assert_eq!(computed, id, "an object was handed on under a wrong id");
        assert!(self.0.insert(id, (kind, data)).is_none(), "{id} came twice");
    }
}

impl Sink for Memory {
    fn object(&mut self, id: ObjectId, kind: Kind, data: Bytes) -> Result<(), RemoteError> {
        self.keep(id, kind, data.to_vec());
        Ok(())
    }

    fn large(&mut self, raw_size: u64) -> Result<Box<dyn LargeSink + '_>, RemoteError> {
        Ok(Box::new(Large { memory: self, data: Vec::new(), raw_size }))
    }
}

struct Large<'a> {
    memory: &'a mut Memory,
    data: Vec<u8>,
    raw_size: u64,
}

impl Write for Large<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.data.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LargeSink for Large<'_> {
    fn finish(self: Box<Self>, id: ObjectId) -> Result<(), RemoteError> {
        assert_eq!(self.data.len() as u64, self.raw_size);
        self.memory.keep(id, Kind::Blob, self.data);
        Ok(())
    }
}

/// A git daemon on a port of its own, ended when dropped.
pub struct Daemon {
    child: Child,
    pub port: u16,
}

impl Daemon {
    pub fn start(base: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let core = Command::new("git").arg("--exec-path").output().expect("git is installed").stdout;
        let program = Path::new(String::from_utf8_lossy(&core).trim()).join("git-daemon");
        let child = Command::new(program)
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", base.display()))
            .arg(base)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", base)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon is installed");
        let daemon = Self { child, port };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("git daemon did not come up");
    }

    pub fn url(&self, path: &str) -> String {
        format!("git://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the network does to bytes on their way to the client, at a position.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Cut(usize),
    Stall(usize),
    Flip(usize),
}

/// A proxy that strikes every connection with one fault; its port.
pub fn faulty(target: u16, fault: Fault) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
            let (mut up_in, mut up_out) = (client.try_clone().expect("fd"), server.try_clone().expect("fd"));
            std::thread::spawn(move || {
                let _ = io::copy(&mut up_in, &mut up_out);
                let _ = up_out.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || carry(server, client, fault));
        }
    });
    port
}

fn carry(mut server: TcpStream, mut client: TcpStream, fault: Fault) {
    let mut buffer = [0; 16 << 10];
    let mut at = 0;
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        let end = at + length;
        let strikes = |position: usize| (at..end).contains(&position).then(|| position - at);
        match fault {
            Fault::Flip(position) => {
                if let Some(place) = strikes(position) {
                    buffer[place] ^= 1;
                }
            }
            Fault::Cut(position) | Fault::Stall(position) => {
                if let Some(place) = strikes(position) {
                    let _ = client.write_all(&buffer[..place]);
                    if matches!(fault, Fault::Stall(_)) {
                        std::thread::sleep(Duration::from_mins(1));
                    }
                    break;
                }
            }
        }
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
        at = end;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// A web server in front of `git http-backend`. The first part of the path says how it behaves:
/// `open`, `auth` (me:secret), `header` (X-Token: t), `forbidden`, `busy`, `limited`, `closed`, `broken`,
/// `web`, `dumb`, `moved` (to `open`), `away` (to `open` on another name of this machine), `loop`.
pub struct Web {
    pub port: u16,
    /// Request lines, with the value of the Authorization header.
    pub seen: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl Web {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let web = Self { port, seen: Arc::default(), connections: Arc::default() };
        let (root, seen, connections) = (root.to_owned(), Arc::clone(&web.seen), Arc::clone(&web.connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                *connections.lock().expect("no panic") += 1;
                let (root, seen) = (root.clone(), Arc::clone(&seen));
                std::thread::spawn(move || serve(&client, &root, &seen));
            }
        });
        web
    }

    pub fn url(&self, behaviour: &str) -> String {
        format!("http://127.0.0.1:{}/{behaviour}/x.git", self.port)
    }
}

fn serve(client: &TcpStream, root: &Path, seen: &Mutex<Vec<String>>) {
    client.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(client);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let authorization = headers.get("authorization").cloned().unwrap_or_default();
        seen.lock().expect("no panic").push(format!("{} {authorization}", line.trim_end()));
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let answer = answer(method, target, &headers, &body, root);
        if (&*client).write_all(&answer).is_err() {
            return;
        }
    }
}

fn answer(method: &str, target: &str, headers: &BTreeMap<String, String>, body: &[u8], root: &Path) -> Vec<u8> {
    let plain = |status: &str, extra: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nContent-Type: text/html\r\n{extra}\r\nhi").into_bytes()
    };
    let (behaviour, rest) = target.trim_start_matches('/').split_once('/').unwrap_or((target, ""));
    let sent = |name: &str| headers.get(name).map_or("", String::as_str);
    match behaviour {
        // me:secret
        "auth" if sent("authorization") != "Basic bWU6c2VjcmV0" => {
            return plain("401 Unauthorized", "WWW-Authenticate: Basic realm=\"test\"\r\n");
        }
        "header" if sent("x-token") != "t" => return plain("403 Forbidden", ""),
        "forbidden" => return plain("403 Forbidden", ""),
        "busy" => return plain("503 Service Unavailable", "Retry-After: 7\r\n"),
        "limited" => return plain("429 Too Many Requests", "Retry-After: 1\r\n"),
        "closed" => return plain("503 Service Unavailable", ""),
        "broken" => return plain("500 Internal Server Error", ""),
        "web" => return plain("200 OK", ""),
        "dumb" => return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Type: text/plain\r\n\r\n".to_vec(),
        "moved" => return plain("302 Found", &format!("Location: /open/{rest}\r\n")),
        "away" => {
            let port = sent("host").rsplit(':').next().unwrap_or("");
            return plain("302 Found", &format!("Location: http://localhost:{port}/open/{rest}\r\n"));
        }
        "loop" => return plain("301 Moved Permanently", &format!("Location: /loop/{rest}\r\n")),
        _ => {}
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", sent("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", sent("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git http-backend is installed");
    let mut input = child.stdin.take().expect("piped");
    let body = body.to_vec();
    let feed = std::thread::spawn(move || drop(input.write_all(&body)));
    let output = child.wait_with_output().expect("it ends").stdout;
    feed.join().expect("no panic");
    let split = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&output[..split]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let content = &output[(split + 4).min(output.len())..];
    let head =
        head.lines().filter(|line| !line.starts_with("Status:")).fold(String::new(), |all, line| all + line + "\r\n");
    let mut answer = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n", content.len()).into_bytes();
    answer.extend_from_slice(content);
    answer
}
