//! What a request is refused for before it is signed.

use crate::header_map::HeaderMap;
use crate::host::{Host, HostError, MapKind};
use crate::local_reply::{Refusal, SigningFailure, UnsupportedRequest};
use crate::policy::{Route, UPSTREAM_SCHEME_HEADER};

use super::head::RequestHead;

/// Refuses a request that has the signer's own [`UPSTREAM_SCHEME_HEADER`]. Envoy has chosen its route by it, so nothing that
/// Envoy says of the route can be relied on, and removing the header would not change what it says.
///
/// As an upstream filter, the signer meets its own header again when Envoy retries a request. The upstream is chosen by
/// then.
pub(super) fn refuse_upstream_scheme(
    host: &impl Host,
    headers: &HeaderMap,
    head: &Result<RequestHead<'_>, Refusal>,
) -> Result<(), Refusal> {
    let name = UPSTREAM_SCHEME_HEADER.as_bytes();
    let is_sent = match head {
        Ok(head) => head.sends_upstream_scheme,
        Err(_) => headers.get(name).is_some(),
    };
    if !is_sent {
        return Ok(());
    }
    match host.property("upstream\0address")? {
        Some(address) if !address.is_empty() => Ok(host.remove_header(MapKind::Request, name)?),
        _ => Err(UnsupportedRequest::UpstreamScheme.into()),
    }
}

/// Refuses a request that would leave, signed, through a cluster of Istio's that adds no TLS: the one for hosts that no
/// ServiceEntry has. A route with a target goes to a cluster that the proxy chooses only after signing, which the filter
/// does not see.
pub(super) fn refuse_pass_through(host: &impl Host, route: &Route, head: &RequestHead<'_>) -> Result<(), Refusal> {
    if route.target.is_some() || !route.upstream_tls {
        return Ok(());
    }
    match cluster_name(host)? {
        Some(cluster) if is_pass_through(&cluster) => Err(SigningFailure::NoTls {
            authority: String::from_utf8_lossy(head.authority).into_owned(),
            cluster: String::from_utf8_lossy(&cluster).into_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Returns the name of the upstream's cluster, or else of the one that Envoy's route chooses.
fn cluster_name(host: &impl Host) -> Result<Option<Vec<u8>>, HostError> {
    // The older attribute costs half. It is deprecated, so an Envoy without it is asked for the newer one. Source: Envoy,
    // "Attributes".
    match host.property("cluster_name")?.filter(|name| !name.is_empty()) {
        None => host.property("xds\0cluster_name"),
        found => Ok(found),
    }
}

/// Returns whether a cluster of this name sends to wherever the client was connecting, as it is: `PassthroughCluster`, and for
/// what comes in `InboundPassthroughCluster`, to whose name older releases of Istio add the IP version.
fn is_pass_through(cluster: &[u8]) -> bool {
    cluster == b"PassthroughCluster" || cluster.starts_with(b"InboundPassthroughCluster")
}
