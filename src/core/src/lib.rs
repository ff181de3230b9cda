//! Signs HTTP requests with AWS Signature Version 4, by a policy: what the Envoy filter decides, without a proxy.
//!
//! `sigv4-filter` puts it on proxy-wasm, and `credential-refresher` shares its types.
//!
//! | module | its job |
//! | --- | --- |
//! | [`aws_endpoint`] | the signing name and region that a host name implies |
//! | [`clock_skew`] | how far the clocks of upstreams are from the proxy's |
//! | [`connection`] | what Envoy has verified of a client: its certificate, its token, its Unix socket |
//! | [`credentials`] | what is pushed into the proxy, for whom, and how long it is valid |
//! | [`header_map`] | the form in which the proxy hands maps over |
//! | [`held`] | requests that can't continue yet: the bounds on them, and their order |
//! | [`host`] | the calls to the proxy |
//! | [`instant`] | points in time from text and back, without a panic |
//! | [`intake`] | the private API through which credentials come in |
//! | [`local_reply`] | the answers that the filter gives instead of an upstream's |
//! | [`log_limit`] | warnings that requests can cause, limited to one a second |
//! | [`path`] | the request's path: checked, read as upstreams may, appended to its target's |
//! | [`plugin`] | a plugin's configuration, clock and streams |
//! | [`policy`] | the signing policy: checked, compiled, and matched |
//! | [`request`] | a request on its way through the signer |
//! | [`signing`] | a checked request turned into a signed one |
//! | `wakeup` | how workers learn of new credentials |
//! | [`worker`] | what the requests of one worker share |

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
mod wakeup;
pub mod worker;
