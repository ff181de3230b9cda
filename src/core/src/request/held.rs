//! A request that is held at its headers, until its body or its credentials are there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::header_map::HeaderMap;
use crate::held::{HeldLimits, HeldQueue, HeldShare, HeldTotals, MEASURED_MAX, Overloaded};
use crate::host::{Host, MapKind};
use crate::local_reply::{LengthRequired, Outcome, Refusal, SigningFailure};
use crate::policy::Route;
use crate::signing::{PayloadHash, PayloadHasher};
use crate::worker::{FAST_TICK, SignsAs, TICK, Worker};

use super::head::RequestHead;
use super::payload::{PayloadPlan, requires_length};
use super::plan::Plan;
use super::resigned_body::ResignedBody;
use super::sign::{Signed, sign};

/// The time to wait for the body before checking whether Envoy is withholding it from the filter.
const BODY_CHECK: Duration = Duration::from_secs(1);

/// The number of requests whose body is late that are checked on a tick.
const LATE_BODIES: usize = 100;

/// The most bytes of headers that are kept. Larger ones are read again to sign them: a flood of them would be there twice.
const KEPT_HEADERS_MAX: usize = 4096;

/// A held request.
pub(super) struct Held {
    /// The index of its route in the policy.
    route: usize,
    /// Its headers; `None` if they stay with the proxy alone.
    headers: Option<HeaderMap>,
    identity: SignsAs,
    payload: HeldPayload,
    /// Its share of the bounds on held requests; `None` once it continues.
    share: Option<HeldShare>,
    /// The size of its headers.
    header_size: usize,
    /// The size of its body that the proxy buffers: what was seen of it, or may be there unseen.
    body_size: usize,
    /// Times are by [`Clock::elapsed`](crate::worker::Worker::clock).
    since: Duration,
    /// Until when it may wait for credentials; `None` if they are there already.
    credentials_by: Option<Duration>,
    /// The length of a body that had to be seen, once it is complete.
    body_length: Option<usize>,
    /// Trailers follow the body.
    pub(super) has_trailers: bool,
    progress: Progress,
    /// Once signed: what signs the chunks of its body.
    resigned_body: Option<ResignedBody>,
}

enum HeldPayload {
    Known(PayloadHash),
    Hashing { hasher: PayloadHasher, seen: usize },
    Measuring { payload: PayloadHash, seen: usize },
}

/// The progress of a held request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// It goes on.
    Signed,
    /// The client has its answer.
    Answered,
}

impl Held {
    /// Begins to hold the stream's request. `has_credentials` is whether it waits for its body alone.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if the worker holds as much as it may.
    pub(super) fn new<H: Host>(
        worker: &Worker<H>,
        mut share: HeldShare,
        (headers, head): (&HeaderMap, &RequestHead<'_>),
        (route, identity, payload): (&Route, SignsAs, PayloadPlan),
        (ends, has_credentials): (bool, bool),
    ) -> Result<Self, Refusal> {
        let kept = (headers.0.len() <= KEPT_HEADERS_MAX).then(|| headers.clone());
        let (header_size, mut unseen_size) = (headers.byte_size(), 0);
        let payload = match payload {
            PayloadPlan::HashBody => HeldPayload::Hashing { hasher: PayloadHasher::default(), seen: 0 },
            PayloadPlan::MeasureBody(payload) => HeldPayload::Measuring { payload, seen: 0 },
            PayloadPlan::Known(payload) => {
                unseen_size = if ends { 0 } else { head.unseen_size() };
                HeldPayload::Known(payload)
            }
        };
        share
            .set_bytes(held_size(kept.as_ref(), header_size, unseen_size))
            .map_err(|Overloaded| Refusal::Overloaded)?;
        worker.read_clock();
        let since = worker.clock.elapsed();
        Ok(Self {
            route: route.index,
            headers: kept,
            identity,
            payload,
            share: Some(share),
            header_size,
            body_size: unseen_size,
            since,
            credentials_by: (!has_credentials).then(|| since + route.credentials_wait),
            body_length: None,
            has_trailers: false,
            progress: Progress::Waiting,
            resigned_body: None,
        })
    }

    /// Returns whether it is signed with the hash of its body, or sent with its length, so that it has to be seen.
    pub(super) fn needs_body(&self) -> bool {
        matches!(self.payload, HeldPayload::Hashing { .. } | HeldPayload::Measuring { .. })
    }

    /// Returns whether the client has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.progress == Progress::Answered
    }

