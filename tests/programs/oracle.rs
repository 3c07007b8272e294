//! `oracle MODE REPORT`: MODE is `listen` or `exit`.

use std::io::Write;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

fn boottime_ns() -> i64 {
    const CLOCK_BOOTTIME: i32 = 7;
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the clock writes one `timespec` into memory that is ours.
    unsafe { clock_gettime(CLOCK_BOOTTIME, &raw mut now) };
    now.seconds * 1_000_000_000 + now.nanoseconds
}

fn main() {
    let main_ns = boottime_ns();
    let arguments: Vec<String> = std::env::args().collect();
    let listener = (arguments[1] == "listen")
        .then(|| std::net::TcpListener::bind("127.0.0.1:0").expect("listen on loopback"));
    let ready_ns = boottime_ns();
    let stat = std::fs::read_to_string("/proc/self/stat").expect("read /proc/self/stat");
    let start_ticks = stat.rsplit_once(')').expect("name").1.split(' ').nth(20).expect("field 22");
    let pid = std::process::id();
    let line = format!(
        "{{\"main_ns\":{main_ns},\"ready_ns\":{ready_ns},\"pid\":{pid},\"start_ticks\":{start_ticks}}}\n"
    );
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&arguments[2])
        .and_then(|mut report| report.write_all(line.as_bytes()))
        .expect("write the report");
    if listener.is_some() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
