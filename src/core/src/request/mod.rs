//! One request on its way through the signer.
//!
//! Its headers are read in one pass (`head`), its route is selected (`select`), and its caller is admitted (`caller`). It is
//! refused if the policy does not allow it (`checks`, `copy_source`). Then it is planned (`plan`, `payload`), signed (`sign`)
//! and written (`edits`); or it is held (`held`) until its body or its credentials have arrived, and then planned, signed and
//! written.

mod caller;
mod checks;
mod copy_source;
mod edits;
mod head;
mod held;
pub mod payload;
mod plan;
mod resigned_body;
mod response;
mod select;
mod sign;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub use held::HeldRequests;

use crate::host::{Flow, Host, HostError, MapKind};
use crate::local_reply::{Outcome, Refusal, UnsupportedRequest};
use crate::policy::Route;
use crate::signing::is_s3;
use crate::worker::Worker;

use head::RequestHead;
use held::{Held, Progress};
use payload::PayloadPlan;
use plan::Plan;
use resigned_body::ResignedBody;
use sign::{Signed, sign};

/// The request of one HTTP stream.
pub struct Request<H: Host> {
    context: u32,
    worker: Rc<Worker<H>>,
    held_requests: Rc<HeldRequests>,
    /// The index of its route in the policy; `None` if no route takes it.
    route: Option<usize>,
    /// `true` if the worker [samples](crate::worker) it.
    is_sampled: bool,
    /// The host that it was signed for, if it is sampled and its route does not fix that: responses may tell its clock.
    authority: Vec<u8>,
    state: State,
}

/// The state of the request. Only [`State::Passing`] and [`State::ResigningChunks`] are sent on.
enum State {
    /// Its headers have not been seen.
    New,
    /// Signed, or not to be signed.
    Passing,
    /// Signed, and the chunks of its body are signed as they pass.
    ResigningChunks(ResignedBody),
    /// Shared with the worker, whose clock may sign or refuse it.
    Held(Rc<RefCell<Held>>),
    /// The client has its answer.
    Answered,
}

impl<H: Host> Request<H> {
    /// Takes a stream's request, of which nothing is known yet.
    pub(crate) fn new(context: u32, worker: Rc<Worker<H>>, held_requests: Rc<HeldRequests>) -> Self {
        let (route, is_sampled, authority, state) = (None, false, Vec::new(), State::New);
        Self { context, worker, held_requests, route, is_sampled, authority, state }
    }

    /// Signs the request, or holds it, or lets it pass if no route takes it; `ends` is whether no body follows.
    pub(crate) fn on_request_headers(&mut self, ends: bool) -> Flow {
        self.is_sampled = self.worker.sampling.should_sample();
        if self.is_sampled {
            select::report_ignored_override(&self.worker);
            self.worker.read_clock();
        }
        let started = self.worker.clock.elapsed();
        let begun = self.begin(ends);
        if self.is_sampled {
            self.record_signing_time(started, &begun);
        }
        self.state = begun.unwrap_or_else(|refusal| self.refuse(&refusal));
        self.publish();
        match &self.state {
            State::Passing | State::ResigningChunks(_) => Flow::Continue,
            // Nothing of the body need be known, and it streams once there are credentials.
            State::Held(held) if !held.borrow().needs_body() => Flow::StopUnread,
            State::New | State::Held(_) | State::Answered => Flow::Stop,
        }
    }

