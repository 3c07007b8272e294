//! Threads for what waits: each is kept for a while, for the next one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

/// Of a thread that waits for a sandbox: it needs little.
const STACK: usize = 256 << 10;
/// How long one without work stays.
const KEPT: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// Some threads at most; what they cannot do yet waits, in order.
#[derive(Clone)]
pub(super) struct Workers(Arc<Shared>);

struct Shared {
    name: &'static str,
    most: usize,
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    idle: usize,
    threads: usize,
}

impl Workers {
    pub(super) fn new(name: &'static str, most: usize) -> Self {
        Self(Arc::new(Shared {
            name,
            most,
            queue: Mutex::default(),
            came: Condvar::new(),
        }))
    }

    /// Has it done. It fails only where there is no thread, and none can be made.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let shared = &self.0;
        let mut queue = shared.queue();
        queue.work.push_back(Box::new(work));
        if queue.idle >= queue.work.len() {
            shared.came.notify_one();
            return Ok(());
        }
        if queue.threads >= shared.most {
            return Ok(());
        }
        // It waits for the lock, which is held so that what cannot be done is our own.
        let of_thread = Arc::clone(shared);
        let thread = thread::Builder::new().name(shared.name.to_owned());
        let spawned = thread.stack_size(STACK).spawn(move || of_thread.work());
        let Err(error) = spawned else {
            queue.threads += 1;
            return Ok(());
        };
        if queue.threads > 0 {
            return Ok(());
        }
        // Nobody would ever do it.
        queue.work.pop_back();
        Err(error)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        // Also where something panics.
        let _counted = Counted(self);
        let mut queue = self.queue();
        loop {
            if let Some(work) = queue.work.pop_front() {
                drop(queue);
                work();
                queue = self.queue();
                continue;
            }
            queue.idle += 1;
            let waited = self.came.wait_timeout(queue, KEPT);
            let (woken, result) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if result.timed_out() && queue.work.is_empty() {
                return;
            }
        }
    }
}

struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.queue().threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn no_more_threads_than_allowed_do_all_of_it_and_one_that_panics_is_replaced() {
        let workers = Workers::new("hearth-test", 2);
        let (tell, told) = channel();
        let (let_go, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        workers
            .run(|| panic!("as this test wants it"))
            .expect("a thread");
        for n in 0..10 {
            let (tell, gate) = (tell.clone(), Arc::clone(&gate));
            let work = move || {
                gate.lock()
                    .expect("no panic")
                    .recv()
                    .expect("somebody lets go");
                tell.send((n, thread::current().id())).expect("heard");
            };
            workers.run(work).expect("a thread");
        }
        assert!(told.try_recv().is_err(), "all are held");
        for _ in 0..10 {
            let_go.send(()).expect("held");
        }
        let done: Vec<_> = told.iter().take(10).collect();
        let threads: HashSet<_> = done.iter().map(|(_, thread)| *thread).collect();
        assert!(threads.len() <= 2, "{}", threads.len());
    }
}
