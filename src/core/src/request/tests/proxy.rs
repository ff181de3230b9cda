//! A proxy with a signer, and the way that Envoy takes requests through a filter.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::credentials::{CredentialStore, Credentials};
use crate::held::HeldTotals;
use crate::host::Flow;
use crate::host::mock::{MockHost, MockReply, MockStream};
use crate::plugin::{Plugin, Stream};

pub(super) const ACCESS_KEY_ID: &str = "ASIDEXAMPLE";

/// The fate of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The upstream has got it, with this body so far.
    Forwarded { body: Vec<u8> },
    /// The client has got an answer.
    Replied(MockReply),
    /// It waits.
    Held,
}

/// A proxy whose plugin has a policy.
pub(super) struct Proxy {
    pub(super) host: MockHost,
    plugin: Plugin<MockHost>,
    contexts: u32,
}

/// A request on its way.
pub(super) struct Sent {
    context: u32,
    stream: Stream<MockHost>,
    flow: Flow,
    forwarded: Vec<u8>,
    /// `true` if its headers have gone to the upstream.
    is_forwarded: bool,
    ended: bool,
}

pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

impl Proxy {
    /// Starts a proxy without credentials.
    pub(super) fn start(policy: &str) -> Self {
        let host = MockHost::new(now(), policy);
        let mut plugin = Plugin::new(host.clone(), Rc::new(HeldTotals::default()));
        assert!(plugin.on_configure(), "{policy}");
        Self { host, plugin, contexts: 1 }
    }

    /// Starts a proxy that holds credentials for `default`.
    pub(super) fn with_credentials(policy: &str) -> Self {
        let proxy = Self::start(policy);
        proxy.push_credentials();
        proxy.tick();
        proxy
    }

    /// Puts credentials for `default` into the shared data, as an intake does.
    pub(super) fn push_credentials(&self) {
        let credentials = Credentials::new(ACCESS_KEY_ID, "secret", Some("token".into()), None).unwrap();
        CredentialStore(self.host.shared_data()).put("default", &credentials).unwrap();
    }

    /// Revokes the credentials for `default`.
    pub(super) fn revoke_credentials(&self) {
        CredentialStore(self.host.shared_data()).revoke("default").unwrap();
    }

    /// Has the plugin's tick come.
    pub(super) fn tick(&self) {
        self.host.enter(1);
        self.plugin.on_tick();
    }

    /// Lets time pass, with a tick at its end.
    pub(super) fn pass(&self, time: Duration) {
        self.host.set_now(crate::host::Host::now(&self.host) + time);
        self.tick();
    }

    /// Begins a stream of which the filter has seen nothing.
    pub(super) fn connect(&mut self) -> Sent {
        self.contexts += 1;
        let context = self.contexts;
        self.host.set_stream(context, MockStream::default());
        let stream = self.plugin.stream(context);
        Sent { context, stream, flow: Flow::Stop, forwarded: Vec::new(), is_forwarded: false, ended: false }
    }

