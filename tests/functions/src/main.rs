//! A function that does what it is told, good and bad, by the public runtime for Rust, unmodified.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

/// Requests that this process was given.
static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// What it leaks.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    match std::env::var("START").as_deref() {
        Ok("exit") => std::process::exit(3),
        Ok("never") => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        _ => {}
    }
    println!("started");
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let order = event.payload.get("do").and_then(Value::as_str);
    match order.unwrap_or("echo") {
        "echo" => Ok(json!({
            "echo": event.payload,
            "count": count,
            "request": event.context.request_id,
            "trace": event.context.xray_trace_id,
        })),
        "log" => {
            println!("to standard output");
            eprintln!("to standard error");
            Ok(Value::Null)
        }
        "fail" => Err("as I was told".into()),
        "panic" => panic!("as I was told"),
        "exit" => std::process::exit(7),
        "sleep" => {
            let seconds = event.payload["seconds"].as_f64().unwrap_or(1.0);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            Ok(json!("slept"))
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "large" => {
            let bytes = event.payload["bytes"].as_u64().unwrap_or(0);
            Ok(Value::String(
                "x".repeat(usize::try_from(bytes).unwrap_or(usize::MAX)),
            ))
        }
        "hog" => hog(),
        "leak" => {
            leak(event.payload["mib"].as_u64().unwrap_or(1));
            Ok(json!({ "echo": event.payload, "count": count }))
        }
        // What is done is to be seen, also of a request that has no answer.
        "act" => {
            println!("acted {}", event.payload["nonce"]);
            match event.payload["then"].as_str() {
                Some("exit") => std::process::exit(7),
                Some("hog") => hog(),
                Some("hang") => hang(),
                _ => {}
            }
            let seconds = event.payload["seconds"].as_f64().unwrap_or(0.0);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            Ok(json!({ "echo": event.payload, "count": count }))
        }
        "wait" => {
            let until = event.payload["until_unix_ms"].as_u64().unwrap_or(0);
            let until = SystemTime::UNIX_EPOCH + Duration::from_millis(until);
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::time::sleep(left).await;
            Ok(json!({ "echo": event.payload, "count": count }))
        }
        "crash" => {
            if count >= event.payload["at"].as_u64().unwrap_or(1) {
                std::process::abort();
            }
            Ok(json!({ "echo": event.payload, "count": count }))
        }
        "hang" => hang(),
        "fork" => Ok(json!(fork_bomb())),
        "fill" => Ok(json!(fill(
            event.payload["path"].as_str().unwrap_or("/tmp/full")
        ))),
        other => Err(format!("unknown order {other}").into()),
    }
}

/// Takes so many MiB and never gives them back.
fn leak(mib: u64) {
    let mut kept = KEPT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    kept.extend((0..mib).map(|_| vec![1; 1 << 20]));
}

/// Does nothing any more, and does not end when asked to.
fn hang() -> ! {
    // SAFETY: to ignore a signal runs nothing of ours.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Takes memory until it is killed.
fn hog() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
    }
}

/// Forks until it is refused; each child waits for its end.
fn fork_bomb() -> u32 {
    for count in 0.. {
        // SAFETY: the child calls nothing but pause.
        match unsafe { libc::fork() } {
            -1 => return count,
            0 => loop {
                // SAFETY: it has no arguments.
                unsafe { libc::pause() };
            },
            _ => {}
        }
    }
    0
}

/// Writes until it is refused; how many bytes there were, and why no more.
fn fill(path: &str) -> Value {
    let mut written = 0_u64;
    let block = vec![7_u8; 64 * 1024];
    let error = match std::fs::File::create(path) {
        Err(error) => error,
        Ok(mut file) => loop {
            match file.write(&block) {
                Ok(bytes) => written += bytes as u64,
                Err(error) => break error,
            }
        },
    };
    json!({ "written": written, "error": error.raw_os_error() })
}
