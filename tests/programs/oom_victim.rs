// Dies for want of memory, in a place that it knows: `fault PROCS REPORT`, as oom_victim.c. Its
// callers are told by the unwinder of panics, which goes by call frame information.
use std::ffi::c_void;
use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;

const MEMORY: usize = 1 << 30;
const CALLERS: usize = 4;

unsafe extern "C" {
    static __start_eat_code: u8;
    static __stop_eat_code: u8;
    fn _Unwind_Backtrace(
        note: extern "C" fn(*mut c_void, *mut Vec<u64>) -> i32,
        frames: *mut Vec<u64>,
    ) -> i32;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn mmap(at: *mut c_void, size: usize, rights: i32, flags: i32, fd: i32, from: i64)
    -> *mut u8;
}

extern "C" fn note(context: *mut c_void, frames: *mut Vec<u64>) -> i32 {
    // SAFETY: the unwinder's context, and the vector that it was given.
    unsafe { (*frames).push(_Unwind_GetIP(context) as u64) };
    0
}

#[inline(never)]
fn tell(report: &str) {
    let mut frames: Vec<u64> = Vec::with_capacity(64);
    // SAFETY: two addresses that the linker gives; the callback takes what it is given here.
    let (begin, end) = unsafe {
        _Unwind_Backtrace(note, &mut frames);
        (&raw const __start_eat_code as u64, &raw const __stop_eat_code as u64)
    };
    let own = |address: &u64| (begin..end).contains(address);
    let at = frames.iter().position(own).expect("itself among its callers");
    let line = format!(
        "{{\"pid\":{},\"begin\":{begin},\"end\":{end},\"callers\":{:?}}}\n",
        std::process::id(),
        &frames[at + 1..at + 1 + CALLERS]
    );
    let mut file = OpenOptions::new().create(true).append(true).open(report).expect("a report");
    file.write_all(line.as_bytes()).expect("a report");
}

#[inline(never)]
#[unsafe(link_section = "eat_code")]
fn eat(report: &str) -> u64 {
    // SAFETY: fresh memory: readable, writable, private, anonymous, not reserved.
    let memory = unsafe { mmap(std::ptr::null_mut(), MEMORY, 3, 0x4022, -1, 0) };
    tell(report);
    let mut at = 0;
    while at < MEMORY {
        // SAFETY: inside of it.
        unsafe { memory.add(at).write_volatile(1) };
        at += 4096;
    }
    at as u64
}

#[inline(never)]
fn third(report: &str) -> u64 {
    black_box(eat(report)) + 1
}

#[inline(never)]
fn second(report: &str) -> u64 {
    black_box(third(report)) + 1
}

#[inline(never)]
fn first(report: &str) -> u64 {
    black_box(second(report)) + 1
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    fs::write(&words[2], "0").expect("a place in the cgroup");
    println!("{}", first(&words[3]));
}