    /// Returns what signs the chunks of its body, once it is signed.
    pub(super) fn take_resigned_body(&mut self) -> Option<ResignedBody> {
        self.resigned_body.take()
    }

    /// Handles the body, of which the proxy holds `size` bytes, in a callback of its stream.
    pub(super) fn on_body<H: Host>(
        &mut self,
        worker: &Worker<H>,
        requests: &HeldRequests,
        size: usize,
        ends: bool,
    ) -> Progress {
        worker.read_clock();
        if self.progress == Progress::Waiting {
            if let Err(refusal) = self.read_body(&worker.host, size) {
                self.refuse(worker, &refusal);
            }
            if ends {
                self.finish_body();
            }
        }
        self.proceed(worker, requests)
    }

    /// Hashes or counts the part of the body that has arrived since.
    fn read_body(&mut self, host: &impl Host, available: usize) -> Result<(), Refusal> {
        if let Some(share) = &mut self.share {
            // With trailers, the last call has nothing of the body, which the proxy still buffers.
            self.body_size = self.body_size.max(available);
            let size = held_size(self.headers.as_ref(), self.header_size, self.body_size);
            share.set_bytes(size).map_err(|Overloaded| Refusal::Overloaded)?;
        }
        match &mut self.payload {
            HeldPayload::Hashing { hasher, seen } => {
                while *seen < available {
                    let piece = host.body_piece(*seen, available - *seen)?;
                    hasher.update(&piece);
                    *seen += piece.len();
                }
            }
            HeldPayload::Measuring { .. } if available > MEASURED_MAX => {
                return Err(LengthRequired::BodyTooLarge.into());
            }
            HeldPayload::Measuring { seen, .. } => *seen = available.max(*seen),
            HeldPayload::Known(_) => {}
        }
        Ok(())
    }

    /// Takes hash and length of a complete body.
    fn finish_body(&mut self) {
        let (payload, length) = match &mut self.payload {
            HeldPayload::Hashing { hasher, seen } => (std::mem::take(hasher).finish(), *seen),
            HeldPayload::Measuring { payload, seen } => (*payload, *seen),
            HeldPayload::Known(_) => return,
        };
        (self.payload, self.body_length) = (HeldPayload::Known(payload), Some(length));
    }

    /// Signs the request, if everything that a signature needs is there.
    fn proceed<H: Host>(&mut self, worker: &Worker<H>, requests: &HeldRequests) -> Progress {
        if self.progress == Progress::Waiting {
            match self.try_sign(worker, requests) {
                Ok(Progress::Waiting) => {}
                Ok(Progress::Signed) => {
                    self.record_held_time(worker, Outcome::Signed);
                    self.progress = Progress::Signed;
                    // What the client still owes to a refused request stays with the proxy until the stream ends.
                    self.share = None;
                }
                Ok(Progress::Answered) => {
                    self.record_held_time(worker, Outcome::Redirected);
                    self.progress = Progress::Answered;
                }
                Err(refusal) => self.refuse(worker, &refusal),
            }
        }
        self.progress
    }

