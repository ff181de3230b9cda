//! The proxy's host calls that the filter uses, each fallible and on bytes.
//!
//! The wrappers of proxy-wasm's SDK panic on an unexpected status and on names that are not UTF-8, copy every header
//! into a vector of its own and build a path for each property. A panic ends the virtual machine, and the copies would
//! be most of the cost of signing, so the calls are bound here. ABI: proxy-wasm 0.2.1.

// The only module that calls the host. Every call passes pointers and lengths of live slices, which the host reads only
// during the call, and takes returned buffers with `take_buffer`.
#![allow(unsafe_code)]

use std::ptr;
use std::time::{Duration, SystemTime};

use sigv4_core::credentials::{SetError, SharedData};
use sigv4_core::header_map::HeaderMap;
use sigv4_core::host::{Host, HostError, MapKind, MetricKind, NOT_FOUND};

const EMPTY: u32 = 7;
const CAS_MISMATCH: u32 = 8;

/// The proxy's numbers of its buffers.
const REQUEST_BODY: u32 = 0;
const PLUGIN_CONFIGURATION: u32 = 7;

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

/// Returns an error if a call's status is not 0.
fn check(call: &'static str, status: u32) -> Result<(), HostError> {
    if status == 0 { Ok(()) } else { Err(HostError { call, status }) }
}

