//! An HTTP filter for Envoy that signs requests with AWS Signature Version 4.
//!
//! The crate is built twice. For `wasm32` it is the filter itself; natively it is the library that
//! `credential-refresher`, the tests and the benches link. Everything that needs no proxy is plain Rust and is
//! tested natively; only the `filter` module knows proxy-wasm.
//!
//! | module | its job |
//! | --- | --- |
//! | [`credentials`] | what is pushed into the proxy, for whom, and how long it holds |
//! | [`path`] | the request's path checked, and put behind its target's |
//! | [`signing`] | a checked request turned into a signed one |

pub mod credentials;
pub mod path;
pub mod signing;
