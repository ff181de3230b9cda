//! The turns of roles at STS: however many there are, few calls are in flight, and none holds up those after it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::locked;

/// Calls in flight that have begun a moment ago.
const MOST_NEW_CALLS: usize = 8;

/// Calls in flight beside those, which are slow.
const MOST_SLOW_CALLS: usize = 8;

/// STS answers in a fraction of this. A slow call makes room for a new one.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// How long one role may take, with the SDK's own retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// STS does not make us wait longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// No answer within so long.
#[derive(Debug)]
pub struct NoAnswer(pub Duration);

/// Who may call STS, and when. Turns are taken in the order in which they were asked for.
#[derive(Debug)]
pub struct StsCalls {
    new: Semaphore,
    slow: Semaphore,
    paused_until: Mutex<Instant>,
}

impl StsCalls {
    pub fn new() -> Self {
        Self {
            new: Semaphore::new(MOST_NEW_CALLS),
            slow: Semaphore::new(MOST_SLOW_CALLS),
            paused_until: Mutex::new(Instant::now()),
        }
    }

    /// Calls when it is its turn. `prepare` may take its own time, as it is the same for all.
    ///
    /// # Errors
    /// [`NoAnswer`] where the call takes too long, or is slow while as many slow ones are waited for as may be.
    pub async fn in_turn<T, P, E>(
        &self,
        prepare: impl Future<Output = Result<P, E>>,
        call: impl AsyncFnOnce(P) -> Result<T, E>,
    ) -> Result<Result<T, E>, NoAnswer> {
        // Neither semaphore is ever closed.
        let turn = self.new.acquire().await;
        self.pause_is_over().await;
        let prepared = match prepare.await {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        let deadline = Instant::now() + CALL_TIMEOUT;
        // Only a call in flight takes the memory of one.
        let mut call = Box::pin(call(prepared));
        if let Ok(answer) = timeout(SLOW_AFTER, &mut call).await {
            return Ok(answer);
        }
        let Ok(_slow_turn) = self.slow.try_acquire() else {
            return Err(NoAnswer(SLOW_AFTER));
        };
        drop(turn);
        timeout_at(deadline, call).await.map_err(|_| NoAnswer(CALL_TIMEOUT))
    }

    /// Begins no call for a while, since STS asked for that.
    pub fn pause(&self, pause: Duration) {
        let mut paused_until = locked(&self.paused_until);
        *paused_until = (*paused_until).max(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    async fn pause_is_over(&self) {
        loop {
            let until = *locked(&self.paused_until);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::LocalSet;
    use tokio::time::sleep;

    use super::*;

    /// Makes a call that takes so long, and tells how many were in flight.
    async fn call(calls: &StsCalls, takes: Duration, in_flight: &AtomicUsize, most: &AtomicUsize) -> bool {
        struct Flight<'a>(&'a AtomicUsize);
        impl Drop for Flight<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let answer = calls.in_turn(async { Ok::<_, ()>(()) }, async |()| {
            most.fetch_max(in_flight.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let _flight = Flight(in_flight);
            sleep(takes).await;
            Ok(())
        });
        answer.await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn sixteen_calls_are_in_flight_at_most_and_those_that_hang_delay_the_others_for_seconds() {
        let calls = Rc::new(StsCalls::new());
        let (in_flight, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let tasks = LocalSet::new();
        let begin = |takes| {
            let (calls, in_flight, most) = (calls.clone(), in_flight.clone(), most.clone());
            tasks.spawn_local(async move { call(&calls, takes, &in_flight, &most).await })
        };
        let start = Instant::now();
        let hanging: Vec<_> = (0..200).map(|_| begin(Duration::from_secs(3600))).collect();
        let good: Vec<_> = (0..200).map(|_| begin(Duration::from_millis(100))).collect();
        tasks
            .run_until(async {
                for answered in good {
                    assert!(answered.await.unwrap());
                }
                let took = start.elapsed();
                // 200 that hang, 8 at a time, for 2 s each; and 200 good ones, 8 at a time.
                assert!(took < Duration::from_secs(60), "{took:?}");
                for answered in hanging {
                    assert!(!answered.await.unwrap());
                }
            })
            .await;
        assert_eq!(most.load(Ordering::Relaxed), MOST_NEW_CALLS + MOST_SLOW_CALLS);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_calls_are_answered() {
        let (calls, in_flight, most) = (StsCalls::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        assert!(call(&calls, Duration::from_secs(19), &in_flight, &most).await);
        assert!(!call(&calls, Duration::from_secs(21), &in_flight, &most).await);
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_begins_while_sts_wants_a_pause() {
        let (calls, in_flight, most) = (StsCalls::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Instant::now();
        calls.pause(Duration::from_secs(5));
        calls.pause(Duration::from_secs(1));
        assert!(call(&calls, Duration::ZERO, &in_flight, &most).await);
        assert!(start.elapsed() >= Duration::from_secs(5));
        calls.pause(Duration::from_secs(86_400));
        assert!(call(&calls, Duration::ZERO, &in_flight, &most).await);
        assert!(start.elapsed() < Duration::from_secs(70));
    }
}
