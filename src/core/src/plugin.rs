//! A plugin outside of its streams: its configuration, its clock, and its notifications.
//!
//! One binary has two roles, chosen by the configuration: a *signer* on the traffic listener, an *intake* on a private one.

use std::rc::Rc;

use crate::held::HeldTotals;
use crate::host::{Flow, Host};
use crate::intake::IntakeConfig;
use crate::intake::worker::{Intake, IntakeCall};
use crate::local_reply::{self, SigningFailure};
use crate::log_limit::UNLIMITED;
use crate::policy::Policy;
use crate::request::{HeldRequests, Request};
use crate::worker::Worker;

/// A plugin: one for each configuration and worker.
pub struct Plugin<H: Host> {
    host: H,
    held_totals: Rc<HeldTotals>,
    role: Role<H>,
}

enum Role<H: Host> {
    /// Before the configuration, or if it was rejected.
    None,
    Signer {
        worker: Rc<Worker<H>>,
        held: Rc<HeldRequests>,
    },
    Intake(Rc<Intake<H>>),
}

impl<H: Host> Plugin<H> {
    /// Makes a plugin without a configuration. `held_totals` is shared by all plugins of a virtual machine.
    pub fn new(host: H, held_totals: Rc<HeldTotals>) -> Self {
        Self { host, held_totals, role: Role::None }
    }

    /// Reads the configuration. Returns whether it can be used.
    pub fn on_configure(&mut self) -> bool {
        match self.configure() {
            Ok(()) => true,
            Err(error) => {
                log::error!(target: UNLIMITED, "the configuration is rejected: {error}");
                false
            }
        }
    }

    fn configure(&mut self) -> Result<(), String> {
        let configuration = self.host.configuration().map_err(|error| error.to_string())?;
        self.role = self.role_of(&configuration).map_err(|error| match configuration.first() {
            // The tag of a serialized Struct's first field; as text, a line feed, with which few policies begin.
            Some(b'\n') => format!(
                "{error}; is it a google.protobuf.Struct? Envoy passes that as protobuf; write the policy as JSON in a \
                 google.protobuf.StringValue"
            ),
            _ => error,
        })?;
        Ok(())
    }

    fn role_of(&self, configuration: &[u8]) -> Result<Role<H>, String> {
        if IntakeConfig::is_intake_config(configuration) {
            let policy = IntakeConfig::from_json(configuration).map_err(|error| error.to_string())?;
            let intake = Intake::start(self.host.clone(), policy).map_err(|error| error.to_string())?;
            return Ok(Role::Intake(Rc::new(intake)));
        }
        let policy = Policy::from_json(configuration).map_err(|error| error.to_string())?;
        policy.notes().for_each(|note| log::warn!(target: UNLIMITED, "{note}"));
        let held = HeldRequests::new(Rc::clone(&self.held_totals), policy.held_limits);
        let worker = Worker::start(self.host.clone(), policy, configuration).map_err(|error| error.to_string())?;
        Ok(Role::Signer { worker: Rc::new(worker), held: Rc::new(held) })
    }

    /// Does what is due for the worker and for held requests.
    pub fn on_tick(&self) {
        match &self.role {
            Role::Signer { worker, held } => {
                worker.read_clock();
                held.resume(worker, worker.reload());
                if worker.on_tick() {
                    held.check_late_bodies(worker);
                }
                worker.metrics.publish();
            }
            Role::Intake(intake) => intake.on_tick(),
            Role::None => {}
        }
    }

    /// Reloads credentials after another worker's notification.
    pub fn on_queue_ready(&self, queue: u32) {
        if let Role::Signer { worker, held } = &self.role {
            worker.on_wakeup(queue);
            worker.read_clock();
            held.resume(worker, worker.reload());
            worker.metrics.publish();
        }
    }

    /// Returns the state of a new stream.
    pub fn stream(&self, context: u32) -> Stream<H> {
        match &self.role {
            Role::Signer { worker, held } => {
                Stream::Signed(Box::new(Request::new(context, Rc::clone(worker), Rc::clone(held))))
            }
            Role::Intake(intake) => Stream::Intake(Box::new(IntakeCall::new(context, Rc::clone(intake)))),
            Role::None => Stream::Unconfigured(self.host.clone()),
        }
    }
}

/// A stream, by the role of its plugin.
pub enum Stream<H: Host> {
    /// A request to sign.
    Signed(Box<Request<H>>),
    /// A call of the intake.
    Intake(Box<IntakeCall<H>>),
    /// A request of a plugin without a configuration, and so without a policy.
    Unconfigured(H),
}

impl<H: Host> Stream<H> {
    /// Handles the headers of a request; `ends` is `true` if no body follows.
    pub fn on_request_headers(&mut self, ends: bool) -> Flow {
        match self {
            Self::Signed(request) => request.on_request_headers(ends),
            Self::Intake(call) => call.on_request_headers(ends),
            Self::Unconfigured(host) => {
                local_reply::send(host, &SigningFailure::NoConfiguration.into(), None);
                Flow::Stop
            }
        }
    }

    /// Handles the body of a request, of which the proxy holds `size` bytes; `ends` is `true` if it is complete.
    pub fn on_request_body(&mut self, size: usize, ends: bool) -> Flow {
        match self {
            Self::Signed(request) => request.on_request_body(size, ends),
            Self::Intake(call) => call.on_request_body(size, ends),
            Self::Unconfigured(_) => Flow::Stop,
        }
    }

    /// Handles trailers, which end the body.
    pub fn on_request_trailers(&mut self) -> Flow {
        match self {
            Self::Signed(request) => request.on_request_trailers(),
            Self::Intake(call) => call.on_request_trailers(),
            Self::Unconfigured(_) => Flow::Stop,
        }
    }

    /// Handles the headers of a response.
    pub fn on_response_headers(&mut self) {
        if let Self::Signed(request) = self {
            request.on_response_headers();
        }
    }
}
