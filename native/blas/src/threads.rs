//! One pool of threads for everything that is computed on the host: parallel parts that are short and follow each other closely.
//!
//! A decode step has some hundreds of parallel parts of tens of microseconds. Waking a sleeping thread costs as much as one of them,
//! so the pool's threads look for the next part for a while before they sleep, and who starts a part takes its jobs as well
//! and waits for no thread that has not come to help. The threads sleep when there is nothing to do.
//!
//! Invariant: which thread runs a job, and how many there are, is invisible in results. Jobs are claimed one by one.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for the next part before it sleeps: several times what lies between two parts of a step.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks at the state between two looks at the clock.
const LOOKS: usize = 64;

/// State of the pool: number of the part in the upper half, then whether it may be joined, then how many have.
const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;

/// Sets the number of threads of this process, once, before anything is computed.
///
/// # Errors
/// Something was computed already, with that many threads.
pub fn start(threads: usize) -> Result<(), usize> {
    POOL.set(Pool::new(threads)).map_err(|_| count())
}

/// Threads that share a part, the one that starts it included.
pub fn count() -> usize {
    with_pool(|pool| pool.map_or(1, |pool| pool.helpers.len() + 1))
}

/// Runs `job` for every number below `jobs`, on this thread and those of the pool that are free. On this thread alone unless it is
/// `worth` their while, inside of a job, and while the pool serves another thread.
///
/// # Panics
/// With what a job panicked with, once all jobs that had begun are done.
pub fn run(worth: bool, jobs: usize, job: impl Fn(usize) + Sync) {
    if !worth || jobs < 2 {
        return (0..jobs).for_each(job);
    }
    with_pool(|pool| match pool {
        Some(pool) => pool.run(jobs, &job),
        None => (0..jobs).for_each(&job),
    });
}

/// The same over pieces of `data`, `size` elements each but for the last: `job(number, piece)`.
///
/// # Panics
/// `size` is 0; or as [`run`].
pub fn pieces<T: Send>(worth: bool, data: &mut [T], size: usize, job: impl Fn(usize, &mut [T]) + Sync) {
    struct Data<T>(*mut T);
    // SAFETY: each job makes a slice of elements that no other one touches.
    unsafe impl<T: Send> Sync for Data<T> {}
    impl<T> Data<T> {
        fn at(&self, index: usize) -> *mut T {
            self.0.wrapping_add(index)
        }
    }
    let (length, data) = (data.len(), Data(data.as_mut_ptr()));
    run(worth, length.div_ceil(size), |i| {
        let from = i * size;
        // SAFETY: within `data`, which is borrowed for the whole run; pieces do not overlap.
        job(i, unsafe { std::slice::from_raw_parts_mut(data.at(from), size.min(length - from)) });
    });
}

/// Runs `work` with a pool of its own for what this thread starts: for tests of what threads may not change.
pub fn on<R>(threads: usize, work: impl FnOnce() -> R) -> R {
    struct Back(*const Pool);
    impl Drop for Back {
        fn drop(&mut self) {
            OWN.set(self.0);
        }
    }
    let pool = Pool::new(threads);
    let _back = Back(OWN.replace(&raw const pool));
    work()
}

static POOL: OnceLock<Pool> = OnceLock::new();

thread_local! {
    /// The pool of [`on`], as long as that runs.
    static OWN: Cell<*const Pool> = const { Cell::new(null()) };
    /// Is this one of a pool's threads?
    static HELPS: Cell<bool> = const { Cell::new(false) };
}

fn with_pool<R>(use_it: impl FnOnce(Option<&Pool>) -> R) -> R {
    if HELPS.get() {
        return use_it(None);
    }
    // SAFETY: `on` keeps its pool until it has put back what was here before.
    match unsafe { OWN.get().as_ref() } {
        Some(pool) => use_it(Some(pool)),
        None => use_it(Some(
            POOL.get_or_init(|| Pool::new(std::thread::available_parallelism().map_or(1, usize::from))),
        )),
    }
}

struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    state: AtomicU64,
    /// Is a part being run?
    busy: AtomicBool,
    part: UnsafeCell<Part>,
    next: AtomicUsize,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

/// What is run. The borrow is of `Pool::run`, which returns when nobody uses it any more.
#[derive(Clone, Copy)]
struct Part {
    job: &'static (dyn Fn(usize) + Sync),
    jobs: usize,
}

// SAFETY: `part` is written by who set `busy`, while it is closed and nobody has joined, and read by those who joined since.
unsafe impl Sync for Shared {}

