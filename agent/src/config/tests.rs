use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Config, ConfigError, DEFAULTS, Fault, PrintFormat, Protocol};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("hearth.toml"), |_| None)
}

fn fault(text: &str) -> Fault {
    match parse(text) {
        Err(ConfigError::Invalid(fault)) => *fault,
        other => panic!("expected a fault of {text:?}, got {other:?}"),
    }
}

#[test]
fn the_commented_defaults_are_the_defaults() {
    assert_eq!(parse(DEFAULTS).expect("valid"), Config::default());
    assert_eq!(parse("").expect("valid"), Config::default());
}

#[test]
fn every_commented_setting_is_valid_too() {
    let word = |key: &str| {
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let setting = |text: &str| {
        ["[[start]]", "[functions.shop]"].contains(&text)
            || text.split_once(" = ").is_some_and(|(key, _)| word(key))
    };
    let uncommented = DEFAULTS
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|text| setting(text))
                .unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n");
    let config = parse(&uncommented).expect("valid");
    assert!(config.otlp.endpoint.is_some() && config.otlp.spool.dir.is_some());
    assert!(config.otlp.headers_file.is_some() && config.identity.cri_socket.is_some());
    assert_eq!(config.start[0].ready, "accept".parse().ok());
}

#[test]
fn what_is_written_is_read_back() {
    let config = parse(
        "ready = \"file:/run/ready\"\n[print]\nformat = \"json\"\n[otlp]\n\
         endpoint = \"https://collector:4318/\"\n[[start]]\nexe = \"x\"\nfork_server = true\n",
    )
    .expect("valid");
    assert_eq!(config.print.format, PrintFormat::Json);
    let again = toml::to_string(&config).expect("serializes");
    assert_eq!(parse(&again).expect("valid"), config);
}

#[test]
fn a_wrong_key_is_placed_and_the_near_one_named() {
    let fault = fault("mode = \"process\"\n\n[otlp]\ntimeout = \"1s\"\nendpiont = \"x\"\n");
    assert_eq!((fault.line, fault.column), (5, 1));
    assert_eq!(fault.key, "otlp.endpiont");
    assert!(
        fault.message.contains("unknown field `endpiont`"),
        "{fault}"
    );
    assert!(
        fault.message.ends_with("did you mean `endpoint`?"),
        "{fault}"
    );
    let text = fault.to_string();
    assert!(
        text.starts_with("hearth.toml:5:1: `otlp.endpiont`: "),
        "{text}"
    );
    assert!(
        text.ends_with("5 | endpiont = \"x\"\n  | ^^^^^^^^"),
        "{text}"
    );
}

#[test]
fn a_wrong_value_names_key_value_and_remedy() {
    for (text, place, key, parts) in [
        (
            "deadline = \"5\"",
            (1, 12),
            "deadline",
            ["\"5\" has no unit", "\"10s\""],
        ),
        (
            "deadline = 5",
            (1, 12),
            "deadline",
            ["\"5\" has no unit", "ms, s, min"],
        ),
        (
            "deadline = \"0s\"",
            (1, 12),
            "deadline",
            ["longer than zero", ""],
        ),
        (
            "mode = \"proces\"",
            (1, 8),
            "mode",
            ["`proces`", "did you mean `process`?"],
        ),
        (
            "ready = \"lisen\"",
            (1, 9),
            "ready",
            ["\"lisen\" is not known", "`listen`"],
        ),
        (
            "watch_share = 5.0",
            (1, 15),
            "watch_share",
            ["5.0", "between 0.0 and 1.0"],
        ),
        (
            "[otlp.spool]\nmemory = \"4MB\"",
            (2, 10),
            "otlp.spool.memory",
            ["`MB`", "\"4MiB\"?"],
        ),
        (
            "[otlp]\nendpoint = \"c:1\"",
            (2, 12),
            "otlp.endpoint",
            ["\"c:1\"", "http://127.0.0.1"],
        ),
        (
            "[metrics]\nlisten = \"9464\"",
            (2, 10),
            "metrics.listen",
            ["\"9464\"", "or \"off\""],
        ),
        (
            "cgroups = \"yes\"",
            (1, 11),
            "cgroups",
            ["\"yes\"", "a boolean"],
        ),
    ] {
        let fault = fault(text);
        assert_eq!((fault.line, fault.column), place, "{fault}");
        assert_eq!(fault.key, key, "{fault}");
        assert!(
            parts.iter().all(|part| fault.message.contains(part)),
            "{fault}"
        );
    }
}

