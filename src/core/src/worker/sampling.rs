//! Sampling of requests for work that is too expensive for all of them.

use std::cell::Cell;

/// The requests of each second that are all sampled; of the others, one in [`THEN_ONE_IN`] is.
const ALWAYS_PER_SECOND: u32 = 32;
const THEN_ONE_IN: u32 = 32;

/// A sampler of the requests for which the proxy's clock is read and the time measured, counters are published, and the
/// response is checked for the upstream's clock. Each costs a host call, and a sample is as informative as the whole. A
/// worker under low load samples all requests.
#[derive(Default)]
pub(crate) struct Sampling {
    this_second: Cell<u32>,
}

impl Sampling {
    /// Counts a request. Returns whether it is sampled.
    pub(crate) fn should_sample(&self) -> bool {
        let earlier = self.this_second.get();
        self.this_second.set(earlier.wrapping_add(1));
        earlier < ALWAYS_PER_SECOND || earlier.is_multiple_of(THEN_ONE_IN)
    }

    /// Begins a new second.
    pub(crate) fn reset(&self) {
        self.this_second.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_requests_are_all_sampled_and_of_many_one_in_some() {
        let sampling = Sampling::default();
        for _ in 0..2 {
            let sampled: Vec<u32> = (0..100).filter(|_| sampling.should_sample()).collect();
            assert_eq!(sampled, (0..32).chain([32, 64, 96]).collect::<Vec<_>>());
            sampling.reset();
        }
    }
}
