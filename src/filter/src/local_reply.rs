//! Answers the client in place of the upstream.

use crate::host;
use sigv4_core::refusal::Refusal;

/// Answers the current stream with a refusal. The stream must be paused after that.
pub(crate) fn send(refusal: &Refusal, route: Option<&str>) {
    log::debug!("refused with {}: {refusal}", refusal.code());
    let body = refusal.body(route);
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(refusal.retry_after().map(|seconds| ("retry-after", seconds)));
    if let Err(error) = host::send_local_reply(refusal.status(), refusal.code(), &headers, &body) {
        // The stream stays paused and ends with the client's or the route's timeout; it is never sent on.
        log::error!("{error}");
    }
}

/// Sends the client to a URL, with the same method and body (307). The stream must be paused after that.
pub(crate) fn redirect(url: &str) {
    // A presigned URL is a key for as long as it holds.
    let headers = [("location", url), ("cache-control", "no-store")];
    if let Err(error) = host::send_local_reply(307, "Presigned", &headers, b"") {
        log::error!("{error}");
    }
}
