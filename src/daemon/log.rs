//! The daemon's log: a file that is rotated by size, in lines for people or as JSON.
//!
//! Spans say what an event belongs to: a workspace, a commit, an object. With the cargo feature `otlp` they are exported too.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use rolling_file::{BasicRollingFileAppender, RollingConditionBasic};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::otlp;
use crate::config::{Log, LogFormat, Settings};

/// Whether this program can export spans.
pub const EXPORTS: bool = cfg!(feature = "otlp");

/// What is said where it cannot.
pub const NO_EXPORT: &str = "this larder was built without the cargo feature otlp";

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

/// Sends `tracing` to `path`, rotated as `settings` say; in the foreground to stderr as well. What is returned exports spans,
/// and sends the last of them when it is closed.
pub fn init(path: &Path, settings: &Settings, foreground: bool) -> io::Result<otlp::Export> {
    let log = &settings.log;
    let to_file = lines(log, Mutex::new(Flushing(file(path, log)?)))?;
    let to_stderr = if foreground { Some(lines(log, io::stderr)?) } else { None };
    let (export, to_collector, complaint) = otlp::start(settings);
    let registry = tracing_subscriber::registry();
    #[cfg(feature = "tokio-console")]
    // Listens where `tokio-console` looks by default, or at TOKIO_CONSOLE_BIND; the filter is not for it.
    let registry = registry.with(console_subscriber::spawn());
    // Fails only when a subscriber is set already, as in tests that run two daemons in one process.
    let _ = registry.with(to_collector).with(to_file).with(to_stderr).try_init();
    if let Some(complaint) = complaint {
        tracing::warn!("spans are not exported: {complaint}");
    }
    Ok(export)
}

fn file(path: &Path, log: &Log) -> io::Result<BasicRollingFileAppender> {
    let rotation = RollingConditionBasic::new().max_size(log.max_bytes);
    BasicRollingFileAppender::new(path, rotation, log.files.saturating_sub(1)).map_err(io::Error::other)
}

/// What writes lines to `writer` as `log` says.
fn lines<S, W>(log: &Log, writer: W) -> io::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter =
        EnvFilter::try_new(format!("warn,fuser=error,larder={}", log.level.as_str())).map_err(io::Error::other)?;
    let layer = fmt::layer().with_ansi(false).with_writer(writer);
    Ok(match log.format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    })
}
