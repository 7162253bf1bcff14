//! Servers on loopback: `git daemon`, HTTP(S) around `git http-backend`, and an `ssh` that goes nowhere.
//!
//! Owns their processes: each runs in a process group of its own, which is
//! killed when the handle is dropped, together with what it started.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{COMMAND_LIMIT, eventually, git_out, git_program, run, text, wait_for};

const HTTP_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/http_server.py");

/// A child with everything it started.
struct Group(Child);

impl Group {
    fn spawn(command: &mut Command) -> Self {
        Self(
            command
                .process_group(0)
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        )
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = wait_for(&mut self.0, Duration::from_secs(5));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    listener.local_addr().expect("bound").port()
}

/// `git daemon` over every repository in a directory.
pub struct GitDaemon {
    port: u16,
    group: Group,
}

impl GitDaemon {
    pub fn serve(base: &Path) -> Self {
        // Another process may take the port between asking and using: then the daemon ends, and the next port is tried.
        (0..5).find_map(|_| Self::serve_at(base, free_port())).expect("git daemon starts")
    }

    /// Serves at this port, unless somebody else does.
    pub fn serve_at(base: &Path, port: u16) -> Option<Self> {
        // Not through `git`, which would stay between the daemon and whoever waits for its end.
        let program = Path::new(&git_out(base, &["--exec-path"])).join("git-daemon");
        let mut command = git_program(&program);
        command.args(["--listen=127.0.0.1", "--export-all", "--reuseaddr", "--log-destination=none"]);
        // Every mount keeps its connections; with the 32 of the default, later ones are reset.
        command.arg("--max-connections=0");
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", base.display())).arg(base);
        let mut group = Group::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Self { port, group });
            }
            if wait_for(&mut group.0, Duration::from_millis(10)).is_some() {
                break;
            }
        }
        None
    }

    /// Stops it and all who answer for it: connections are taken, and nothing is heard.
    pub fn stop(&self) {
        self.group.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.group.signal(Signal::CONT);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, repository: &str) -> String {
        git_url(self.port, repository)
    }
}

/// A `git://` address on loopback, of a server or of a proxy before it.
pub fn git_url(port: u16, repository: &str) -> String {
    format!("git://127.0.0.1:{port}/{repository}")
}

/// What the HTTP server demands and gets wrong.
#[derive(Default)]
pub struct HttpOptions {
    /// Refuse with 401 whoever does not bring these.
    pub login: Option<(String, String)>,
    /// Refuse with 403 whoever does not bring this header.
    pub header: Option<(String, String)>,
    /// Answer that many requests with 503 first.
    pub fail_first: u32,
    /// Speak TLS with a certificate of [`HttpServer::authority`].
    pub tls: bool,
}

/// `git http-backend` behind a small server.
pub struct HttpServer {
    port: u16,
    tls: bool,
    log: PathBuf,
    authority: PathBuf,
    _group: Group,
}

impl HttpServer {
    /// Serves every repository in `base`; keeps its own files in `state`.
    pub fn serve(base: &Path, state: &Path, options: &HttpOptions) -> Self {
        fs::create_dir_all(state).expect("the fixture is writable");
        let log = state.join("requests.log");
        let mut command = Command::new("python3");
        command.arg(HTTP_SERVER).arg("--base").arg(base).arg("--log").arg(&log);
        command.arg("--fail-first").arg(options.fail_first.to_string());
        if let Some((user, password)) = &options.login {
            command.args(["--user", user, "--password", password]);
        }
        if let Some((name, value)) = &options.header {
            command.args(["--header", name, value]);
        }
        let authority = state.join("ca.pem");
        if options.tls {
            make_certificates(state);
            command.arg("--certificate").arg(state.join("server.pem")).arg("--key").arg(state.join("server.key"));
        }
        let errors = File::create(state.join("server.err")).expect("the fixture is writable");
        let mut group = Group::spawn(command.stdout(Stdio::piped()).stderr(errors));
        let mut line = String::new();
        BufReader::new(group.0.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("a pipe reads");
        let port = line.trim().parse().unwrap_or_else(|_| {
            panic!("http server: {}", fs::read_to_string(state.join("server.err")).unwrap_or_default())
        });
        Self { port, tls: options.tls, log, authority, _group: group }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, repository: &str) -> String {
        self.url_with("", repository)
    }

    /// With something before the host: `user:password@`.
    pub fn url_with(&self, before_host: &str, repository: &str) -> String {
        let (scheme, host) = if self.tls { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{before_host}{host}:{}/{repository}", self.port)
    }

    /// The certificate authority to trust.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// One line a request: method, target, status, `authorized` or `anonymous`.
    pub fn requests(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// An authority of our own and a certificate for localhost that it signed.
fn make_certificates(dir: &Path) {
    let extensions = dir.join("extensions");
    fs::write(&extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").expect("writable");
    let at = |name: &str| text(&dir.join(name)).to_owned();
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(args);
        run(command, COMMAND_LIMIT).success();
    };
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let (authority, authority_key) = (at("ca.pem"), at("ca.key"));
    let mut args = vec!["req", "-x509", "-days", "2", "-subj", "/CN=larder test authority"];
    args.extend(new_key);
    args.extend(["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", &authority_key, "-out", &authority]);
    openssl(&args);
    let (key, request, certificate) = (at("server.key"), at("server.csr"), at("server.pem"));
    let mut args = vec!["req", "-subj", "/CN=localhost"];
    args.extend(new_key);
    args.extend(["-keyout", &key, "-out", &request]);
    openssl(&args);
    let mut args = vec!["x509", "-req", "-days", "2", "-CAcreateserial", "-extfile", text(&extensions)];
    args.extend(["-in", &request, "-CA", &authority, "-CAkey", &authority_key, "-out", &certificate]);
    openssl(&args);
}

/// A program named `ssh` that runs the remote command here and writes down its arguments.
pub struct FakeSsh {
    program: PathBuf,
    log: PathBuf,
}

impl FakeSsh {
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("the fixture is writable");
        let (program, log) = (dir.join("ssh"), dir.join("ssh.log"));
        let script = format!(
            r#"#!/bin/sh
printf '%s\n' "$*" >>'{log}'
[ "$1" = -G ] && exit 0
while :; do case $1 in
  -[bcDEeFIiJLlmOopQRSWw]) shift 2 ;;
  -*) shift ;;
  *) break ;;
esac; done
case $1 in *refused*) echo "Permission denied (publickey)." >&2; exit 255 ;; esac
shift
exec sh -c "$*"
"#,
            log = log.display()
        );
        fs::write(&program, script).expect("the fixture is writable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the fixture is writable");
        Self { program, log }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// One line a call: all its arguments.
    pub fn calls(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// A port that accepts connections and never says a word.
pub struct Silent {
    listener: TcpListener,
}

impl Silent {
    pub fn new() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports") }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }
}

/// Waits until a server's log satisfies `seen`.
#[track_caller]
pub fn eventually_logged(server: &HttpServer, what: &str, seen: impl Fn(&[String]) -> bool) {
    eventually(Duration::from_secs(10), what, || seen(&server.requests()));
}