/// Makes a call that returns a buffer, and takes ownership of it.
fn take_buffer(call: &'static str, make: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let mut data: *mut u8 = ptr::null_mut();
    let mut size = 0;
    check(call, make(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host fills a block that it got from `exports::allocate` for this call, a boxed slice of exactly
    // `size` bytes. Nothing else refers to it, and the host drops its pointer when the call ends.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// Returns the value that a call found; empty if there is none.
fn or_empty(found: Result<Vec<u8>, HostError>) -> Result<Vec<u8>, HostError> {
    match found {
        Err(HostError { status: NOT_FOUND, .. }) => Ok(Vec::new()),
        found => found,
    }
}

fn buffer(buffer: u32, start: usize, max: usize) -> Result<Vec<u8>, HostError> {
    // SAFETY: see the module's head.
    or_empty(take_buffer("get_buffer_bytes", |data, size| unsafe {
        proxy_get_buffer_bytes(buffer, start, max, data, size)
    }))
}

/// Replaces `size` bytes of the request's body from `start` on. The proxy accepts a `start` of 0, or one at the end.
fn splice_body(start: usize, size: usize, bytes: &[u8]) -> Result<(), HostError> {
    // SAFETY: see the module's head.
    check("set_buffer_bytes", unsafe { proxy_set_buffer_bytes(REQUEST_BODY, start, size, bytes.as_ptr(), bytes.len()) })
}

/// Returns the ABI's number of a header map.
fn map_number(map: MapKind) -> u32 {
    match map {
        MapKind::Request => 0,
        MapKind::Response => 2,
    }
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

/// Writes a line to the proxy's log. A failure can't be reported anywhere.
pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: see the module's head.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// The proxy whose virtual machine this is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proxy;

/// The shared data of all virtual machines with this one's `vm_id`.
impl SharedData for Proxy {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        let mut cas = 0;
        // SAFETY: see the module's head.
        let value = take_buffer("get_shared_data", |data, size| unsafe {
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

impl Host for Proxy {
    fn now(&self) -> SystemTime {
        let mut nanoseconds = 0;
        // SAFETY: see the module's head.
        let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
        SystemTime::UNIX_EPOCH + Duration::from_nanos(if status == 0 { nanoseconds } else { 0 })
    }

    fn configuration(&self) -> Result<Vec<u8>, HostError> {
        buffer(PLUGIN_CONFIGURATION, 0, usize::MAX)
    }

    fn headers(&self, map: MapKind) -> Result<HeaderMap, HostError> {
        // SAFETY: see the module's head.
        take_buffer("get_header_map_pairs", |data, size| unsafe {
            proxy_get_header_map_pairs(map_number(map), data, size)
        })
        .map(HeaderMap)
    }

    fn header(&self, map: MapKind, name: &str) -> Result<Vec<u8>, HostError> {
        // SAFETY: see the module's head.
        or_empty(take_buffer("get_header_map_value", |data, size| unsafe {
            proxy_get_header_map_value(map_number(map), name.as_ptr(), name.len(), data, size)
        }))
    }

    fn add_header(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("add_header_map_value", unsafe {
            proxy_add_header_map_value(map_number(map), name.as_ptr(), name.len(), value.as_ptr(), value.len())
        })
    }

    fn replace_header(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("replace_header_map_value", unsafe {
            proxy_replace_header_map_value(map_number(map), name.as_ptr(), name.len(), value.as_ptr(), value.len())
        })
    }

    fn remove_header(&self, map: MapKind, name: &[u8]) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("remove_header_map_value", unsafe {
            proxy_remove_header_map_value(map_number(map), name.as_ptr(), name.len())
        })
    }

    fn body(&self, start: usize, size: usize) -> Result<Vec<u8>, HostError> {
        buffer(REQUEST_BODY, start, size)
    }

    fn drain_body(&self, size: usize) -> Result<(), HostError> {
        splice_body(0, size, b"")
    }

    fn append_to_body(&self, bytes: &[u8]) -> Result<(), HostError> {
        // The proxy appends at any start that is at the end or past it.
        splice_body(usize::MAX, 0, bytes)
    }

    fn property(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        // SAFETY: see the module's head.
        match take_buffer("get_property", |data, size| unsafe {
            proxy_get_property(path.as_ptr(), path.len(), data, size)
        }) {
            Err(HostError { status: NOT_FOUND, .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    fn set_property(&self, path: &str, value: &[u8]) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("set_property", unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
    }

    fn resume_request(&self) -> Result<(), HostError> {
        const HTTP_REQUEST: u32 = 0;
        // SAFETY: see the module's head.
        check("continue_stream", unsafe { proxy_continue_stream(HTTP_REQUEST) })
    }

    fn send_local_reply(
        &self,
        status: u16,
        details: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), HostError> {
        const NO_GRPC_STATUS: i32 = -1;
        let HeaderMap(headers) = HeaderMap::serialize(headers);
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

    fn set_effective_context(&self, context: u32) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("set_effective_context", unsafe { proxy_set_effective_context(context) })
    }

    fn set_tick_period(&self, period: Duration) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("set_tick_period_milliseconds", unsafe { proxy_set_tick_period_milliseconds(period.as_millis() as u32) })
    }

    fn register_queue(&self, name: &str) -> Result<(), HostError> {
        let mut token = 0;
        // SAFETY: see the module's head.
        check("register_shared_queue", unsafe {
            proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut token)
        })
    }

    fn notify_queue(&self, vm_id: &[u8], name: &str) -> Result<(), HostError> {
        let mut token = 0;
        // SAFETY: see the module's head.
        check("resolve_shared_queue", unsafe {
            proxy_resolve_shared_queue(vm_id.as_ptr(), vm_id.len(), name.as_ptr(), name.len(), &raw mut token)
        })?;
        // SAFETY: see the module's head.
        check("enqueue_shared_queue", unsafe { proxy_enqueue_shared_queue(token, b"".as_ptr(), 0) })
    }

    fn drain_queue(&self, token: u32) -> Result<(), HostError> {
        loop {
            // SAFETY: see the module's head.
            let taken = take_buffer("dequeue_shared_queue", |data, size| unsafe {
                proxy_dequeue_shared_queue(token, data, size)
            });
            match taken {
                Ok(_) => {}
                Err(HostError { status: EMPTY, .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        let kind = match kind {
            MetricKind::Counter => 0,
            MetricKind::Gauge => 1,
            MetricKind::Histogram => 2,
        };
        let mut id = 0;
        // SAFETY: see the module's head.
        check("define_metric", unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
        Ok(id)
    }

    fn increment_metric(&self, id: u32, by: u32) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("increment_metric", unsafe { proxy_increment_metric(id, i64::from(by)) })
    }

    fn record_metric(&self, id: u32, value: u64) -> Result<(), HostError> {
        // SAFETY: see the module's head.
        check("record_metric", unsafe { proxy_record_metric(id, value) })
    }
}