impl Pool {
    fn new(threads: usize) -> Self {
        let count = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            part: UnsafeCell::new(Part { job: &|_| (), jobs: 0 }),
            next: AtomicUsize::new(0),
            asleep: (0..count).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panicked: Mutex::new(None),
        });
        let helper = |i: usize| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("prefixd-compute-{i}"));
            // Fewer threads are slower and nothing else.
            thread.spawn(move || shared.help(i)).ok()
        };
        let helpers = (0..count).map_while(helper).collect();
        Self { shared, helpers }
    }

    fn run(&self, jobs: usize, job: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if self.helpers.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            return (0..jobs).for_each(job);
        }
        // SAFETY: the borrow ends after nobody is joined any more, below, whatever panics.
        let job: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(job) };
        // SAFETY: see `Shared`.
        unsafe { *shared.part.get() = Part { job, jobs } };
        shared.next.store(0, Ordering::Relaxed);
        let number = (shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        // Before a look at who sleeps; who falls asleep looks at them in the other order.
        shared.state.store(number << 32 | OPEN, Ordering::SeqCst);
        for (helper, asleep) in self.helpers.iter().zip(&shared.asleep).take(jobs - 1) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
        let ended = catch_unwind(AssertUnwindSafe(|| shared.work()));
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while shared.state.load(Ordering::Acquire) & JOINED != 0 {
            looks += 1;
            // The other may not be running: there may be more threads than processors.
            if looks % (16 * LOOKS) == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panicked = shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = ended.err().or(panicked) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A thread that panicked has told so already.
            let _ended = helper.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        // SAFETY: whoever comes here has begun the part or joined it.
        let Part { job, jobs } = unsafe { *self.part.get() };
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= jobs {
                return;
            }
            job(i);
        }
    }

    /// The life of a thread of the pool.
    fn help(&self, me: usize) {
        HELPS.set(true);
        let mut seen = 0;
        loop {
            let (since, mut looks) = (Instant::now(), 0);
            loop {
                let state = self.state.load(Ordering::Acquire);
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                if state & OPEN != 0 && state >> 32 != seen {
                    if self.join(state) {
                        seen = state >> 32;
                        break;
                    }
                    continue;
                }
                looks += 1;
                if looks % LOOKS == 0 && since.elapsed() > AWAKE {
                    self.sleep(me, seen);
                    break;
                }
                std::hint::spin_loop();
            }
        }
    }

    /// Helps with the part of `state`, unless it has changed meanwhile.
    fn join(&self, state: u64) -> bool {
        if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) {
            *self.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        self.state.fetch_sub(1, Ordering::AcqRel);
        true
    }

    fn sleep(&self, me: usize, seen: u64) {
        self.asleep[me].store(true, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        let wanted = state & OPEN != 0 && state >> 32 != seen;
        if !wanted && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep[me].store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_however_parts_follow_each_other() {
        for threads in [1, 2, 5] {
            on(threads, || {
                assert_eq!(count(), threads);
                for part in 0..3000 {
                    let jobs = part % 7;
                    let done: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
                    run(true, jobs, |i| {
                        done[i].fetch_add(part + 1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == part + 1));
                    if part % 500 == 0 {
                        std::thread::sleep(2 * AWAKE); // everybody sleeps
                    }
                }
            });
        }
    }

    #[test]
    fn jobs_are_shared_with_a_thread_that_slept() {
        on(2, || {
            std::thread::sleep(10 * AWAKE);
            let here = std::thread::current().id();
            let came = AtomicBool::new(false);
            // This thread's job ends when the other's has run.
            run(true, 2, |_| {
                let since = Instant::now();
                came.fetch_or(std::thread::current().id() != here, Ordering::Relaxed);
                while !came.load(Ordering::Relaxed) && since.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
            });
            assert!(came.into_inner());
        });
    }

    #[test]
    fn pieces_are_disjoint_and_whole() {
        let mut data = vec![0_usize; 1003];
        pieces(true, &mut data, 100, |i, piece| piece.iter_mut().for_each(|x| *x += i + 1));
        assert!(data.iter().enumerate().all(|(at, x)| *x == at / 100 + 1));
        pieces(true, &mut data[..0], 100, |_, _| panic!("nothing to do"));
    }

    #[test]
    fn a_part_inside_of_a_job_and_parts_of_several_threads_end() {
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        run(true, 3, |i| run(true, 2, |j| _ = sum.fetch_add(i + j, Ordering::Relaxed)));
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 9);
    }

    #[test]
    fn a_panic_reaches_who_started_the_part_and_the_pool_lives() {
        on(3, || {
            for _ in 0..50 {
                let caught = catch_unwind(|| run(true, 6, |i| assert!(i != 4, "job 4")));
                assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"job 4"));
                let done = AtomicUsize::new(0);
                run(true, 6, |_| _ = done.fetch_add(1, Ordering::Relaxed));
                assert_eq!(done.into_inner(), 6);
            }
        });
    }
}
