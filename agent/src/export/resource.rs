//! Who tells: the agent and its node.

use std::fs;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_semantic_conventions::attribute as semantic;

/// The agent's resource. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.
#[must_use]
pub fn resource() -> Resource {
    let uname = rustix::system::uname();
    let known = |file: &str| {
        let text = fs::read_to_string(file).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let os_name = || {
        let release = fs::read_to_string("/etc/os-release").ok()?;
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches('"').to_owned())
    };
    let text = |text: &std::ffi::CStr| Some(text.to_string_lossy().into_owned());
    let ours = [
        (semantic::SERVICE_NAME, Some("hearth".to_owned())),
        (
            semantic::SERVICE_VERSION,
            Some(env!("CARGO_PKG_VERSION").to_owned()),
        ),
        (semantic::HOST_NAME, text(uname.nodename())),
        (semantic::HOST_ID, known("/etc/machine-id")),
        (semantic::HOST_ARCH, Some(architecture().to_owned())),
        (semantic::OS_TYPE, Some("linux".to_owned())),
        (semantic::OS_VERSION, text(uname.release())),
        (semantic::OS_DESCRIPTION, os_name()),
    ];
    let ours = ours
        .into_iter()
        .filter_map(|(name, value)| Some(KeyValue::new(name, value?)));
    let mut resource = Resource::builder_empty().with_attributes(ours);
    // A later attribute wins over an earlier one.
    resource = resource.with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = std::env::var("OTEL_SERVICE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
    {
        resource = resource.with_service_name(name);
    }
    resource.build()
}

/// The semantic conventions' word for this machine.
const fn architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => std::env::consts::ARCH,
    }
}
