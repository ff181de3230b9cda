//! Which requests get what is too dear for all of them.

use std::cell::Cell;

/// How many requests of a second are looked at closely, and of the others one in how many.
const CLOSELY: u32 = 32;

/// Chooses the requests that a worker looks at closely: for them the proxy's clock is read and the time taken, what has
/// been counted is published, and the answer is looked at for the upstream's clock. Each of these is a host call, and tells
/// as much if done for some of many requests. A worker with little to do looks at all of them.
#[derive(Default)]
pub(crate) struct Sampling {
    this_second: Cell<u32>,
}

impl Sampling {
    /// Whether the request that has come is to be looked at closely.
    pub(crate) fn takes_next(&self) -> bool {
        let earlier = self.this_second.get();
        self.this_second.set(earlier.wrapping_add(1));
        earlier < CLOSELY || earlier.is_multiple_of(CLOSELY)
    }

    /// A new second begins.
    pub(crate) fn new_second(&self) {
        self.this_second.set(0);
    }
}
