//! The queue of calls to STS: however many roles there are, few calls are in flight, and none delays those after it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::sync::lock;

/// The largest number of recent calls in flight.
const MOST_NEW_CALLS: usize = 8;

/// The largest number of slow calls in flight, besides the recent ones.
const MOST_SLOW_CALLS: usize = 8;

/// The time after which a call is slow and makes room for a new one. STS usually answers in a fraction of it.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// While more roles than this wait for their turn, a call counts as slow earlier: most of those before them may get no
/// answer.
const MANY_WAITING: usize = 16;
const SLOW_AFTER_WITH_MANY: Duration = Duration::from_millis(500);

/// One turn in this many goes to a role whose last call got no answer, if one waits.
const TURNS_FOR_SILENT: usize = 8;

/// The time limit of one role, including the SDK's own retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest pause that STS can impose.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// No answer within this time.
#[derive(Debug)]
pub struct NoAnswer(pub Duration);

/// Turns for calling STS, in the order of the requests for them. Roles whose last call got no answer mostly come after
/// the others.
#[derive(Debug)]
pub struct StsCalls {
    turns: Arc<Turns>,
    slow: Semaphore,
    paused_until: Mutex<Instant>,
}

impl StsCalls {
    pub fn new() -> Self {
        Self { turns: Arc::default(), slow: Semaphore::new(MOST_SLOW_CALLS), paused_until: Mutex::new(Instant::now()) }
    }

    /// Calls when it is its turn; `was_silent` means that the last call for this role got no answer. `prepare` is not
    /// timed, as it is the same for all.
    ///
    /// # Errors
    /// [`NoAnswer`] if the call takes too long, or is slow while [`MOST_SLOW_CALLS`] are in flight.
    pub async fn in_turn<T, P, E>(
        &self,
        was_silent: bool,
        prepare: impl AsyncFnOnce() -> Result<P, E>,
        call: impl AsyncFnOnce(P) -> Result<T, E>,
    ) -> Result<Result<T, E>, NoAnswer> {
        let turn = self.turns.take(was_silent).await;
        // Boxed, so that only calls in flight take memory.
        Box::pin(async {
            self.pause_is_over().await;
            match prepare().await {
                Ok(prepared) => self.bounded(turn, call(prepared)).await,
                Err(error) => Ok(Err(error)),
            }
        })
        .await
    }