    fn begin(&mut self, ends: bool) -> Result<State, Refusal> {
        let worker = Rc::clone(&self.worker);
        let (host, policy) = (&worker.host, &worker.policy);
        let headers = host.headers(MapKind::Request)?;
        let head = RequestHead::parse(&headers);
        checks::refuse_upstream_scheme(host, &headers, &head)?;
        let Some(route) = select::select_route(policy, host, &headers, &head)? else { return Ok(State::Passing) };
        // Of siblings, none is the request's before its caller is known.
        self.route = route.siblings.is_empty().then_some(route.index);
        let head = head?;
        let (route, identity) = caller::admit(&worker, route)?;
        self.route = Some(route.index);
        checks::refuse_pass_through(host, route, &head)?;
        let mut buffers = worker.buffers.borrow_mut();
        let plan = Plan::new(route, &head, &mut buffers)?;
        if self.is_sampled && !route.has_fixed_authority() {
            self.authority = plan.authority.to_vec();
        }
        if is_s3(plan.service) {
            route.check_host_names_no_bucket(head.authority).map_err(UnsupportedRequest::from)?;
        }
        if is_s3(plan.service) || route.takes_clients_service() {
            copy_source::check_copy_source(policy, route, &headers, &head).map_err(Refusal::InvalidCopySource)?;
        }
        let payload = plan.payload(host, &head, ends).map_err(UnsupportedRequest::from)?;
        let now = worker.clock.now();
        let credentials = worker.credentials(&identity, now);
        let (payload, has_credentials) = match (payload, credentials) {
            (PayloadPlan::Known(payload), Some(credentials)) => {
                return match sign(&worker, (&headers, &head), &plan, payload, (&identity, &credentials), now)? {
                    Signed::Forwarded(None) => Ok(State::Passing),
                    Signed::Forwarded(Some(body)) => {
                        let body = ResignedBody::new(body, self.held_requests.share_of_parts());
                        // Even an empty body has a last chunk.
                        if ends { body.finish().map(|()| State::Passing) } else { Ok(State::ResigningChunks(body)) }
                    }
                    Signed::Redirected => Ok(State::Answered),
                };
            }
            (_, None) if route.credentials_wait.is_zero() => return Err(worker.no_credentials(&identity)),
            (payload, credentials) => (payload, credentials.is_some()),
        };
        let (share, given) = (self.held_requests.share()?, (ends, has_credentials));
        let held = Held::new(&worker, share, (&headers, &head), (route, identity, payload), given)?;
        // Envoy itself answers should the body outgrow its buffer, and that answer can name the route.
        worker.describe("sigv4.route", &route.name);
        let held = Rc::new(RefCell::new(held));
        self.held_requests.add(&worker, self.context, &held);
        Ok(State::Held(held))
    }

    /// Records how long the filter took at the headers, unless the request passes unsigned or is held.
    fn record_signing_time(&self, started: Duration, begun: &Result<State, Refusal>) {
        let outcome = match begun {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(State::Answered) => Outcome::Redirected,
            Ok(State::Passing | State::ResigningChunks(_)) if self.route.is_some() => Outcome::Signed,
            Ok(_) => return,
        };
        self.worker.read_clock();
        let took = self.worker.clock.elapsed().saturating_sub(started);
        self.worker.metrics.took(self.route(), outcome, took);
    }

    /// Answers the client with a refusal.
    fn refuse(&self, refusal: &Refusal) -> State {
        self.worker.refuse(refusal, self.route());
        State::Answered
    }

    /// Publishes what has been counted, so that a worker with little to do shows each request immediately.
    fn publish(&self) {
        if self.is_sampled {
            self.worker.metrics.publish();
        }
    }

    fn route(&self) -> Option<&Route> {
        self.worker.policy.routes().get(self.route?)
    }

    /// Handles the body, of which the proxy holds `size` bytes; `ends` is whether it is complete.
    pub(crate) fn on_request_body(&mut self, size: usize, ends: bool) -> Flow {
        let flow = self.on_body(size, ends);
        self.publish();
        flow
    }

    fn on_body(&mut self, size: usize, ends: bool) -> Flow {
        if let State::Held(held) = &self.state {
            let mut held = held.borrow_mut();
            match held.on_body(&self.worker, &self.held_requests, size, ends) {
                Progress::Waiting | Progress::Answered => return Flow::Stop,
                Progress::Signed => {}
            }
            let resigned_body = held.take_resigned_body();
            drop(held);
            self.state = resigned_body.map_or(State::Passing, State::ResigningChunks);
        }
        match &mut self.state {
            State::Passing => Flow::Continue,
            State::ResigningChunks(body) => match body.resign(&self.worker.host, size, ends) {
                Ok(()) => Flow::Continue,
                Err(refusal) => {
                    self.state = self.refuse(&refusal);
                    Flow::Stop
                }
            },
            State::New | State::Held(_) | State::Answered => Flow::Stop,
        }
    }

    /// Handles trailers, which end the body without an end of stream on it.
    pub(crate) fn on_request_trailers(&mut self) -> Flow {
        if let State::Held(held) = &self.state {
            held.borrow_mut().has_trailers = true;
        }
        self.on_request_body(0, true)
    }

    /// Handles the headers of the upstream's response.
    pub(crate) fn on_response_headers(&self) {
        let is_answered = match &self.state {
            State::Answered => true,
            State::Held(held) => held.borrow().is_answered(),
            State::New | State::Passing | State::ResigningChunks(_) => false,
        };
        if is_answered {
            return;
        }
        if let Some(route) = self.route()
            && let Err(error) = self.on_response(route)
        {
            log::error!("{error}; the response's headers pass as they are");
        }
    }

    fn on_response(&self, route: &Route) -> Result<(), HostError> {
        if self.is_sampled {
            response::check_clock(&self.worker, route, &self.authority)?;
        }
        response::apply_rules(&self.worker.host, &route.response_headers)
    }
}

#[cfg(test)]
mod tests;