    /// Sends a request's headers; `ends` is whether no body follows.
    pub(super) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], ends: bool) -> Sent {
        self.send_with(&[], method, path, headers, ends)
    }

    /// Sends a request's headers on a stream with properties.
    pub(super) fn send_with(
        &mut self,
        properties: &[(&'static str, Vec<u8>)],
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        ends: bool,
    ) -> Sent {
        let fixed = [(":method", method), (":authority", "app.example"), (":path", path), (":scheme", "http")];
        let fixed = fixed.iter().filter(|(name, _)| headers.iter().all(|(other, _)| other != name));
        let request = fixed.chain(headers).map(|&(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        self.contexts += 1;
        let context = self.contexts;
        let properties = properties.iter().cloned().collect();
        self.host.set_stream(context, MockStream { request: request.collect(), properties, ..MockStream::default() });
        let mut stream = self.plugin.stream(context);
        let flow = stream.on_request_headers(ends);
        let is_forwarded = flow == Flow::Continue;
        Sent { context, stream, flow, forwarded: Vec::new(), is_forwarded, ended: ends }
    }

    /// Sends a request without a body.
    pub(super) fn get(&mut self, path: &str) -> Sent {
        self.send("GET", path, &[], true)
    }
}

impl Sent {
    /// Sends a part of the body, as Envoy shows it: all that is buffered, if the request is stopped.
    pub(super) fn body(&mut self, proxy: &Proxy, part: &[u8], ends: bool) {
        self.ended |= ends;
        proxy.host.enter(self.context);
        let size = proxy.host.with_stream(self.context, |stream| {
            stream.body.extend_from_slice(part);
            stream.body.len()
        });
        if self.flow != Flow::StopUnread {
            self.show_body(proxy, size, ends);
        }
    }

    fn show_body(&mut self, proxy: &Proxy, size: usize, ends: bool) {
        self.flow = self.stream.on_request_body(size, ends);
        if self.flow == Flow::Continue {
            self.forward(proxy);
        }
    }

    fn forward(&mut self, proxy: &Proxy) {
        self.is_forwarded = true;
        let body = proxy.host.with_stream(self.context, |stream| std::mem::take(&mut stream.body));
        self.forwarded.extend(body);
    }

    /// Has a part of the body reach the proxy, and not the filter.
    pub(super) fn withhold_body(&self, proxy: &Proxy, size: u64) {
        let property = ("request\0total_size", size.to_le_bytes().to_vec());
        proxy.host.with_stream(self.context, |stream| stream.properties.extend([property]));
    }

    /// Sends trailers, which end the body.
    pub(super) fn trailers(&mut self, proxy: &Proxy) {
        proxy.host.enter(self.context);
        self.flow = self.stream.on_request_trailers();
        if self.flow == Flow::Continue {
            self.forward(proxy);
        }
    }

    /// Returns what has become of it, after Envoy has done what the filter asked for.
    pub(super) fn fate(&mut self, proxy: &Proxy) -> Fate {
        let resumed = proxy.host.with_stream(self.context, |stream| std::mem::take(&mut stream.is_resumed));
        assert!(!resumed || proxy.host.stream(self.context).reply.is_none(), "resumed after its answer");
        if resumed {
            if self.flow == Flow::StopUnread {
                proxy.host.enter(self.context);
                let size = proxy.host.stream(self.context).body.len();
                self.flow = Flow::Continue;
                if size > 0 {
                    self.show_body(proxy, size, self.ended);
                } else {
                    self.forward(proxy);
                }
            } else {
                self.forward(proxy);
            }
        }
        match proxy.host.stream(self.context).reply {
            // What has been forwarded is reset with the reply.
            Some(reply) => Fate::Replied(reply),
            None if self.is_forwarded => Fate::Forwarded { body: self.forwarded.clone() },
            None => Fate::Held,
        }
    }

    /// Returns the stream as the proxy has it.
    pub(super) fn stream(&self, proxy: &Proxy) -> MockStream {
        proxy.host.stream(self.context)
    }

    /// Ends the stream, as its client may do at any time.
    pub(super) fn reset(self, proxy: &Proxy) {
        proxy.host.remove_stream(self.context);
    }

    /// Sends the response's headers, and returns them as the client gets them.
    pub(super) fn response(&mut self, proxy: &Proxy, headers: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
        proxy.host.enter(self.context);
        proxy.host.with_stream(self.context, |stream| stream.response = headers);
        self.stream.on_response_headers();
        self.stream(proxy).response
    }
}

/// Asserts that a request was refused, and returns the reply.
pub(super) fn refused(fate: Fate, status: u16, code: &str) -> String {
    let Fate::Replied(reply) = fate else { panic!("not refused: {fate:?}") };
    assert_eq!((reply.status, reply.details.as_str()), (status, code), "{}", reply.body);
    reply.body
}