    fn try_sign<H: Host>(&mut self, worker: &Worker<H>, requests: &HeldRequests) -> Result<Progress, Refusal> {
        let route = worker.policy.routes().get(self.route).ok_or(Refusal::NoRoute)?;
        let now = worker.clock.now();
        let credentials = worker.credentials(&self.identity, now);
        if let Some(by) = self.credentials_by {
            if credentials.is_none() && worker.clock.elapsed() < by && !worker.is_refused(&self.identity) {
                return Ok(Progress::Waiting);
            }
            credentials.as_ref().ok_or_else(|| worker.no_credentials(&self.identity))?;
            self.credentials_by = None;
        }
        let HeldPayload::Known(payload) = self.payload else { return Ok(Progress::Waiting) };
        let credentials = credentials.ok_or_else(|| worker.no_credentials(&self.identity))?;
        let headers = self.headers.take().map_or_else(|| worker.host.headers(MapKind::Request), Ok)?;
        let head = RequestHead::parse(&headers)?;
        let mut buffers = worker.buffers.borrow_mut();
        let plan = Plan::new(route, &head, &mut buffers)?;
        match sign(worker, (&headers, &head), &plan, payload, (&self.identity, &credentials), now)? {
            Signed::Forwarded(body) => {
                self.resigned_body = body.map(|body| ResignedBody::new(body, requests.share_of_parts()));
                self.set_content_length(&worker.host, &head, plan.service)?;
                Ok(Progress::Signed)
            }
            Signed::Redirected => Ok(Progress::Answered),
        }
    }

    /// Says how long the body is, if the client did not. Not with trailers, which HTTP/1.1 allows only after a chunked body,
    /// unless the service takes none of unknown length.
    fn set_content_length(&self, host: &impl Host, head: &RequestHead<'_>, service: &str) -> Result<(), Refusal> {
        match self.body_length {
            Some(length) if head.content_length.is_none() && (!self.has_trailers || requires_length(service)) => {
                Ok(host.add_header(MapKind::Request, "content-length", length.to_string().as_bytes())?)
            }
            _ => Ok(()),
        }
    }

    fn record_held_time<H: Host>(&self, worker: &Worker<H>, outcome: Outcome<'_>) {
        let route = worker.policy.routes().get(self.route);
        worker.metrics.held(route, outcome, worker.clock.elapsed().saturating_sub(self.since));
    }

    fn refuse<H: Host>(&mut self, worker: &Worker<H>, refusal: &Refusal) {
        self.record_held_time(worker, Outcome::Refused(refusal));
        worker.refuse(refusal, worker.policy.routes().get(self.route));
        self.progress = Progress::Answered;
    }

    /// Resumes or fails the request, outside a callback of its stream, if that is due. Returns whether it still waits.
    fn on_tick<H: Host>(&mut self, worker: &Worker<H>, requests: &HeldRequests) -> bool {
        if self.progress != Progress::Waiting {
            return false;
        }
        let progress = self.proceed(worker, requests);
        if progress == Progress::Signed {
            // What the proxy has kept of a body that was not hashed comes to the filter now.
            if let Err(error) = worker.host.resume_request() {
                self.refuse(worker, &error.into());
            }
        }
        if progress == Progress::Waiting && self.is_body_withheld(worker) {
            log::error!("{}", SigningFailure::BodyWithheld);
            self.refuse(worker, &SigningFailure::BodyWithheld.into());
        }
        self.progress == Progress::Waiting
    }

    /// Returns whether parts of the body have reached the proxy and none the filter. So it is where a pause at the headers
    /// stops the body too.
    fn is_body_withheld<H: Host>(&self, worker: &Worker<H>) -> bool {
        self.is_body_unseen()
            && self.is_body_late(worker.clock.elapsed())
            && request_size(&worker.host) > self.header_size as u64
    }

    fn is_body_unseen(&self) -> bool {
        matches!(self.payload, HeldPayload::Hashing { seen: 0, .. } | HeldPayload::Measuring { seen: 0, .. })
    }

    /// Returns whether its body could be here, if the proxy showed it.
    fn is_body_late(&self, elapsed: Duration) -> bool {
        elapsed.saturating_sub(self.since) >= BODY_CHECK
    }
}

/// Returns how many bytes of a request the proxy and the filter hold.
fn held_size(kept: Option<&HeaderMap>, header_size: usize, body_size: usize) -> usize {
    let kept = kept.map_or(0, |kept| kept.0.len());
    header_size.saturating_add(kept).saturating_add(body_size)
}

