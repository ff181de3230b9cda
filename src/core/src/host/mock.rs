//! A proxy for tests: it keeps the streams, records changes, and fails on demand.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::{Host, HostError, MapKind, MetricKind};
use crate::credentials::{SetError, SharedData};
use crate::header_map::HeaderMap;
use crate::test_support::Memory;

/// A proxy with one worker. Clones are the same proxy.
#[derive(Clone)]
pub(crate) struct MockHost(Rc<Proxy>);

struct Proxy {
    now: Cell<SystemTime>,
    shared_data: Memory,
    configuration: RefCell<Vec<u8>>,
    streams: RefCell<HashMap<u32, MockStream>>,
    context: Cell<u32>,
    tick_period: Cell<Option<Duration>>,
    notified: RefCell<Vec<String>>,
    metrics: RefCell<Vec<(String, u64)>>,
    calls: RefCell<Vec<&'static str>>,
    failing: Cell<Option<usize>>,
    failing_name: Cell<Option<&'static str>>,
}

/// A stream as the proxy has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MockStream {
    pub(crate) request: Vec<(String, Vec<u8>)>,
    pub(crate) response: Vec<(String, Vec<u8>)>,
    /// The buffered part of the request's body.
    pub(crate) body: Vec<u8>,
    pub(crate) properties: HashMap<&'static str, Vec<u8>>,
    pub(crate) filter_state: HashMap<String, String>,
    pub(crate) reply: Option<MockReply>,
    pub(crate) is_resumed: bool,
}

/// A local reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MockReply {
    pub(crate) status: u16,
    pub(crate) details: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl MockStream {
    fn map(&mut self, map: MapKind) -> &mut Vec<(String, Vec<u8>)> {
        match map {
            MapKind::Request => &mut self.request,
            MapKind::Response => &mut self.response,
        }
    }

    /// Returns a header of the request.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.request.iter().find(|(each, _)| each == name)?;
        std::str::from_utf8(value).ok()
    }
}

impl MockHost {
    /// Makes a proxy with a time and a plugin configuration.
    pub(crate) fn new(now: SystemTime, configuration: &str) -> Self {
        Self(Rc::new(Proxy {
            now: Cell::new(now),
            shared_data: Memory::default(),
            configuration: RefCell::new(configuration.into()),
            streams: RefCell::default(),
            context: Cell::new(0),
            tick_period: Cell::new(None),
            notified: RefCell::default(),
            metrics: RefCell::default(),
            calls: RefCell::default(),
            failing: Cell::new(None),
            failing_name: Cell::new(None),
        }))
    }

    /// Returns the shared data, for another worker: no call of it is recorded, and none fails.
    pub(crate) fn shared_data(&self) -> &Memory {
        &self.0.shared_data
    }

    /// Moves the clock.
    pub(crate) fn set_now(&self, now: SystemTime) {
        self.0.now.set(now);
    }

    /// Adds or replaces a stream, and makes it the effective context.
    pub(crate) fn set_stream(&self, context: u32, stream: MockStream) {
        self.0.streams.borrow_mut().insert(context, stream);
        self.0.context.set(context);
    }

    /// Makes a stream the effective context, as its callbacks do.
    pub(crate) fn enter(&self, context: u32) {
        self.0.context.set(context);
    }

    /// Returns a copy of a stream.
    pub(crate) fn stream(&self, context: u32) -> MockStream {
        self.0.streams.borrow().get(&context).cloned().unwrap_or_default()
    }

    /// Changes a stream.
    pub(crate) fn with_stream<T>(&self, context: u32, change: impl FnOnce(&mut MockStream) -> T) -> T {
        change(self.0.streams.borrow_mut().entry(context).or_default())
    }

    /// Removes a stream.
    pub(crate) fn remove_stream(&self, context: u32) {
        self.0.streams.borrow_mut().remove(&context);
    }

    /// Returns the period of the plugin's tick.
    pub(crate) fn tick_period(&self) -> Option<Duration> {
        self.0.tick_period.get()
    }

    /// Returns the queues that were notified.
    pub(crate) fn notified(&self) -> Vec<String> {
        self.0.notified.borrow().clone()
    }

    /// Returns a metric's value; for a histogram, the last one.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.0.metrics.borrow().iter().find(|(each, _)| each == name).map_or(0, |(_, value)| *value)
    }

    /// Clears the list of calls, and makes the one at this index fail.
    pub(crate) fn fail_call(&self, index: Option<usize>) {
        self.0.calls.borrow_mut().clear();
        self.0.failing.set(index);
        self.0.failing_name.set(None);
    }

    /// Has every call of this name fail.
    pub(crate) fn fail_every(&self, call: &'static str) {
        self.0.failing_name.set(Some(call));
    }

    /// Returns the calls since [`Self::fail_call`].
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.0.calls.borrow().clone()
    }

    /// Records a call, and returns an error if it is the one to fail.
    fn call(&self, call: &'static str) -> Result<(), HostError> {
        let mut calls = self.0.calls.borrow_mut();
        calls.push(call);
        let fails = self.0.failing.get() == Some(calls.len() - 1) || self.0.failing_name.get() == Some(call);
        if fails { Err(HostError { call, status: 10 }) } else { Ok(()) }
    }

    fn on_stream<T>(&self, call: &'static str, act: impl FnOnce(&mut MockStream) -> T) -> Result<T, HostError> {
        self.call(call)?;
        let mut streams = self.0.streams.borrow_mut();
        streams.get_mut(&self.0.context.get()).map(act).ok_or(HostError { call, status: 2 })
    }
}

