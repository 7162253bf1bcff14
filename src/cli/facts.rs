//! Asks what only reads: the daemon that runs, or with none running the store itself.

use super::{resting, target};
use crate::config::Config;
use crate::daemon::client::{Client, unexpected};
use crate::daemon::facts::{self, Finding, Question, Sources};
use crate::daemon::protocol::{Answer, Failure, FailureClass, Request};
use crate::store::Store;

/// Who answers.
pub(super) enum Desk {
    /// The daemon.
    Daemon(Client),
    /// The store, open for reading: none runs.
    Store(Box<Config>, Store),
}

impl Desk {
    /// Finds out who answers for the cache of `config`. Never starts a daemon.
    pub(super) fn open(config: Config) -> Result<Self, Failure> {
        if let Some(client) = Client::running(&config)? {
            return Ok(Self::Daemon(client));
        }
        if !config.store_path.exists() {
            let message = format!("cannot find a cache: there is no {}", config.store_path.display());
            return Err(Failure::new(FailureClass::NotFound, message)
                .hint("`larder mount REPO DIR` makes one; LARDER_HOME says where it is"));
        }
        let store = resting::open(&config)?;
        Ok(Self::Store(Box::new(config), store))
    }

    /// The same for a question about `target`: where there is no cache there is no such workspace.
    pub(super) fn of(config: Config, target: &str) -> Result<Self, Failure> {
        if !config.store_path.exists() && Client::running(&config)?.is_none() {
            return Err(target::unknown(target));
        }
        Self::open(config)
    }

    /// Asks `question`.
    pub(super) fn ask(&self, question: Question) -> Result<Finding, Failure> {
        match self {
            Self::Daemon(client) => match client.ask(Request::Facts(question))? {
                Answer::Facts(finding) => Ok(finding),
                other => Err(unexpected(&other)),
            },
            Self::Store(config, store) => facts::answer(&Sources { store, config, daemon: None }, &question),
        }
    }

    /// Asks about `target` under each of its meanings until one is known.
    pub(super) fn ask_about(&self, target: &str, question: impl Fn(String) -> Question) -> Result<Finding, Failure> {
        let mut first = None;
        for meaning in target::meanings(target)? {
            match self.ask(question(meaning)) {
                Err(failure) if failure.class == FailureClass::NotFound => {
                    first.get_or_insert(failure);
                }
                other => return other,
            }
        }
        Err(first.unwrap_or_else(|| target::unknown(target)))
    }
}

/// What is said to an answer that belongs to another question.
pub(super) fn mixed_up() -> Failure {
    Failure::new(FailureClass::Other, "cannot use the daemon's answer: it belongs to another question")
        .hint("stop it with `larder shutdown`; the next command starts one that fits")
}
