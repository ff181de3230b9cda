//! The proxy's host calls that the filter uses, each one fallible and on bytes.
//!
//! The wrappers of proxy-wasm's SDK panic on a status that they don't expect and on names that are not UTF-8, copy every
//! header into a vector of its own and build a path for each property. A panic ends the virtual machine, and the
//! copies are most of what signing would cost, so the calls are bound here. ABI: proxy-wasm 0.2.1.

// The one place that talks to the host. Every call passes pointers and lengths of live slices, which the host only
// reads while the call lasts, and takes back buffers as `owned` says.
#![allow(unsafe_code)]

use std::ptr;
use std::time::{Duration, SystemTime};

use sigv4_core::credentials::{SetError, SharedData};
use sigv4_core::pairs::pairs;

/// A host call that the proxy refused, with its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proxy refused {call} with status {status}")]
pub(crate) struct HostError {
    call: &'static str,
    status: u32,
}

const NOT_FOUND: u32 = 1;
const EMPTY: u32 = 7;
const CAS_MISMATCH: u32 = 8;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: *const u8, data_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, value_size: usize, cas: u32) -> u32;
    fn proxy_register_shared_queue(name: *const u8, name_size: usize, token: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(
        vm_id: *const u8,
        vm_id_size: usize,
        name: *const u8,
        name_size: usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_dequeue_shared_queue(token: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_enqueue_shared_queue(token: u32, data: *const u8, size: usize) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

fn check(call: &'static str, status: u32) -> Result<(), HostError> {
    if status == 0 { Ok(()) } else { Err(HostError { call, status }) }
}

/// Makes a call that hands a buffer back and takes the buffer over.
fn owned(call: &'static str, make: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let mut data: *mut u8 = ptr::null_mut();
    let mut size = 0;
    check(call, make(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host fills a block that it asked of `exports::allocate` for this call, which makes a boxed slice of
    // exactly `size` bytes; nobody else holds it, and the host forgets it with the call's end.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Which of a stream's header maps.
#[derive(Clone, Copy)]
pub(crate) enum Map {
    Request = 0,
    Response = 2,
}

/// Which of the proxy's buffers.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    RequestBody = 0,
    PluginConfiguration = 7,
}

/// Which kind of metric.
#[derive(Clone, Copy)]
pub(crate) enum Metric {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

/// A level of the proxy's log.
#[derive(Clone, Copy)]
pub(crate) enum LogLevel {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

/// A header map as the host hands it over, in one block.
pub(crate) struct HeaderMap(Vec<u8>);

impl HeaderMap {
    /// Reads a header map of the current stream in one call.
    pub(crate) fn read(map: Map) -> Result<Self, HostError> {
        // SAFETY: see the module's head.
        owned("get_header_map_pairs", |data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
            .map(Self)
    }

    /// How long all names and values are together, as the proxy counts headers.
    pub(crate) fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Names, in lower case as Envoy keeps them, and values, in the order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        pairs(&self.0)
    }
}

/// A header's value; empty where there is none.
pub(crate) fn header(map: Map, name: &[u8]) -> Result<Vec<u8>, HostError> {
    // SAFETY: see the module's head.
    let value = owned("get_header_map_value", |data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    });
    match value {
        Err(HostError { status: NOT_FOUND, .. }) => Ok(Vec::new()),
        value => value,
    }
}

/// Adds a header. Cheaper than [`replace_header`], for a name that is not there.
pub(crate) fn add_header(map: Map, name: &[u8], value: &[u8]) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("add_header_map_value", unsafe {
        proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Sets a header in place of all of that name.
pub(crate) fn replace_header(map: Map, name: &[u8], value: &[u8]) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("replace_header_map_value", unsafe {
        proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Takes off all headers of a name.
pub(crate) fn remove_header(map: Map, name: &[u8]) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("remove_header_map_value", unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Writes a line of the proxy's log. There is nobody to tell if it can't.
pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: see the module's head.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// The proxy's wall clock; the epoch where it gives none, which no credentials and no verifier accept.
pub(crate) fn now() -> SystemTime {
    let mut nanoseconds = 0;
    // SAFETY: see the module's head.
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
    SystemTime::UNIX_EPOCH + Duration::from_nanos(if status == 0 { nanoseconds } else { 0 })
}

/// Bytes of a buffer; empty where it has none there.
pub(crate) fn buffer(buffer: Buffer, start: usize, max: usize) -> Result<Vec<u8>, HostError> {
    // SAFETY: see the module's head.
    let read = owned("get_buffer_bytes", |data, size| unsafe {
        proxy_get_buffer_bytes(buffer as u32, start, max, data, size)
    });
    match read {
        Err(HostError { status: NOT_FOUND, .. }) => Ok(Vec::new()),
        read => read,
    }
}

/// Puts bytes in place of the first `size` bytes of a buffer.
pub(crate) fn replace_buffer(buffer: Buffer, size: usize, bytes: &[u8]) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("set_buffer_bytes", unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) })
}

/// A property of the current stream; the path's parts are divided by NUL. `None` where there is no such property.
pub(crate) fn property(path: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: see the module's head.
    owned("get_property", |data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }).ok()
}

/// Keeps a property in the current stream's filter state, under `wasm.` and its path.
pub(crate) fn set_property(path: &[u8], value: &[u8]) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("set_property", unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// The shared data of all virtual machines with this one's `vm_id`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProxySharedData;

impl SharedData for ProxySharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        let mut cas = 0;
        // SAFETY: see the module's head.
        let value = owned("get_shared_data", |data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
        });
        value.ok().map(|value| (value, cas))
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
        // SAFETY: see the module's head.
        match unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) } {
            0 => Ok(()),
            CAS_MISMATCH => Err(SetError::Raced),
            _ => Err(SetError::Refused),
        }
    }
}

/// Makes this root context the one that a queue wakes.
pub(crate) fn register_queue(name: &str) -> Result<u32, HostError> {
    let mut token = 0;
    // SAFETY: see the module's head.
    check("register_shared_queue", unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut token) })?;
    Ok(token)
}

/// Puts an empty message into a queue; its root context is woken on its own thread.
pub(crate) fn wake_queue(vm_id: &[u8], name: &str) -> Result<(), HostError> {
    let mut token = 0;
    // SAFETY: see the module's head.
    check("resolve_shared_queue", unsafe {
        proxy_resolve_shared_queue(vm_id.as_ptr(), vm_id.len(), name.as_ptr(), name.len(), &raw mut token)
    })?;
    // SAFETY: see the module's head.
    check("enqueue_shared_queue", unsafe { proxy_enqueue_shared_queue(token, b"".as_ptr(), 0) })
}

/// Takes everything out of a queue.
pub(crate) fn drain_queue(token: u32) -> Result<(), HostError> {
    loop {
        // SAFETY: see the module's head.
        let taken =
            owned("dequeue_shared_queue", |data, size| unsafe { proxy_dequeue_shared_queue(token, data, size) });
        match taken {
            Ok(_) => {}
            Err(HostError { status: EMPTY, .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Lets the current stream's request, paused before, go on once this call into the filter ends.
pub(crate) fn continue_request() -> Result<(), HostError> {
    const HTTP_REQUEST: u32 = 0;
    // SAFETY: see the module's head.
    check("continue_stream", unsafe { proxy_continue_stream(HTTP_REQUEST) })
}

/// Answers the current stream's request; `details` shows in the access log as `%RESPONSE_CODE_DETAILS%`.
pub(crate) fn send_local_reply(
    status: u16,
    details: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<(), HostError> {
    const NO_GRPC_STATUS: i32 = -1;
    let headers = serialize(headers);
    // SAFETY: see the module's head.
    check("send_local_response", unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// A header map in the host's form; see [`pairs`].
fn serialize(headers: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| (text.len() as u32).to_le_bytes();
    let mut bytes = (headers.len() as u32).to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend(length(name));
        bytes.extend(length(value));
    }
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Makes later calls act on another context: a stream's, from a root context.
pub(crate) fn act_on(context: u32) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("set_effective_context", unsafe { proxy_set_effective_context(context) })
}

/// Sets how often the root context's tick comes.
pub(crate) fn set_tick_period(period: Duration) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("set_tick_period_milliseconds", unsafe { proxy_set_tick_period_milliseconds(period.as_millis() as u32) })
}

/// Makes a metric of the proxy known, or finds it.
pub(crate) fn define_metric(kind: Metric, name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: see the module's head.
    check("define_metric", unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Adds to a counter.
pub(crate) fn increment_metric(id: u32, by: u32) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("increment_metric", unsafe { proxy_increment_metric(id, i64::from(by)) })
}

/// Sets a gauge, or adds a value to a histogram.
pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("record_metric", unsafe { proxy_record_metric(id, value) })
}
