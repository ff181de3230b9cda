//! The calls that the filter makes to its proxy. `sigv4-filter` makes them over proxy-wasm.

use std::time::{Duration, SystemTime};

use crate::credentials::SharedData;
use crate::header_map::HeaderMap;

#[cfg(test)]
pub(crate) mod mock;

/// The ABI's status of what the proxy does not have.
pub const NOT_FOUND: u32 = 1;

/// A host call that the proxy refused, with its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proxy refused {call} with status {status}")]
pub struct HostError {
    /// The call, without its prefix `proxy_`.
    pub call: &'static str,
    /// The status, as the ABI numbers it.
    pub status: u32,
}

/// A header map of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// The request's headers.
    Request,
    /// The response's headers.
    Response,
}

/// The most of a body that the filter copies at a time. The proxy may have received megabytes since the last callback, and
/// the memory of a virtual machine never shrinks.
const BODY_PIECE: usize = 64 * 1024;

/// A kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A counter.
    Counter,
    /// A gauge.
    Gauge,
    /// A histogram.
    Histogram,
}

/// The proxy's next step with a request or response after a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It continues.
    Continue,
    /// It stops. Its body is buffered and passed to the filter as it arrives; one that exceeds the buffer gets 413.
    Stop,
    /// It stops at its headers. Its body is not passed to the filter, and the proxy reads no more of it than its buffer
    /// holds.
    StopUnread,
}

/// The proxy, during one callback of a stream or of the plugin. Headers, body and properties are those of the callback's
/// stream, or of the [effective context](Host::set_effective_context).
///
/// Calls return their failure and never panic: a panic ends the virtual machine.
pub trait Host: SharedData + Clone {
    /// Returns the proxy's wall-clock time, or the epoch if it has none, at which nothing can be validly signed.
    fn now(&self) -> SystemTime;

    /// Returns the plugin's configuration.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn configuration(&self) -> Result<Vec<u8>, HostError>;

    /// Returns all headers.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn headers(&self, map: MapKind) -> Result<HeaderMap, HostError>;

    /// Returns a header's value; empty if there is none.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn header(&self, map: MapKind, name: &str) -> Result<Vec<u8>, HostError>;

    /// Adds a header. Cheaper than [`Host::replace_header`], for a new name.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn add_header(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), HostError>;

    /// Sets a header instead of all of that name.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn replace_header(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), HostError>;

    /// Removes all headers of a name.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn remove_header(&self, map: MapKind, name: &[u8]) -> Result<(), HostError>;

    /// Returns bytes of the request's body from the proxy's buffer; empty if it has none there.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn body(&self, start: usize, size: usize) -> Result<Vec<u8>, HostError>;

    /// Returns the next piece of the request's body, of which the proxy holds `left` more bytes from `start` on.
    ///
    /// # Errors
    /// If the proxy refuses the call, or does not hold them.
    fn body_piece(&self, start: usize, left: usize) -> Result<Vec<u8>, HostError> {
        let piece = self.body(start, left.min(BODY_PIECE))?;
        if piece.is_empty() { Err(HostError { call: "get_buffer_bytes", status: NOT_FOUND }) } else { Ok(piece) }
    }

    /// Removes bytes from the beginning of the request's body in the proxy's buffer.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn drain_body(&self, size: usize) -> Result<(), HostError>;

    /// Appends bytes to the request's body in the proxy's buffer.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn append_to_body(&self, bytes: &[u8]) -> Result<(), HostError>;

    /// Returns a property; the parts of its path are divided by NUL. `None` if there is no such property.
    ///
    /// # Errors
    /// If the proxy refuses the call: what it does not tell must not be taken for absent.
    fn property(&self, path: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Sets a property in the stream's filter state, under `wasm.` and its path.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn set_property(&self, path: &str, value: &[u8]) -> Result<(), HostError>;

    /// Resumes the stream's request after this callback.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn resume_request(&self) -> Result<(), HostError>;

    /// Answers the stream's request; `details` is `%RESPONSE_CODE_DETAILS%` in the access log.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn send_local_reply(
        &self,
        status: u16,
        details: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), HostError>;

    /// Makes later calls act on another context: a stream's, from the plugin's.
    ///
    /// # Errors
    /// If there is no such context.
    fn set_effective_context(&self, context: u32) -> Result<(), HostError>;

    /// Sets the period of the plugin's tick.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn set_tick_period(&self, period: Duration) -> Result<(), HostError>;

    /// Subscribes this plugin to a queue.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn register_queue(&self, name: &str) -> Result<(), HostError>;

    /// Puts an empty message into a queue of a `vm_id`; its plugin is notified on its own thread.
    ///
    /// # Errors
    /// If there is no such queue.
    fn notify_queue(&self, vm_id: &[u8], name: &str) -> Result<(), HostError>;

    /// Takes all messages from a queue.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn drain_queue(&self, token: u32) -> Result<(), HostError>;

    /// Returns the id of a metric, and defines the metric if it is new.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError>;

    /// Adds to a counter.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn increment_metric(&self, id: u32, by: u32) -> Result<(), HostError>;

    /// Sets a gauge, or adds a value to a histogram.
    ///
    /// # Errors
    /// If the proxy refuses the call.
    fn record_metric(&self, id: u32, value: u64) -> Result<(), HostError>;
}
