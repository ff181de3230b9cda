//! Requests that can't continue yet: the bounds on their number and bytes in a worker, and their order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// The most of a body that the proxy buffers: the stock listener's bound.
pub(crate) const FULL_BUFFER: usize = 16 * 1024 * 1024;

/// The most of a body that is held to learn its length: less than [`FULL_BUFFER`], past which the proxy answers by itself.
pub(crate) const MEASURED_MAX: usize = FULL_BUFFER - 1024 * 1024;

/// The bounds of a policy on what each worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLimits {
    /// The number of requests.
    pub requests: u32,
    /// The bytes of their headers and bodies, in the proxy's buffers and in the filter's.
    pub bytes: u32,
}

/// The totals held by one worker, under all its policies.
#[derive(Debug, Default)]
pub struct HeldTotals {
    requests: Cell<u32>,
    bytes: Cell<u32>,
}

/// The error of a worker at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// One request's share of its worker's totals. Dropping it releases the share.
#[derive(Debug)]
pub struct HeldShare {
    totals: Rc<HeldTotals>,
    limits: HeldLimits,
    requests: u32,
    bytes: u32,
}

impl HeldShare {
    /// Counts a request that is held.
    ///
    /// # Errors
    /// [`Overloaded`] if the worker holds as many requests as it may.
    pub fn of_request(totals: &Rc<HeldTotals>, limits: HeldLimits) -> Result<Self, Overloaded> {
        let requests = totals.requests.get();
        if requests >= limits.requests {
            return Err(Overloaded);
        }
        totals.requests.set(requests + 1);
        Ok(Self { totals: Rc::clone(totals), limits, requests: 1, bytes: 0 })
    }

    /// Counts the bytes of a request that continues while parts of it are held.
    pub fn of_parts(totals: &Rc<HeldTotals>, limits: HeldLimits) -> Self {
        Self { totals: Rc::clone(totals), limits, requests: 0, bytes: 0 }
    }

    /// Sets how many bytes of the request are held.
    ///
    /// # Errors
    /// [`Overloaded`] if these are more than before, and more than the worker may hold. The share does not change.
    pub fn set_bytes(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let total = (self.totals.bytes.get() - self.bytes).saturating_add(bytes);
        if bytes > self.bytes && total > self.limits.bytes {
            return Err(Overloaded);
        }
        self.totals.bytes.set(total);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        self.totals.requests.set(self.totals.requests.get() - self.requests);
        self.totals.bytes.set(self.totals.bytes.get() - self.bytes);
    }
}

/// A queue of held requests in the order of arrival, by context. All have the same timeout, so this is the order of their
/// deadlines too. An entry does not own its request: ended ones are skipped.
#[derive(Debug)]
pub struct HeldQueue<T>(VecDeque<(u32, Weak<T>)>);

impl<T> Default for HeldQueue<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> HeldQueue<T> {
    /// Adds the request that came last.
    pub fn push(&mut self, context: u32, request: &Rc<T>) {
        if self.0.len() == self.0.capacity() {
            // Ended requests must not accumulate after a live one. Doubling the room makes this rare.
            self.0.retain(|(_, request)| request.strong_count() > 0);
            self.0.reserve(self.0.len() + 1);
        }
        self.0.push_back((context, Rc::downgrade(request)));
    }

    /// Takes the request that came first, if it is due.
    pub fn pop_due(&mut self, is_due: impl Fn(&T) -> bool) -> Option<(u32, Rc<T>)> {
        while let Some((context, request)) = self.0.front() {
            match request.upgrade() {
                Some(request) if !is_due(&request) => return None,
                Some(request) => {
                    let context = *context;
                    self.0.pop_front();
                    return Some((context, request));
                }
                None => self.0.pop_front(),
            };
        }
        None
    }

    /// Returns the number of entries, of which some may have ended.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
