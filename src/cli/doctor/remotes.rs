//! What each remote says: whether it can be reached, takes our credentials, and what it can.
//!
//! A few are asked at a time, each for a few seconds. Nothing prompts: the terminal, askpass programs and ssh's questions
//! are switched off. No credential is shown: addresses come without, and of credential helpers only names are told.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use super::finding::{Finding, quoted};
use crate::cli::environment;
use crate::config::quantity::human_bytes;
use crate::config::{Config, Settings};
use crate::daemon::facts::health::{HealthRepository, HealthWorkspace};
use crate::daemon::reach::{self, Able, Asked, Reaching, Unable};
use crate::hydrate::FailureKind;

/// Longest wait for one remote.
const LIMIT: Duration = Duration::from_secs(5);
/// Remotes asked at once.
const AT_ONCE: usize = 16;

/// What must not ask the user anything.
const NO_QUESTIONS: [(&str, &str); 5] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    // Empty is not unset: Git then asks no program, `core.askPass` neither.
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", ""),
    ("SSH_ASKPASS_REQUIRE", "never"),
    ("GCM_INTERACTIVE", "never"),
];

/// Asks the remotes of `repositories`, until `until` at most.
pub(super) fn findings(
    repositories: &[HealthRepository],
    workspaces: &[HealthWorkspace],
    config: &Config,
    until: Instant,
) -> Vec<Finding> {
    let environment = environment();
    let mut found = Vec::new();
    let mut waiting: VecDeque<(&HealthRepository, Reaching, Instant)> = VecDeque::new();
    let mut settle = |(repository, reaching, limit): (&HealthRepository, Reaching, Instant)| {
        found.push(judge(repository, reaching.wait(limit), &config.settings));
    };
    let mut quiet = Vec::new();
    for repository in repositories {
        if let Some(finding) = not_asked(repository, workspaces) {
            quiet.push(finding);
            continue;
        }
        if waiting.len() == AT_ONCE
            && let Some(first) = waiting.pop_front()
        {
            settle(first);
        }
        let now = Instant::now();
        if now >= until {
            let fix = "ask for one alone: `larder doctor TARGET`";
            let detail = "not asked: the others took too long";
            quiet.push(Finding::warning(name(repository), detail, fix));
            continue;
        }
        let asked = Asked {
            url: repository.url.clone(),
            gitdir: repository.gitdir.clone(),
            environment: environment.clone(),
            probe: repository.probe.map(|id| id.0),
        };
        waiting.push_back((repository, reach::begin(asked, LIMIT), (now + LIMIT).min(until)));
    }
    waiting.into_iter().for_each(&mut settle);
    found.extend(quiet);
    found
}