#[test]
fn settings_of_captures_are_held_to_what_is_safe() {
    for (text, key, parts) in [
        ("dir = \"oom\"", "dir", ["\"oom\"", "absolute path"]),
        ("dir = \"/\"", "dir", ["\"/\"", "/var/lib/hearth/oom"]),
        ("dir = \"/a/../b\"", "dir", ["/a/../b", "without `..`"]),
        ("max_captures = 0", "max_captures", ["0", "nonzero"]),
        (
            "max_bytes = \"4KiB\"",
            "max_bytes",
            ["\"4KiB\"", "\"1MiB\""],
        ),
        ("max_bytes = 4096", "max_bytes", ["no unit", "MiB"]),
        ("stack_bytes = 8192", "stack_bytes", ["8192", "up to 4096"]),
        ("stack_bytes = -1", "stack_bytes", ["-1", "u32"]),
        ("mask = \"no\"", "mask", ["\"no\"", "a boolean"]),
        ("masks = true", "masks", ["`masks`", "did you mean `mask`?"]),
    ] {
        let fault = fault(&format!("[oom]\n{text}"));
        assert_eq!(
            (fault.line, &*fault.key),
            (2, &*format!("oom.{key}")),
            "{fault}"
        );
        assert!(
            parts.iter().all(|part| fault.message.contains(part)),
            "{fault}"
        );
    }
    let config = parse("[oom]\ndir = \"/srv/oom\"\nmax_captures = 1\nmax_bytes = \"1MiB\"\n");
    let bounds = config.expect("valid").oom.bounds();
    assert_eq!((bounds.captures, bounds.bytes), (1, 1 << 20));
}

#[test]
fn a_start_rule_must_name_its_program() {
    for (text, part) in [
        ("[[start]]\nfunction = \"f\"", "missing field `exe`"),
        (
            "[[start]]\nexe = \"bin/python3\"",
            "neither a file name nor an absolute path",
        ),
        (
            "[[start]]\nexe = \"x\"\nfork_serve = true",
            "did you mean `fork_server`?",
        ),
        (
            "[[start]]\nexe = \"x\"\nready = \"lisen\"",
            "write one or more of `listen`",
        ),
    ] {
        let fault = fault(text);
        assert!(
            fault.message.contains(part) && fault.key.starts_with("start[0]"),
            "{fault}"
        );
    }
    let fault = fault("runtimes = [\"runc\", \"run*\"]");
    assert!(
        fault.message.contains("wildcard") && fault.key == "runtimes[1]",
        "{fault}"
    );
}

#[test]
fn broken_syntax_is_placed() {
    let fault = fault("mode = \"process\"\nready = \n");
    assert_eq!(fault.line, 2, "{fault}");
}

#[test]
fn the_environment_counts_where_the_file_is_silent() {
    let variable = |name: &str| {
        Some(match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => "http://env:1".to_owned(),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => "http/protobuf".to_owned(),
            "OTEL_EXPORTER_OTLP_HEADERS" => "a=1, b=2".to_owned(),
            _ => return None,
        })
    };
    let path = Path::new("hearth.toml");
    let otlp = Config::parse("", path, variable).expect("valid").otlp;
    assert_eq!(
        otlp.endpoint.map(String::from).as_deref(),
        Some("http://env:1")
    );
    assert_eq!(otlp.protocol, Protocol::Http);
    assert_eq!(otlp.headers["b"].reveal(), "2");
    let file = "[otlp]\nendpoint = \"http://file:1\"\nprotocol = \"grpc\"\nheaders = {}\n";
    let otlp = Config::parse(file, path, variable).expect("valid").otlp;
    assert_eq!(
        otlp.endpoint.map(String::from).as_deref(),
        Some("http://file:1")
    );
    assert_eq!(otlp.protocol, Protocol::Grpc);
    assert!(otlp.headers.is_empty());

    let wrong = |name: &str| (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| "udp".to_owned());
    let message = Config::parse("", path, wrong)
        .expect_err("wrong")
        .to_string();
    assert!(message.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && message.contains("http/protobuf"));
}

