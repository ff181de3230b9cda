//! The filter in the proxy: the glue between proxy-wasm's callbacks and the plain modules.
//!
//! One binary, two roles, chosen by the plugin's configuration: a *signer* on the traffic listener and an *intake*
//! on a private one. Virtual machines of one `vm_id` share data, which is how what the intake takes in reaches the
//! signers on all workers.
//!
//! What can be decided without a proxy is in `sigv4-core`.
#![cfg(target_arch = "wasm32")]

mod exports;
mod host;
mod intake;
mod local_reply;
mod logger;
mod metrics;
mod request;
mod root;
mod sampling;
mod signer;
