//! Where Larder keeps things and how it behaves, resolved once from the environment and one optional file.
//!
//! Owns the names of files and directories and the settings with their
//! defaults. It refuses unknown keys, values out of range and directories of
//! another user. Invariant: with `LARDER_HOME` set everything that is written
//! lies below it, so two homes never touch each other.

mod endpoint;
mod error;
mod keys;
pub mod pattern;
pub mod quantity;
mod read;
mod settings;
#[cfg(test)]
mod tests;
mod value;
mod words;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use endpoint::{Endpoint, Listen};
pub use error::ConfigError;
pub use keys::{Key, keys};
pub use read::{Origin, Reading, nearest};
pub use settings::{Cache, Fuse, Gc, Generations, Git, Hydrate, Log, MetricsSettings, Network, Otlp, Settings, Store};
pub use words::{HistoryMode, LogFormat, LogLevel, Prefetch};

/// Mode of every directory Larder makes: nobody else's business.
const DIRECTORY_MODE: u32 = 0o700;

/// Paths and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Everything that lasts: the store, the repositories' gitdirs, the log.
    pub home: PathBuf,
    /// Everything that lives as long as the daemon.
    pub run_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Held while a daemon is being started.
    pub start_lock: PathBuf,
    /// The redb file.
    pub store_path: PathBuf,
    /// The daemon's log.
    pub log_path: PathBuf,
    /// The settings file, whether it exists or not.
    pub config_file: PathBuf,
    /// The settings.
    pub settings: Settings,
}

/// What paths are resolved from; a value, so that tests need no environment of their own.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
    uid: u32,
    /// `/run/user`.
    run_user: &'a Path,
}

impl Config {
    /// Resolves paths from the environment and reads the settings file, if there is one.
    pub fn load() -> Result<Self, ConfigError> {
        let mut config = Self::with_defaults()?;
        config.settings = config.reading().whole()?;
        Ok(config)
    }

    /// The settings with where each comes from, and everything that is wrong with them.
    pub fn reading(&self) -> Reading {
        Reading::of(&self.config_file, &|name| std::env::var_os(name))
    }

    /// Resolves paths from the environment; every setting has its default. For what must work with a broken file.
    pub fn with_defaults() -> Result<Self, ConfigError> {
        resolve(&Surroundings {
            variable: &|name| std::env::var_os(name),
            home: std::env::home_dir(),
            uid: rustix::process::getuid().as_raw(),
            run_user: Path::new("/run/user"),
        })
    }

    /// Makes [`Self::home`] and [`Self::run_dir`], private to this user.
    ///
    /// A directory that is too open is closed; one of another user is refused: whoever owns it could replace the socket.
    pub fn create_directories(&self) -> Result<(), ConfigError> {
        private_directory(&self.home)?;
        private_directory(&self.run_dir)
    }
}

fn resolve(from: &Surroundings<'_>) -> Result<Config, ConfigError> {
    let set = |name: &str| (from.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative paths ignored.
    let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
    let user_home = from.home.clone().filter(|path| path.is_absolute());

    let own_home = match set("LARDER_HOME") {
        Some(path) => {
            Some(std::path::absolute(&path).map_err(|source| ConfigError::Io { operation: "resolve", path, source })?)
        }
        None => None,
    };
    let home = own_home
        .clone()
        .or_else(|| absolute("XDG_DATA_HOME").map(|dir| dir.join("larder")))
        .or_else(|| user_home.as_ref().map(|dir| dir.join(".local/share/larder")))
        .ok_or(ConfigError::NoHome)?;
    let run_dir = if own_home.is_some() {
        home.join("run")
    } else if let Some(dir) = absolute("XDG_RUNTIME_DIR") {
        dir.join("larder")
    } else {
        let dir = from.run_user.join(from.uid.to_string());
        if fs::metadata(&dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == from.uid) {
            dir.join("larder")
        } else {
            home.join("run")
        }
    };
    let config_file = absolute("XDG_CONFIG_HOME")
        .or_else(|| user_home.map(|dir| dir.join(".config")))
        .unwrap_or_else(|| home.clone())
        .join("larder/config.toml");
    for path in [&home, &run_dir] {
        if path.to_str().is_none() {
            return Err(ConfigError::NotUtf8 { path: path.clone() });
        }
    }
    Ok(Config {
        socket: run_dir.join("daemon.sock"),
        start_lock: run_dir.join("start.lock"),
        store_path: home.join("store.redb"),
        log_path: home.join("daemon.log"),
        config_file,
        home,
        run_dir,
        settings: Settings::default(),
    })
}

fn private_directory(path: &Path) -> Result<(), ConfigError> {
    let wrong = |operation| move |source| ConfigError::Io { operation, path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(wrong("create"))?;
    let meta = fs::metadata(path).map_err(wrong("look at"))?;
    if meta.uid() != rustix::process::getuid().as_raw() {
        return Err(ConfigError::Foreign { path: path.to_owned(), owner: meta.uid() });
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE)).map_err(wrong("protect"))?;
    }
    Ok(())
}
