//! The intake role: lets callers in and hands their calls to [`sigv4_core::intake`].

use std::rc::Rc;

use secrecy::zeroize::Zeroizing;

use crate::exports::Flow;
use crate::host::{self, Buffer, HeaderMap, Map, ProxySharedData};
use crate::root::watcher_queue;
use sigv4_core::credentials::CredentialStore;
use sigv4_core::intake::{self, Caller, IntakePolicy, MAX_BODY, Reply};

/// One call to the intake.
pub(crate) struct IntakeCall {
    policy: Rc<IntakePolicy>,
    method: Vec<u8>,
    path: Vec<u8>,
    body: Zeroizing<Vec<u8>>,
    answered: bool,
}

impl IntakeCall {
    pub(crate) fn new(policy: Rc<IntakePolicy>) -> Self {
        Self { policy, method: Vec::new(), path: Vec::new(), body: Zeroizing::default(), answered: false }
    }

    fn answer(&mut self) -> Flow {
        let store = CredentialStore(ProxySharedData);
        let reply = intake::answer(&store, &self.method, &self.path, &self.body, host::now());
        if reply.changed {
            tell_watchers(&store);
        }
        self.send(&reply)
    }

    fn send(&mut self, reply: &Reply) -> Flow {
        self.answered = true;
        if reply.status >= 400 {
            log::debug!("the intake answers {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        let mut headers = vec![("cache-control", "no-store")];
        if !reply.body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(reply.allow.map(|methods| ("allow", methods)));
        if let Err(error) = host::send_local_reply(reply.status, "intake", &headers, &reply.body) {
            log::error!("{error}");
        }
        Flow::Stop
    }

    pub(crate) fn on_request_headers(&mut self, end_of_stream: bool) -> Flow {
        let Ok(headers) = HeaderMap::read(Map::Request) else {
            return self.send(&Reply::unauthenticated());
        };
        let mut authorization = None;
        for (name, value) in headers.iter() {
            match name {
                b":method" => self.method = value.to_vec(),
                b":path" => self.path = value.to_vec(),
                b"authorization" => authorization = Some(value),
                _ => {}
            }
        }
        let caller = Caller {
            over_unix_socket: over_unix_socket(),
            client_certificate: has_client_certificate(),
            authorization,
        };
        if !self.policy.admits(&caller) {
            return self.send(&Reply::unauthenticated());
        }
        if end_of_stream { self.answer() } else { Flow::Stop }
    }

    pub(crate) fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Flow {
        if self.answered {
            return Flow::Stop;
        }
        // While the stream is paused, Envoy keeps the body and shows all of it so far.
        if size > MAX_BODY {
            return self.send(&Reply::too_large());
        }
        match host::buffer(Buffer::RequestBody, 0, size) {
            Ok(body) => self.body = Zeroizing::new(body),
            Err(error) => log::error!("{error}"),
        }
        if end_of_stream { self.answer() } else { Flow::Stop }
    }

    pub(crate) fn on_request_trailers(&mut self) -> Flow {
        if self.answered { Flow::Stop } else { self.answer() }
    }
}

/// The address of a peer on a Unix socket is the socket's path; an IP peer's can't begin like one.
fn over_unix_socket() -> bool {
    host::property(b"source\0address").is_some_and(|address| matches!(address.first(), Some(b'/' | b'@')))
}

/// Whether the connection has a client certificate. Envoy verifies each that it asks for, unless its validation context
/// says `trust_chain_verification: ACCEPT_UNTRUSTED`: no property tells whether it did.
pub(crate) fn has_client_certificate() -> bool {
    host::property(b"connection\0mtls").is_some_and(|mtls| mtls == [1])
}

/// Wakes the signers of all workers, so that they see a change at once and not with their next tick.
fn tell_watchers(store: &CredentialStore<ProxySharedData>) {
    let vm_id = host::property(b"plugin_vm_id").unwrap_or_default();
    for place in store.watchers(host::now()) {
        if let Err(error) = host::wake_queue(&vm_id, &watcher_queue(place)) {
            log::debug!("a worker will see the change with its next tick: {error}");
        }
    }
}
