//! The plugin's life apart from requests: its configuration, its clock and what wakes it.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::host::{self, Buffer};
use crate::intake::{Intake, IntakeCall};
use crate::request::SignedRequest;
use crate::signer::Signer;
use sigv4_core::intake::IntakePolicy;
use sigv4_core::log_limit::UNLIMITED;
use sigv4_core::policy::Policy;

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

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match self.configure() {
            Ok(()) => true,
            Err(error) => {
                log::error!(target: UNLIMITED, "the configuration is refused: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        match &self.role {
            Role::Signer(signer) => signer.tick(),
            Role::Intake(intake) => intake.tick(),
            Role::None => {}
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        if let Role::Signer(signer) = &self.role {
            signer.woken(queue);
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.role {
            Role::Signer(signer) => Some(Box::new(SignedRequest::new(context_id, Rc::clone(signer)))),
            Role::Intake(intake) => Some(Box::new(IntakeCall::new(context_id, Rc::clone(intake)))),
            Role::None => Some(Box::new(Unconfigured)),
        }
    }
}

/// Holds every request: without a configuration nothing is known of what is to be signed.
struct Unconfigured;

impl Context for Unconfigured {}

impl HttpContext for Unconfigured {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> proxy_wasm::types::Action {
        let refusal = sigv4_core::refusal::Refusal::SigningFailed("the filter has no configuration".to_owned());
        crate::local_reply::send(&refusal, None);
        proxy_wasm::types::Action::Pause
    }
}

/// The name of the queue that wakes the watcher of a place.
pub(crate) fn watcher_queue(place: usize) -> String {
    format!("sigv4.watcher.{place}")
}
