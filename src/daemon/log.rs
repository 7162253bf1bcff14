//! The daemon's log: a file that is rotated by size.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use rolling_file::{BasicRollingFileAppender, RollingConditionBasic};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Log;

/// Sends `tracing` to `path`, rotated as `settings` say; in the foreground to stderr as well.
pub fn init(path: &Path, settings: &Log, foreground: bool) -> io::Result<()> {
    let filter = EnvFilter::try_new(format!("warn,larder={}", settings.level.as_str())).map_err(io::Error::other)?;
    let rotation = RollingConditionBasic::new().max_size(settings.max_bytes);
    let file =
        BasicRollingFileAppender::new(path, rotation, settings.files.saturating_sub(1)).map_err(io::Error::other)?;
    let to_file = fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
    let to_stderr = foreground.then(|| fmt::layer().with_ansi(false).with_writer(io::stderr));
    // Fails only when a subscriber is set already, as in tests that run two daemons in one process.
    let _ = tracing_subscriber::registry().with(filter).with(to_file).with(to_stderr).try_init();
    Ok(())
}
