//! Export of spans to an OpenTelemetry collector, with the cargo feature `otlp`; without it nothing of it is compiled.
//!
//! A thread of its own sends what the daemon hands over through a bounded queue; what does not fit is dropped, so a collector
//! that is away or slow costs spans and never holds anything up. Everything that the OpenTelemetry specification lets
//! environment variables say holds; the endpoint may be in the settings too.

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Settings;

/// What hands spans over, where there is something to hand them to.
pub(super) type SpanLayer<S> = Option<Box<dyn Layer<S> + Send + Sync>>;

#[cfg(not(feature = "otlp"))]
mod export {
    use super::{LookupSpan, Settings, SpanLayer, Subscriber};

    /// Exports nothing.
    pub struct Export;

    impl Export {
        /// Nothing is left to send.
        pub fn close(self) {}
    }

    pub(crate) fn start<S>(settings: &Settings) -> (Export, SpanLayer<S>, Option<String>)
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let unable = settings.otlp.endpoint.is_some().then(|| super::super::log::NO_EXPORT.to_owned());
        (Export, None, unable)
    }
}

#[cfg(feature = "otlp")]
mod export {
    use std::time::Duration;

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::{EnvFilter, Layer};

    use super::{LookupSpan, Settings, SpanLayer, Subscriber};

    /// Longest wait at the end for the last spans to be sent.
    const FLUSH_LIMIT: Duration = Duration::from_secs(2);

    /// The variables that name a collector; the first is the one the settings stand for.
    const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

    /// Sends spans until it is closed.
    pub struct Export(Option<SdkTracerProvider>);

    impl Export {
        /// Sends what is left, for a limited time.
        pub fn close(self) {
            if let Some(provider) = self.0
                && let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT)
            {
                tracing::warn!("the last spans were not exported: {error}");
            }
        }
    }

    pub(crate) fn start<S>(settings: &Settings) -> (Export, SpanLayer<S>, Option<String>)
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let by_environment = ENDPOINTS.iter().any(|name| variable(name).is_some());
        if disabled || (settings.otlp.endpoint.is_none() && !by_environment) {
            return (Export(None), None, None);
        }
        let mut exporter = SpanExporter::builder().with_http();
        if let (Some(endpoint), false) = (&settings.otlp.endpoint, by_environment) {
            // As the specification has it for the variable.
            exporter = exporter.with_endpoint(format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')));
        }
        let exporter = match exporter.build() {
            Ok(exporter) => exporter,
            Err(error) => return (Export(None), None, Some(error.to_string())),
        };
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES")
                .is_some_and(|all| all.to_string_lossy().split(',').any(|one| one.trim().starts_with("service.name=")));
        let mut resource = Resource::builder()
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if !named {
            resource = resource.with_service_name("larder");
        }
        let provider =
            SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        // Larder's own spans: what the exporter does is not to be exported.
        let own = EnvFilter::new("off,larder=info");
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("larder")).with_filter(own).boxed();
        (Export(Some(provider)), Some(layer), None)
    }
}

pub use export::Export;
pub(super) use export::start;