/// Returns how many bytes of the stream's request have arrived, headers included.
fn request_size(host: &impl Host) -> u64 {
    let bytes = host.property("request\0total_size").ok().flatten().and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// The requests of one policy that a worker holds.
pub struct HeldRequests {
    totals: Rc<HeldTotals>,
    limits: HeldLimits,
    /// Requests that wait for credentials.
    waiting: RefCell<HeldQueue<RefCell<Held>>>,
    /// Requests whose body has not arrived yet; of some it has.
    bodiless: RefCell<HeldQueue<RefCell<Held>>>,
    ticks_fast: Cell<bool>,
}

impl HeldRequests {
    /// Holds nothing yet. `totals` counts for all policies of a worker.
    pub(crate) fn new(totals: Rc<HeldTotals>, limits: HeldLimits) -> Self {
        let (waiting, bodiless) = Default::default();
        Self { totals, limits, waiting, bodiless, ticks_fast: Cell::new(false) }
    }

    /// Returns a share for a request that is about to be held.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if the worker holds as many as it may.
    pub(super) fn share(&self) -> Result<HeldShare, Refusal> {
        HeldShare::of_request(&self.totals, self.limits).map_err(|Overloaded| Refusal::Overloaded)
    }

    /// Returns a share for the parts of a body that are held while its request goes on.
    pub(super) fn share_of_parts(&self) -> HeldShare {
        HeldShare::of_parts(&self.totals, self.limits)
    }

    /// Adds a request of a stream, to be resumed when it can go on. It is forgotten with its stream.
    pub(super) fn add<H: Host>(&self, worker: &Worker<H>, context: u32, held: &Rc<RefCell<Held>>) {
        if held.borrow().credentials_by.is_some() {
            self.waiting.borrow_mut().push(context, held);
            self.set_tick(&worker.host, true);
        } else {
            self.bodiless.borrow_mut().push(context, held);
        }
    }

    /// Resumes requests that can go on and fails those past their deadline: all that wait for credentials are checked if
    /// these have `changed`, else those whose deadline has passed.
    pub(crate) fn resume<H: Host>(&self, worker: &Worker<H>, changed: bool) {
        let elapsed = worker.clock.elapsed();
        let mut waiting = self.waiting.take();
        while let Some((context, held)) =
            waiting.pop_due(|held| changed || held.borrow().credentials_by.is_none_or(|by| elapsed >= by))
        {
            if self.resume_one(worker, context, &held) {
                self.add(worker, context, &held);
            }
        }
        if !waiting.is_empty() {
            self.waiting.replace(waiting);
        }
        self.set_tick(&worker.host, !self.waiting.borrow().is_empty());
    }

    /// Checks the requests of which no body was seen for a while, in the order of their arrival.
    pub(crate) fn check_late_bodies<H: Host>(&self, worker: &Worker<H>) {
        let elapsed = worker.clock.elapsed();
        let mut bodiless = self.bodiless.borrow_mut();
        for _ in 0..bodiless.len().min(LATE_BODIES) {
            let Some((context, held)) = bodiless.pop_due(|held| held.borrow().is_body_late(elapsed)) else { return };
            if self.resume_one(worker, context, &held) && held.borrow().is_body_unseen() {
                bodiless.push(context, &held);
            }
        }
    }

    /// Returns whether the request still waits.
    fn resume_one<H: Host>(&self, worker: &Worker<H>, context: u32, held: &RefCell<Held>) -> bool {
        match worker.host.set_effective_context(context) {
            Ok(()) => held.borrow_mut().on_tick(worker, self),
            Err(error) => {
                log::error!("{error}; will be tried again");
                true
            }
        }
    }

    fn set_tick(&self, host: &impl Host, fast: bool) {
        if self.ticks_fast.get() != fast {
            match host.set_tick_period(if fast { FAST_TICK } else { TICK }) {
                Ok(()) => self.ticks_fast.set(fast),
                Err(error) => log::error!("{error}"),
            }
        }
    }
}