    /// Waits for a call within its time limits, and passes its turn on when it is slow.
    async fn bounded<T>(&self, turn: Turn, call: impl Future<Output = T>) -> Result<T, NoAnswer> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let slow_after = if self.turns.waiting() > MANY_WAITING { SLOW_AFTER_WITH_MANY } else { SLOW_AFTER };
        let mut call = pin!(call);
        if let Ok(answer) = timeout(slow_after, &mut call).await {
            return Ok(answer);
        }
        let Ok(_slow_turn) = self.slow.try_acquire() else {
            return Err(NoAnswer(slow_after));
        };
        drop(turn);
        timeout_at(deadline, call).await.map_err(|_| NoAnswer(CALL_TIMEOUT))
    }

    /// Starts no call for a while, as STS asked.
    pub fn pause(&self, pause: Duration) {
        let mut paused_until = lock(&self.paused_until);
        *paused_until = (*paused_until).max(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    async fn pause_is_over(&self) {
        loop {
            let until = *lock(&self.paused_until);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// The turns of calls that have just begun.
#[derive(Debug)]
struct Turns(Mutex<Queues>);

#[derive(Debug)]
struct Queues {
    free: usize,
    given: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    silent: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn, which goes to the next in the queue when it is dropped.
#[derive(Debug)]
struct Turn(Option<Arc<Turns>>);

impl Default for Turns {
    fn default() -> Self {
        let (waiting, silent) = (VecDeque::new(), VecDeque::new());
        Self(Mutex::new(Queues { free: MOST_NEW_CALLS, given: 0, waiting, silent }))
    }
}

impl Turns {
    async fn take(self: &Arc<Self>, was_silent: bool) -> Turn {
        loop {
            let turn = {
                let mut queues = lock(&self.0);
                if queues.free > 0 {
                    queues.free -= 1;
                    return Turn(Some(self.clone()));
                }
                let (give, turn) = oneshot::channel();
                if was_silent { &mut queues.silent } else { &mut queues.waiting }.push_back(give);
                turn
            };
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    fn waiting(&self) -> usize {
        let queues = lock(&self.0);
        queues.waiting.len() + queues.silent.len()
    }

    fn pass_on(self: Arc<Self>) {
        loop {
            let Some(next) = lock(&self.0).next() else { return };
            // A caller that has stopped waiting returns it.
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

impl Queues {
    /// Removes the next caller from the queues; if nobody waits, the turn becomes free.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.given = self.given.wrapping_add(1);
        let (first, second) = match self.given % TURNS_FOR_SILENT {
            0 => (&mut self.silent, &mut self.waiting),
            _ => (&mut self.waiting, &mut self.silent),
        };
        let next = first.pop_front().or_else(|| second.pop_front());
        self.free += usize::from(next.is_none());
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
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

    /// Makes a call of this duration, and records how many were in flight.
    async fn call(calls: &StsCalls, takes: Duration, in_flight: &AtomicUsize, most: &AtomicUsize) -> bool {
        call_again(calls, false, takes, in_flight, most).await
    }

    async fn call_again(
        calls: &StsCalls,
        was_silent: bool,
        takes: Duration,
        in_flight: &AtomicUsize,
        most: &AtomicUsize,
    ) -> bool {
        struct Flight<'a>(&'a AtomicUsize);
        impl Drop for Flight<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let prepare = async || Ok::<_, ()>(());
        let answer = calls.in_turn(was_silent, prepare, async |()| {
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
    async fn a_thousand_roles_without_an_answer_delay_another_for_a_minute_at_first_and_not_again() {
        let calls = Rc::new(StsCalls::new());
        let (in_flight, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let tasks = LocalSet::new();
        for _ in 0..1000 {
            let (calls, in_flight, most) = (calls.clone(), in_flight.clone(), most.clone());
            tasks.spawn_local(async move {
                let (hour, mut was_silent) = (Duration::from_secs(3600), false);
                // They ask again sooner than the refresher does.
                loop {
                    assert!(!call_again(&calls, was_silent, hour, &in_flight, &most).await);
                    was_silent = true;
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }
        let answered = async |latency| {
            let start = Instant::now();
            assert!(call(&calls, latency, &in_flight, &most).await);
            start.elapsed()
        };
        tasks
            .run_until(async {
                // After all of them.
                sleep(Duration::from_millis(1)).await;
                let first = answered(Duration::from_millis(100)).await;
                assert!(first < Duration::from_secs(75), "{first:?}");
                let mut next = Duration::ZERO;
                for _ in 0..20 {
                    next = next.max(answered(Duration::from_millis(100)).await);
                }
                println!("first after {first:?}, then after {next:?} at most");
                assert!(next < Duration::from_secs(1), "{next:?}");
            })
            .await;
        assert!(most.load(Ordering::Relaxed) <= MOST_NEW_CALLS + MOST_SLOW_CALLS);
    }

    /// Others never starve the roles that got no answer.
    #[tokio::test(start_paused = true)]
    async fn roles_that_got_no_answer_before_have_an_eighth_of_the_turns() {
        let calls = Rc::new(StsCalls::new());
        let (in_flight, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let tasks = LocalSet::new();
        for _ in 0..MOST_NEW_CALLS + 50 {
            let (calls, in_flight, most) = (calls.clone(), in_flight.clone(), most.clone());
            tasks.spawn_local(async move {
                loop {
                    call(&calls, Duration::from_millis(100), &in_flight, &most).await;
                }
            });
        }
        tasks
            .run_until(async {
                sleep(Duration::from_millis(1)).await;
                let start = Instant::now();
                for _ in 0..8 {
                    assert!(call_again(&calls, true, Duration::from_millis(100), &in_flight, &most).await);
                }
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_takes_no_turn_away() {
        let (calls, in_flight, most) = (StsCalls::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = || call(&calls, Duration::from_secs(1), &in_flight, &most);
        let all = async { tokio::join!(begin(), begin(), begin(), begin(), begin(), begin(), begin(), begin()) };
        let impatient = async {
            for _ in 0..20 {
                assert!(timeout(Duration::from_millis(20), begin()).await.is_err());
            }
        };
        tokio::join!(all, impatient);
        assert_eq!((calls.turns.waiting(), lock(&calls.turns.0).free), (0, MOST_NEW_CALLS));
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
