//! The daemon's log: a file that is rotated by size.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use rolling_file::{BasicRollingFileAppender, RollingConditionBasic};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Log;

/// The appender keeps lines back; what a daemon logged before it was killed is wanted most of all.
struct Flushing(BasicRollingFileAppender);

impl io::Write for Flushing {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(line)?;
        self.0.flush()?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Sends `tracing` to `path`, rotated as `settings` say; in the foreground to stderr as well.
pub fn init(path: &Path, settings: &Log, foreground: bool) -> io::Result<()> {
    let filter =
        EnvFilter::try_new(format!("warn,fuser=error,larder={}", settings.level.as_str())).map_err(io::Error::other)?;
    let rotation = RollingConditionBasic::new().max_size(settings.max_bytes);
    let file =
        BasicRollingFileAppender::new(path, rotation, settings.files.saturating_sub(1)).map_err(io::Error::other)?;
    let to_file = fmt::layer().with_ansi(false).with_writer(Mutex::new(Flushing(file)));
    let to_stderr = foreground.then(|| fmt::layer().with_ansi(false).with_writer(io::stderr));
    let registry = tracing_subscriber::registry();
    #[cfg(feature = "tokio-console")]
    // Listens where `tokio-console` looks by default, or at TOKIO_CONSOLE_BIND; the filter is not for it.
    let registry = registry.with(console_subscriber::spawn());
    let (to_file, to_stderr) = (to_file.with_filter(filter.clone()), to_stderr.with_filter(filter));
    // Fails only when a subscriber is set already, as in tests that run two daemons in one process.
    let _ = registry.with(to_file).with(to_stderr).try_init();
    Ok(())
}