/// What travels to the daemon, without whatever could ask the user.
fn environment() -> Vec<(String, String)> {
    let mut variables = environment::for_daemon();
    variables.retain(|(name, _)| !NO_QUESTIONS.iter().any(|(silenced, _)| silenced == name));
    variables.extend(NO_QUESTIONS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables
}

fn name(repository: &HealthRepository) -> String {
    format!("remote {}", reach::shown(&repository.url))
}

/// The finding for a remote that nobody wants to be asked.
fn not_asked(repository: &HealthRepository, workspaces: &[HealthWorkspace]) -> Option<Finding> {
    let mut of = workspaces.iter().filter(|row| row.repository == repository.id).peekable();
    of.peek()?;
    of.all(|row| row.stays_offline)
        .then(|| Finding::ok(name(repository), "not asked: its workspaces are mounted with --offline"))
}

fn judge(repository: &HealthRepository, answer: Option<Result<Able, Unable>>, settings: &Settings) -> Finding {
    match answer {
        Some(Ok(able)) => judge_able(repository, &able, settings),
        Some(Err(unable)) => judge_unable(repository, &unable),
        None => {
            let detail = format!("it does not answer within {} s; what is cached can be read", LIMIT.as_secs());
            Finding::warning(name(repository), detail, "check the network and the repository's host")
        }
    }
}

fn judge_able(repository: &HealthRepository, able: &Able, settings: &Settings) -> Finding {
    let name = name(repository);
    let mut parts = vec![format!("answers in {} ms", able.took.as_millis()), "protocol v2".to_owned()];
    if let Some(source) = able.credentials {
        parts.push(format!("takes the credentials of {source}"));
    }
    parts.push(if able.filter { "filter" } else { "no filter" }.to_owned());
    let sizes = if able.object_info { "object-info" } else { "no object-info (sizes are learned by fetching files)" };
    parts.push(sizes.to_owned());
    parts.push(match &able.any_object {
        Some(Ok(())) => "gives any object".to_owned(),
        Some(Err(why)) => format!("does not give an object by its id ({why})"),
        None => "nothing was cached to ask it for by id".to_owned(),
    });
    let detail = parts.join(", ");
    if !able.filter {
        let most = human_bytes(settings.git.max_unfiltered_bytes);
        let fix = format!(
            "on the server, in that repository: without filters each mount fetches all files of its commit, up to {most} \
             (`larder mount --allow-full` for more)"
        );
        return Finding::warning(name, detail, fix).run("git config uploadpack.allowFilter true");
    }
    if matches!(able.any_object, Some(Err(_))) {
        let fix = "on the server, in that repository: files that are not cached can't be fetched; if its history was \
                   rewritten, `larder refresh` and switch to a commit that it still has";
        return Finding::warning(name, detail, fix).run("git config uploadpack.allowAnySHA1InWant true");
    }
    Finding::ok(name, detail)
}

fn judge_unable(repository: &HealthRepository, unable: &Unable) -> Finding {
    let name = name(repository);
    let address = reach::shown(&repository.url);
    let message = &unable.message;
    match unable.kind {
        FailureKind::Offline | FailureKind::Transient => Finding::warning(
            name,
            format!("{message}; what is cached can be read"),
            "check the network and the repository's host",
        ),
        FailureKind::Denied => judge_denied(name, &address, unable),
        FailureKind::Missing => {
            let fix = "check the address; some hosts say so too when the credentials may not see it";
            Finding::error(name, message, fix).run(format!("git ls-remote {}", quoted(Path::new(&address))))
        }
        FailureKind::Unsupported if message.contains("not installed") => {
            Finding::error(name, message, "install that program")
        }
        FailureKind::Unsupported => Finding::error(name, message, "the server has to be updated, or asked another way"),
        FailureKind::Corrupt => {
            Finding::error(name, message, "look what answers at that address: a proxy, a login page?")
        }
        FailureKind::Local => Finding::error(name, message, "see the message"),
    }
}

/// Credentials, host keys, certificates.
fn judge_denied(name: String, address: &str, unable: &Unable) -> Finding {
    let message = &unable.message;
    let lower = message.to_ascii_lowercase();
    let word = quoted(Path::new(address));
    if lower.contains("dubious ownership") {
        let fix = "if you trust who owns that repository, say so";
        return Finding::error(name, message, fix).run(format!("git config --global --add safe.directory {word}"));
    }
    if lower.contains("certificate") {
        let fix = "have Git trust the authority that signed it: `http.https://HOST.sslCAInfo`";
        return Finding::error(name, message, fix);
    }
    if lower.contains("host key") {
        let fix = "connect once by hand, and compare the key";
        let command = host_of(address).map(|host| format!("ssh -T {}", quoted(Path::new(host))));
        return Finding { command, ..Finding::error(name, message, fix) };
    }
    if reach::is_over_ssh(address) {
        return Finding::error(name, message, "give ssh's agent the key that the host knows").run("ssh-add");
    }
    if unable.helpers.is_empty() && address.starts_with("http") {
        let fix = "no credential helper is configured: name one, then let it ask you once with `git ls-remote`";
        let command = format!("git config --global credential.helper cache && git ls-remote {word}");
        return Finding::error(name, message, fix).run(command);
    }
    let mut helpers = unable.helpers.clone();
    helpers.dedup();
    let asked = if helpers.is_empty() { String::new() } else { format!("; helpers asked: {}", helpers.join(", ")) };
    let detail = format!("{message}{asked}");
    Finding::error(name, detail, "renew the credentials; Git asks for them and gives them to the helper")
        .run(format!("git ls-remote {word}"))
}

/// `user@host` of an ssh address.
fn host_of(address: &str) -> Option<&str> {
    match address.split_once("://") {
        Some((_, rest)) => rest.split(['/', ':']).next(),
        None => address.split_once(':').map(|(host, _)| host),
    }
}

#[cfg(test)]
mod tests {
    use FailureKind as K;

    use super::super::finding::Severity;
    use super::*;

    fn repository(url: &str) -> HealthRepository {
        HealthRepository { id: 1, url: url.to_owned(), gitdir: "/g".into(), external_gitdir: false, probe: None }
    }

    fn able() -> Able {
        Able { filter: true, object_info: true, any_object: Some(Ok(())), credentials: None, took: Duration::ZERO }
    }

    #[test]
    fn what_a_remote_lacks_is_told_with_what_it_means() {
        let of = |able: Able| judge(&repository("https://h/x"), Some(Ok(able)), &Settings::default());
        assert_eq!(of(able()).severity, Severity::Ok);
        assert_eq!(of(Able { object_info: false, ..able() }).severity, Severity::Ok);
        let unfiltered = of(Able { filter: false, ..able() });
        assert_eq!(unfiltered.severity, Severity::Warning);
        assert!(unfiltered.fix.expect("one").contains("256 MiB"));
        let refusing = of(Able { any_object: Some(Err("not our ref".to_owned())), ..able() });
        assert!(refusing.severity == Severity::Warning && refusing.detail.contains("not our ref"));
    }

    #[test]
    fn each_failure_has_its_cure() {
        let of = |url: &str, kind, message: &str, helpers: &[&str]| {
            let helpers = helpers.iter().map(|name| (*name).to_owned()).collect();
            judge(
                &repository(url),
                Some(Err(Unable { kind, message: message.to_owned(), helpers })),
                &Settings::default(),
            )
        };
        let command = |finding: Finding| finding.command.unwrap_or_default();
        assert_eq!(of("git://h/x", K::Offline, "no route", &[]).severity, Severity::Warning);
        let asking = of("https://h/x", K::Denied, "asks for credentials and no helper has any", &[]);
        assert!(command(asking).starts_with("git config --global credential.helper cache && git ls-remote"));
        let refused = of("https://h/x", K::Denied, "refused the credentials", &["store", "store"]);
        assert!(refused.detail.ends_with("helpers asked: store"), "{}", refused.detail);
        assert_eq!(command(refused), "git ls-remote https://h/x");
        assert_eq!(command(of("g@h:x", K::Denied, "Host key verification failed.", &[])), "ssh -T g@h");
        assert_eq!(command(of("ssh://g@h:22/x", K::Denied, "Permission denied (publickey).", &[])), "ssh-add");
        assert_eq!(of("https://h/x", K::Missing, "there is none", &[]).severity, Severity::Error);
    }

    #[test]
    fn nothing_can_ask_the_user() {
        let variables = environment();
        for (name, value) in NO_QUESTIONS {
            let found: Vec<_> = variables.iter().filter(|(known, _)| known == name).collect();
            assert_eq!(found, [&(name.to_owned(), value.to_owned())]);
        }
    }
}