impl SharedData for MockHost {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.call("get_shared_data").ok()?;
        (&self.0.shared_data).get(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
        self.call("set_shared_data").map_err(|_| SetError::Refused)?;
        (&self.0.shared_data).set(key, value, cas)
    }
}

impl Host for MockHost {
    fn now(&self) -> SystemTime {
        let called = self.call("get_current_time_nanoseconds");
        called.map_or(SystemTime::UNIX_EPOCH, |()| self.0.now.get())
    }

    fn configuration(&self) -> Result<Vec<u8>, HostError> {
        self.call("get_buffer_bytes").map(|()| self.0.configuration.borrow().clone())
    }

    fn headers(&self, map: MapKind) -> Result<HeaderMap, HostError> {
        self.on_stream("get_header_map_pairs", |stream| HeaderMap::serialize(stream.map(map)))
    }

    fn header(&self, map: MapKind, name: &str) -> Result<Vec<u8>, HostError> {
        self.on_stream("get_header_map_value", |stream| {
            let found = stream.map(map).iter().find(|(each, _)| each == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        })
    }

    fn add_header(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), HostError> {
        self.on_stream("add_header_map_value", |stream| stream.map(map).push((name.to_owned(), value.to_vec())))
    }

    fn replace_header(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), HostError> {
        self.on_stream("replace_header_map_value", |stream| {
            let headers = stream.map(map);
            headers.retain(|(each, _)| each != name);
            headers.push((name.to_owned(), value.to_vec()));
        })
    }

    fn remove_header(&self, map: MapKind, name: &[u8]) -> Result<(), HostError> {
        self.on_stream("remove_header_map_value", |stream| {
            stream.map(map).retain(|(each, _)| each.as_bytes() != name);
        })
    }

    fn body(&self, start: usize, size: usize) -> Result<Vec<u8>, HostError> {
        self.on_stream("get_buffer_bytes", |stream| stream.body.iter().skip(start).take(size).copied().collect())
    }

    fn drain_body(&self, size: usize) -> Result<(), HostError> {
        self.on_stream("set_buffer_bytes", |stream| drop(stream.body.drain(..size.min(stream.body.len()))))
    }

    fn append_to_body(&self, bytes: &[u8]) -> Result<(), HostError> {
        self.on_stream("set_buffer_bytes", |stream| stream.body.extend_from_slice(bytes))
    }

    fn property(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.on_stream("get_property", |stream| stream.properties.get(path).cloned())
    }

    fn set_property(&self, path: &str, value: &[u8]) -> Result<(), HostError> {
        self.on_stream("set_property", |stream| {
            stream.filter_state.insert(path.to_owned(), String::from_utf8_lossy(value).into_owned());
        })
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.on_stream("continue_stream", |stream| stream.is_resumed = true)
    }

    fn send_local_reply(
        &self,
        status: u16,
        details: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), HostError> {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (details, body) = (details.to_owned(), String::from_utf8_lossy(body).into_owned());
        self.on_stream("send_local_response", |stream| {
            stream.reply = Some(MockReply { status, details, headers, body })
        })
    }

    fn set_effective_context(&self, context: u32) -> Result<(), HostError> {
        self.call("set_effective_context")?;
        if !self.0.streams.borrow().contains_key(&context) {
            return Err(HostError { call: "set_effective_context", status: 2 });
        }
        self.0.context.set(context);
        Ok(())
    }

    fn set_tick_period(&self, period: Duration) -> Result<(), HostError> {
        self.call("set_tick_period_milliseconds").map(|()| self.0.tick_period.set(Some(period)))
    }

    fn register_queue(&self, _name: &str) -> Result<(), HostError> {
        self.call("register_shared_queue")
    }

    fn notify_queue(&self, _vm_id: &[u8], name: &str) -> Result<(), HostError> {
        self.call("enqueue_shared_queue").map(|()| self.0.notified.borrow_mut().push(name.to_owned()))
    }

    fn drain_queue(&self, _token: u32) -> Result<(), HostError> {
        self.call("dequeue_shared_queue")
    }

    fn define_metric(&self, _kind: MetricKind, name: &str) -> Result<u32, HostError> {
        self.call("define_metric")?;
        let mut metrics = self.0.metrics.borrow_mut();
        let known = metrics.iter().position(|(each, _)| each == name);
        Ok(known.unwrap_or_else(|| {
            metrics.push((name.to_owned(), 0));
            metrics.len() - 1
        }) as u32)
    }

    fn increment_metric(&self, id: u32, by: u32) -> Result<(), HostError> {
        self.call("increment_metric")?;
        if let Some((_, value)) = self.0.metrics.borrow_mut().get_mut(id as usize) {
            *value += u64::from(by);
        }
        Ok(())
    }

    fn record_metric(&self, id: u32, value: u64) -> Result<(), HostError> {
        self.call("record_metric")?;
        if let Some((_, last)) = self.0.metrics.borrow_mut().get_mut(id as usize) {
            *last = value;
        }
        Ok(())
    }
}
