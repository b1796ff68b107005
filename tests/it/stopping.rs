//! The end of threads that a test runs next to itself.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Sets a flag when it is dropped, also where the test panics: a scope waits for its threads, which
/// would go on for ever.
pub(crate) struct Stopping<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn threads_end_with_a_measurement_that_panics() {
    let stop = AtomicBool::new(false);
    let measured = catch_unwind(|| {
        thread::scope(|scope| {
            let _stopping = Stopping(&stop);
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            panic!("what is measured fails");
        })
    });

    assert!(measured.is_err());
}
