//! The plugin's life apart from requests: its configuration, its clock and what wakes it.

use std::rc::Rc;

use crate::exports::{Flow, Stream};
use crate::host::{self, Buffer};
use crate::intake::{Intake, IntakeCall};
use crate::request::SignedRequest;
use crate::signer::Signer;
use sigv4_core::intake::IntakePolicy;
use sigv4_core::log_limit::UNLIMITED;
use sigv4_core::policy::Policy;
use sigv4_core::refusal::Refusal;

/// The root context: one for each plugin configuration and worker.
#[derive(Default)]
pub(crate) struct Root {
    role: Role,
}

/// What the configuration makes of this plugin.
#[derive(Default)]
enum Role {
    /// Before the configuration, and where it was refused.
    #[default]
    None,
    Signer(Rc<Signer>),
    Intake(Rc<Intake>),
}

impl Root {
    fn configure(&mut self) -> Result<(), String> {
        let configuration =
            host::buffer(Buffer::PluginConfiguration, 0, usize::MAX).map_err(|error| error.to_string())?;
        self.take_role(&configuration).map_err(|error| match configuration.first() {
            // The tag of a serialized Struct's first field; as text, a line's end, with which few policies begin.
            Some(b'\n') => format!(
                "{error}; is it a google.protobuf.Struct? Envoy hands that over as protobuf: write the policy as JSON in a \
                 google.protobuf.StringValue"
            ),
            _ => error,
        })
    }

    /// Takes the plugin's configuration, and whether it can be used.
    pub(crate) fn on_configure(&mut self) -> bool {
        match self.configure() {
            Ok(()) => true,
            Err(error) => {
                log::error!(target: UNLIMITED, "the configuration is refused: {error}");
                false
            }
        }
    }

    pub(crate) fn on_tick(&self) {
        match &self.role {
            Role::Signer(signer) => signer.tick(),
            Role::Intake(intake) => intake.tick(),
            Role::None => {}
        }
    }

    pub(crate) fn on_queue_ready(&self, queue: u32) {
        if let Role::Signer(signer) = &self.role {
            signer.woken(queue);
        }
    }

    /// Returns the context of a stream that begins.
    pub(crate) fn stream(&self, context: u32) -> Stream {
        match &self.role {
            Role::Signer(signer) => Stream::Signed(Box::new(SignedRequest::new(context, Rc::clone(signer)))),
            Role::Intake(intake) => Stream::Intake(Box::new(IntakeCall::new(context, Rc::clone(intake)))),
            Role::None => Stream::Unconfigured,
        }
    }

    fn take_role(&mut self, configuration: &[u8]) -> Result<(), String> {
        self.role = if IntakePolicy::is_meant(configuration) {
            let policy = IntakePolicy::from_json(configuration).map_err(|error| error.to_string())?;
            Role::Intake(Rc::new(Intake::start(policy).map_err(|error| error.to_string())?))
        } else {
            let policy = Policy::from_json(configuration).map_err(|error| error.to_string())?;
            let signer = Signer::start(policy, configuration).map_err(|error| error.to_string())?;
            Role::Signer(Rc::new(signer))
        };
        Ok(())
    }
}

/// Refuses a request: without a configuration nothing is known of what is to be signed.
pub(crate) fn refuse_unconfigured() -> Flow {
    crate::local_reply::send(&Refusal::SigningFailed("the filter has no configuration".to_owned()), None);
    Flow::Stop
}

/// The name of the queue that wakes the watcher of a place.
pub(crate) fn watcher_queue(place: usize) -> String {
    format!("sigv4.watcher.{place}")
}