#[test]
fn a_secret_is_never_shown() {
    let config = parse("[otlp.headers]\nauthorization = \"hunter2\"\n").expect("valid");
    let shown = format!(
        "{config:?}{}",
        toml::to_string(&config).expect("serializes")
    );
    assert!(!shown.contains("hunter2") && shown.contains("********"));
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mode = |mode| {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("mode");
        Config::load(Some(file.path()))
    };
    assert!(mode(0o644).is_ok());
    for bad in [0o664, 0o646, 0o666] {
        let message = mode(bad).expect_err("refused").to_string();
        assert!(
            message.contains(&format!("chmod go-w {}", file.path().display())),
            "{message}"
        );
    }
    let folder = Config::load(Some(Path::new("/"))).expect_err("a folder");
    assert!(folder.to_string().contains("no file"), "{folder}");
    let missing = Config::load(Some(Path::new("/nonexistent/hearth.toml"))).expect_err("missing");
    assert!(missing.to_string().contains("/nonexistent/hearth.toml"));
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    if std::os::unix::fs::chown(file.path(), Some(65534), None).is_err() {
        return; // Only root can give a file away.
    }
    let message = Config::load(Some(file.path()))
        .expect_err("refused")
        .to_string();
    assert!(message.contains("belongs to user 65534") && message.contains("chown root"));
}

#[test]
fn what_is_near_a_limit_is_within_reason() {
    let recorder = parse("[oom.recorder]\nnear = 0.9\nmax_cgroups = 5\n");
    let settings = recorder.expect("valid").oom.recorder.settings();
    assert!((settings.near - 0.9).abs() < f64::EPSILON && settings.max_cgroups == 5);
    for (text, key, part) in [
        ("near = 1.0", "oom.recorder.near", "below 1.0"),
        ("near = 0.1", "oom.recorder.near", "from 0.3 on"),
        ("near = 80", "oom.recorder.near", "between 0.0 and 1.0"),
        ("max_cgroups = 0", "oom.recorder.max_cgroups", "nonzero"),
        (
            "max_cgroups = 99999",
            "oom.recorder.max_cgroups",
            "up to 16384",
        ),
        (
            "enable = true",
            "oom.recorder.enable",
            "did you mean `enabled`?",
        ),
    ] {
        let fault = fault(&format!("[oom.recorder]\n{text}\n"));
        assert!(fault.key == key && fault.message.contains(part), "{fault}");
    }
}

#[test]
fn functions_are_on_where_one_is_named_or_it_is_said() {
    let shop = "[functions.shop]\nroot = [\"/srv/shop\"]\ncommand = [\"/bootstrap\"]\n";
    let on = |text: &str| parse(text).expect("valid").functions.are_on();
    assert!(!on(""));
    assert!(on(shop));
    assert!(on("[functions]\nenabled = true\n"));
    assert!(!on(&format!("[functions]\nenabled = false\n{shop}")));
    let config = parse(&format!("{shop}environment = {{ KEY = \"secret\" }}\n")).expect("valid");
    let shown = toml::to_string(&config).expect("serializes");
    assert!(
        shown.contains("KEY") && !shown.contains("secret"),
        "{shown}"
    );
    let named = &config.functions.named;
    let again = parse(&shown).expect("valid").functions.named;
    assert_eq!(
        again.keys().collect::<Vec<_>>(),
        named.keys().collect::<Vec<_>>()
    );
}

#[test]
fn a_wrong_function_is_placed_and_says_what_to_write() {
    let shop = "[functions.shop]\nroot = [\"/srv/shop\"]\ncommand = [\"/bootstrap\"]\n";
    for (text, line, key, words) in [
        (
            "[functions]\napi_sockt = \"/a\"\n".to_owned(),
            2,
            "functions.api_sockt",
            "did you mean `api_socket`",
        ),
        (
            "[functions]\napi_socket = \"a\"\n".to_owned(),
            2,
            "functions.api_socket",
            "an absolute path",
        ),
        (
            "[functions.Shop]\n".to_owned(),
            1,
            "functions.Shop",
            "lowercase letters",
        ),
        (
            format!("{shop}memori = \"1MiB\"\n"),
            4,
            "functions.shop.memori",
            "did you mean `memory`",
        ),
        (
            format!("{shop}memory = \"4B\"\n"),
            1,
            "functions.shop",
            "memory = \"4\"",
        ),
        (
            format!("{shop}memory = 4\n"),
            4,
            "functions.shop.memory",
            "has no unit",
        ),
        (
            "[functions.shop]\nroot = [\"shop\"]\n".to_owned(),
            2,
            "functions.shop.root[0]",
            "write the absolute path",
        ),
    ] {
        let fault = fault(&text);
        assert_eq!((fault.line, &*fault.key), (line, key), "{fault}");
        assert!(fault.to_string().contains(words), "{fault}");
    }
}
