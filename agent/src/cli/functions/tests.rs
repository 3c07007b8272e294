use std::fs;

use http::{HeaderMap, HeaderValue};

use super::super::samples::golden;
use super::deploy::Deploy;
use super::invoke::{Told, payload};
use super::*;
use crate::api::invocations::{FUNCTION_ERROR, ORIGIN, SANDBOX, VERSION};
use crate::functions::logs::{Output, Piece};
use crate::functions::store::Deployed;
use crate::functions::view::PoolView;
use crate::functions::{Definition, Source};

fn view() -> FunctionView {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    FunctionView {
        deployed: Deployed {
            name: "shop".parse().expect("a name"),
            version: 7,
            deployed_unix_ms: 1_770_120_184_512,
            definition: Definition {
                root: vec![Source::Path("/srv/shop".into())],
                ..Definition::default()
            },
            layers: vec![digest.try_into().expect("a digest")],
            command: vec!["/bootstrap".into(), "--port=\u{1b}[31m".into()],
            environment: [("KEY".to_owned(), "secret".to_owned())].into(),
            directory: "/".into(),
        },
        pool: PoolView {
            target: 3,
            ready: 2,
            busy: 1,
            hits: 12_300,
            queued: 36,
            misses: 9,
            refused: 4,
            back_off_ms: 9_400,
            failures: 2,
            ..PoolView::default()
        },
        invocations: 12_345,
        answered: 12_340,
        starts: 9,
        refused_calls: [("bpf".to_owned(), 3)].into(),
    }
}

#[test]
fn functions_are_shown_without_secrets_and_without_harm() {
    let all = [view()];
    let text = format!(
        "{}\n{}",
        show::list(&all, &Terminal::PLAIN),
        show::show(&all[0], &Terminal::PLAIN)
    );
    assert!(
        !text.contains("secret") && !text.contains('\u{1b}'),
        "{text:?}"
    );
    golden("functions.txt", &text);
    assert!(show::list(&[], &Terminal::PLAIN).contains("hearth fn deploy"));
}

#[test]
fn a_request_is_shown_by_what_took_how_long() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (VERSION, "7"),
        (ORIGIN, "parked"),
        (SANDBOX, "8476a536e9f441e8"),
        (
            "server-timing",
            "wait;start=0.000;dur=0.012, claim;start=0.012;dur=0.450, \
             root;start=0.462;dur=0.700, init;start=1.162;dur=30.500, \
             invoke;start=31.700;dur=1.250",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let name = "shop".parse().expect("a name");
    let told = Told::of(&name, &headers, b"{\"x\":1}");
    assert_eq!(told.answer, serde_json::json!({"x": 1}));
    assert_eq!(told.steps[3].length_ns, 30_500_000);
    let ascii = Terminal {
        width: 80,
        unicode: false,
        ..Terminal::PLAIN
    };
    let text = steps::waterfall(&told, &Terminal::PLAIN) + "\n" + &steps::waterfall(&told, &ascii);
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    golden("invocation.txt", &text);
    headers.insert(FUNCTION_ERROR, HeaderValue::from_static("My.Error"));
    let failed = Told::of(&name, &headers, b"no JSON");
    assert_eq!(failed.error.as_deref(), Some("My.Error"));
    assert_eq!(failed.answer, "no JSON");
    // Nothing is known of what took how long.
    let bare = Told::of(&name, &HeaderMap::new(), b"");
    assert!(steps::waterfall(&bare, &Terminal::PLAIN).contains("no sandbox"));
}

#[test]
fn what_a_function_writes_cannot_act_on_the_terminal() {
    let piece = Piece {
        number: 1,
        unix_ms: 1_770_120_184_512,
        sandbox: "8476a536e9f441e8".parse().expect("an id"),
        stream: Output::Stderr,
        text: "one\n\u{1b}[2Jtwo\n".into(),
        lost_bytes: 9,
    };
    assert_eq!(
        logs::lines(&piece, &Terminal::PLAIN),
        "12:03:04.512Z 8476a536 hearth: 9 bytes were lost before this\n\
         12:03:04.512Z 8476a536 ! one\n\
         12:03:04.512Z 8476a536 ! \\u{1b}[2Jtwo\n"
    );
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    deploy: Deploy,
}

fn definition(arguments: &[&str]) -> anyhow::Result<Definition> {
    let line = ["deploy", "shop"].iter().chain(arguments);
    <Line as clap::Parser>::try_parse_from(line)?
        .deploy
        .definition()
}

#[test]
fn a_definition_is_what_the_command_line_says_over_what_the_file_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().canonicalize().expect("a folder");
    fs::create_dir(folder.join("shop")).expect("a folder");
    std::os::unix::fs::symlink("shop", folder.join("link")).expect("a link");
    let file = folder.join("shop.toml");
    fs::write(
        &file,
        "memory = \"64MiB\"\npids = 7\ncommand = [\"/old\"]\n",
    )
    .expect("a file");
    let link = folder.join("link");
    let image = format!("oci:{}:v1", link.display());
    let read = definition(&[
        "--file",
        file.to_str().expect("UTF-8"),
        "--root",
        link.to_str().expect("UTF-8"),
        "--root",
        &image,
        "--memory",
        "256MiB",
        "--env",
        "A=b=c",
        "--set",
        "max_instances=3",
        "--set",
        "writable=8MiB",
        "--set",
        "syscalls=[\"io_uring_setup\"]",
        "--",
        "/new",
        "--x",
    ])
    .expect("a definition");
    // By the path that leads there without links.
    let shop = folder.join("shop");
    assert_eq!(read.root[0], Source::Path(shop.clone()));
    assert_eq!(
        read.root[1].to_string(),
        format!("oci:{}:v1", shop.display())
    );
    assert_eq!(read.command, ["/new", "--x"]);
    assert_eq!((read.memory.0, read.writable.0), (256 << 20, 8 << 20));
    assert_eq!((read.pids, read.max_instances), (7, 3));
    assert_eq!(read.environment["A"], "b=c");
    assert_eq!(read.syscalls, ["io_uring_setup"]);
    for (arguments, words) in [
        (&["--root", "/nowhere/at/all"][..], "/nowhere/at/all"),
        (&["--set", "pids"], "write KEY=VALUE"),
        (&["--env", "A"], "write NAME=VALUE"),
        (&["--memory", "4"], "`memory`: \"4\" has no unit"),
        (&["--set", "memori=1MiB"], "unknown field `memori`"),
    ] {
        let error = definition(arguments).expect_err(words);
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

#[test]
fn a_payload_is_text_or_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("event.json");
    fs::write(&file, "{\"a\":1}").expect("a file");
    let at = format!("@{}", file.display());
    assert_eq!(payload(Some(&at)).expect("it"), b"{\"a\":1}");
    assert_eq!(payload(Some("[1]")).expect("it"), b"[1]");
    // It does not read on for ever.
    let error = payload(Some("@/dev/zero")).expect_err("no end");
    assert!(
        format!("{error:#}").contains("at most 6291456 bytes"),
        "{error:#}"
    );
    let error = payload(Some("@/nowhere")).expect_err("nothing there");
    assert!(format!("{error:#}").contains("/nowhere"), "{error:#}");
}
