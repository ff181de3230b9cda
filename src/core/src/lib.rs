//! Signs HTTP requests with AWS Signature Version 4, by a policy: the decisions of the Envoy filter, without a proxy.
//!
//! `sigv4-filter` binds it to proxy-wasm, and `credential-refresher` shares its types.
//!
//! | module | its job |
//! | --- | --- |
//! | [`aws_endpoint`] | the signing name and region that a host name implies |
//! | [`clock_skew`] | the difference between the clocks of upstreams and the proxy's |
//! | [`connection`] | the properties of a client that Envoy has verified: its certificate, its token, its Unix socket |
//! | [`credentials`] | credentials: their identity, their document, and their store in the proxy |
//! | [`header_map`] | the proxy's serialized form of maps |
//! | [`held`] | requests that can't continue yet: the bounds on them, and their order |
//! | [`host`] | the calls to the proxy |
//! | [`instant`] | conversion of points in time from and to text, without a panic |
//! | [`intake`] | the private API that receives credentials |
//! | [`local_reply`] | the answers that the filter gives instead of an upstream's |
//! | [`log_limit`] | warnings that requests can cause, limited to one a second |
//! | [`path`] | the request's path: checked, read as upstreams may, appended to its target's |
//! | [`plugin`] | a plugin's configuration, clock and streams |
//! | [`policy`] | the signing policy: checked, compiled, and matched |
//! | [`request`] | a request on its way through the signer |
//! | [`signing`] | a checked request turned into a signed one |
//! | `wakeup` | notification of workers about new credentials |
//! | [`worker`] | state shared by the requests of one worker |

pub mod aws_endpoint;
pub mod clock_skew;
pub mod connection;
pub mod credentials;
pub mod header_map;
pub mod held;
pub mod host;
pub mod instant;
pub mod intake;
pub mod local_reply;
pub mod log_limit;
pub mod path;
pub mod plugin;
pub mod policy;
pub mod request;
pub mod signing;
#[cfg(test)]
mod test_support;
mod wakeup;
pub mod worker;
