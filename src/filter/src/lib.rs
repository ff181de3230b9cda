//! The filter in the proxy: proxy-wasm's exports and host calls, and the log. `sigv4-core` makes every decision.
//!
//! Virtual machines with the same `vm_id` share data, which is how credentials that one worker's intake receives reach
//! the signers on all workers.
#![cfg(target_arch = "wasm32")]

mod exports;
mod host;
mod logger;
