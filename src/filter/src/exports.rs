//! The exports that the proxy calls, and what it calls them for. ABI: proxy-wasm 0.2.1.
//!
//! The SDK's exports answer a callback of a request with 0 or 1, and can't be defined beside our own. The proxy also knows
//! 4, "stop, and read no more than fits the buffer", without which a body that waits for credentials ends with 413.

// Exports are named as the ABI says, and the allocator's hands memory out.
#![allow(unsafe_code, unreachable_pub)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::intake::IntakeCall;
use crate::request::SignedRequest;
use crate::root::Root;

/// What the proxy does with a request after a callback, in its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It goes on.
    Continue = 0,
    /// It stops. Its body is buffered, and shown to the filter as it comes; one that outgrows the buffer gets 413.
    Stop = 1,
    /// From its headers on it stops, and its body unseen: the proxy reads no more of it than fits its buffer.
    StopUnread = 4,
}

/// A stream's context, by the role of its root context.
pub(crate) enum Stream {
    Signed(Box<SignedRequest>),
    Intake(Box<IntakeCall>),
    /// Of a root context without a configuration, with which nothing is known of what is to be signed.
    Unconfigured,
}

impl Stream {
    fn on_request_headers(&mut self, ends: bool) -> Flow {
        match self {
            Self::Signed(request) => request.on_request_headers(ends),
            Self::Intake(call) => call.on_request_headers(ends),
            Self::Unconfigured => crate::root::refuse_unconfigured(),
        }
    }

    fn on_request_body(&mut self, size: usize, ends: bool) -> Flow {
        match self {
            Self::Signed(request) => request.on_request_body(size, ends),
            Self::Intake(call) => call.on_request_body(size, ends),
            Self::Unconfigured => Flow::Stop,
        }
    }

    fn on_request_trailers(&mut self) -> Flow {
        match self {
            Self::Signed(request) => request.on_request_trailers(),
            Self::Intake(call) => call.on_request_trailers(),
            Self::Unconfigured => Flow::Stop,
        }
    }
}

/// Contexts by the numbers that the proxy gives them.
type Contexts<T> = RefCell<HashMap<u32, T, BuildHasherDefault<ContextHasher>>>;

thread_local! {
    // A virtual machine is one thread.
    static ROOTS: Contexts<Root> = RefCell::default();
    static STREAMS: Contexts<Stream> = RefCell::default();
}

/// Spreads numbers that the proxy counts up, and that no client chooses.
#[derive(Default)]
struct ContextHasher(u64);

impl Hasher for ContextHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 over the golden ratio.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn with_root<T: Default>(context: u32, call: impl FnOnce(&mut Root) -> T) -> T {
    ROOTS.with_borrow_mut(|roots| roots.get_mut(&context).map(call).unwrap_or_default())
}

/// A stream that is not known stops: only one that was signed goes on.
fn with_stream(context: u32, call: impl FnOnce(&mut Stream) -> Flow) -> u32 {
    STREAMS.with_borrow_mut(|streams| streams.get_mut(&context).map_or(Flow::Stop, call)) as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    crate::logger::start();
}

/// Hands out a block that the proxy fills; see `host::owned`.
#[unsafe(export_name = "malloc")]
extern "C" fn allocate(size: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    if root == 0 {
        ROOTS.with_borrow_mut(|roots| roots.insert(context, Root::default()));
    } else {
        let stream = ROOTS.with_borrow(|roots| roots.get(&root).map(|root| root.stream(context)));
        STREAMS.with_borrow_mut(|streams| streams.insert(context, stream.unwrap_or(Stream::Unconfigured)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    // They are dropped after the maps are free again.
    let stream = STREAMS.with_borrow_mut(|streams| streams.remove(&context));
    if stream.is_none() {
        drop(ROOTS.with_borrow_mut(|roots| roots.remove(&context)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_context: u32, _configuration_size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, _configuration_size: usize) -> u32 {
    with_root(context, Root::on_configure).into()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(context: u32) {
    with_root(context, |root| root.on_tick());
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(context: u32, queue: u32) {
    with_root(context, |root| root.on_queue_ready(queue));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _count: usize, end_of_stream: u32) -> u32 {
    with_stream(context, |stream| stream.on_request_headers(end_of_stream != 0))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: usize, end_of_stream: u32) -> u32 {
    with_stream(context, |stream| stream.on_request_body(size, end_of_stream != 0))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, _count: usize) -> u32 {
    with_stream(context, Stream::on_request_trailers)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _count: usize, _end_of_stream: u32) -> u32 {
    STREAMS.with_borrow(|streams| {
        if let Some(Stream::Signed(request)) = streams.get(&context) {
            request.on_response_headers();
        }
    });
    Flow::Continue as u32
}
