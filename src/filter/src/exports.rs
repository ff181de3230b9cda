//! The exports that the proxy calls. ABI: proxy-wasm 0.2.1.
//!
//! The SDK's exports can return only 0 or 1 from a request's callback, and can't be combined with exports of our own.
//! The proxy also accepts 4, "stop, and read no more than fits the buffer", without which a body that waits for
//! credentials ends with 413.

// The ABI names the exports, and the allocator returns raw memory.
#![allow(unsafe_code, unreachable_pub)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use sigv4_core::held::HeldTotals;
use sigv4_core::host::Flow;
use sigv4_core::plugin::{Plugin, Stream};

use crate::host::Proxy;

/// Contexts by the numbers that the proxy assigned.
type Contexts<T> = RefCell<HashMap<u32, T, BuildHasherDefault<ContextHasher>>>;

thread_local! {
    // A virtual machine is one thread.
    static PLUGINS: Contexts<Plugin<Proxy>> = RefCell::default();
    static STREAMS: Contexts<Stream<Proxy>> = RefCell::default();
    static HELD_TOTALS: Rc<HeldTotals> = Rc::default();
}

/// A hasher for numbers that the proxy counts up, and that no client chooses.
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
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn with_plugin<T: Default>(context: u32, call: impl FnOnce(&mut Plugin<Proxy>) -> T) -> T {
    PLUGINS.with_borrow_mut(|plugins| plugins.get_mut(&context).map(call).unwrap_or_default())
}

/// Calls a stream. An unknown one stops: only a request that was signed, or need not be, continues.
fn with_stream(context: u32, call: impl FnOnce(&mut Stream<Proxy>) -> Flow) -> u32 {
    match STREAMS.with_borrow_mut(|streams| streams.get_mut(&context).map_or(Flow::Stop, call)) {
        Flow::Continue => 0,
        Flow::Stop => 1,
        Flow::StopUnread => 4,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    crate::logger::start();
}

/// Returns a block that the proxy fills; see `host::take_buffer`.
#[unsafe(export_name = "malloc")]
extern "C" fn allocate(size: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    if root == 0 {
        let plugin = Plugin::new(Proxy, HELD_TOTALS.with(Rc::clone));
        PLUGINS.with_borrow_mut(|plugins| plugins.insert(context, plugin));
    } else {
        let stream = PLUGINS.with_borrow(|plugins| plugins.get(&root).map(|plugin| plugin.stream(context)));
        STREAMS.with_borrow_mut(|streams| streams.insert(context, stream.unwrap_or(Stream::Unconfigured(Proxy))));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    // Dropped after the map is no longer borrowed.
    let stream = STREAMS.with_borrow_mut(|streams| streams.remove(&context));
    if stream.is_none() {
        drop(PLUGINS.with_borrow_mut(|plugins| plugins.remove(&context)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_context: u32, _configuration_size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, _configuration_size: usize) -> u32 {
    with_plugin(context, Plugin::on_configure).into()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(context: u32) {
    with_plugin(context, |plugin| plugin.on_tick());
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(context: u32, queue: u32) {
    with_plugin(context, |plugin| plugin.on_queue_ready(queue));
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
    STREAMS.with_borrow_mut(|streams| streams.get_mut(&context).map(Stream::on_response_headers));
    0
}
