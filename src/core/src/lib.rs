//! Signs HTTP requests with AWS Signature Version 4, by a policy: what the Envoy filter decides, without a proxy.
//!
//! `sigv4-filter` puts it on proxy-wasm, and `credential-refresher` shares its types.
//!
//! | module | its job |
//! | --- | --- |
//! | [`authentication`] | whether Envoy has verified a request's token |
//! | [`aws_endpoint`] | the signing name and region that a host name tells |
//! | [`clock_skew`] | how far the clocks of upstreams are from the proxy's |
//! | [`credentials`] | what is pushed into the proxy, for whom, and how long it holds |
//! | [`held`] | requests that can't go on yet: the bounds on them, and their order |
//! | [`instant`] | points in time from text and back, without a panic |
//! | [`intake`] | the private API through which credentials come in |
//! | [`log_limit`] | warnings that requests can cause, kept to one a second |
//! | [`pairs`] | the form in which the proxy hands maps over |
//! | [`path`] | the request's path: checked, read as upstreams may, appended to its target's |
//! | [`payload`] | when the hash of a body is known |
//! | [`policy`] | the signing policy: checked, compiled, and matched |
//! | [`refusal`] | the answers that the filter gives in place of an upstream's |
//! | [`signing`] | a checked request turned into a signed one |

pub mod authentication;
pub mod aws_endpoint;
pub mod clock_skew;
pub mod credentials;
pub mod held;
pub mod instant;
pub mod intake;
pub mod log_limit;
pub mod pairs;
pub mod path;
pub mod payload;
pub mod policy;
pub mod refusal;
pub mod signing;
#[cfg(test)]
mod test_support;
