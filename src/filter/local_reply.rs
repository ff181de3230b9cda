//! Sends a refusal to the client.

use super::host;
use crate::refusal::Refusal;

/// Answers the current stream with a refusal. The stream must be paused after that.
pub(super) fn send(refusal: &Refusal, route: Option<&str>) {
    log::debug!("refused with {}: {refusal}", refusal.code());
    let body = refusal.body(route);
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(refusal.retry_after().map(|seconds| ("retry-after", seconds)));
    if let Err(error) = host::send_local_reply(refusal.status(), refusal.code(), &headers, &body) {
        // The stream stays paused and ends with the client's or the route's timeout; it is never sent on.
        log::error!("{error}");
    }
}
