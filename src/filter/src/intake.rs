//! The intake role: lets callers in and hands their calls to [`sigv4_core::intake`].

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;

use crate::exports::Flow;
use crate::host::{self, Buffer, HeaderMap, Map, ProxySharedData};
use crate::root::watcher_queue;
use sigv4_core::credentials::{CredentialStore, WantedIds, Watch};
use sigv4_core::intake::{self, Caller, IntakePolicy, LONGEST_WAIT, MAX_BODY, MOST_WAITING, Reply};

/// How often leases are looked at, as often as the signers renew theirs.
const TICK: Duration = Duration::from_secs(1);

/// How often the generation is looked at while calls wait for another one.
const WAITING_TICK: Duration = Duration::from_millis(25);

/// What all calls to one worker's intake share.
pub(crate) struct Intake {
    policy: IntakePolicy,
    wanted_ids: RefCell<WantedIds>,
    /// The calls that wait for another generation; a token is gone when its caller is.
    waiting: RefCell<Vec<(u32, Weak<()>)>>,
    /// The generation that they have seen, and the number of ticks until they are answered that it has not changed.
    generation: Cell<u64>,
    ticks_left: Cell<u32>,
    watch: Cell<Watch>,
    /// When leases were last looked at, however often the clock ticks.
    last_sweep: Cell<SystemTime>,
}

impl Intake {
    pub(crate) fn start(policy: IntakePolicy) -> Result<Self, host::HostError> {
        let now = host::now();
        host::set_tick_period(TICK)?;
        Ok(Self {
            policy,
            wanted_ids: RefCell::default(),
            waiting: RefCell::default(),
            generation: Cell::default(),
            ticks_left: Cell::default(),
            watch: Cell::new(Watch::new(now)),
            last_sweep: Cell::new(now),
        })
    }

    /// Ends the leases of policies that are gone, whose credentials no signer may be left to wipe, and answers the calls
    /// that have waited long enough.
    pub(crate) fn tick(&self) {
        let (store, now) = (CredentialStore(ProxySharedData), host::now());
        if now.duration_since(self.last_sweep.get()).is_ok_and(|passed| passed >= TICK) || now < self.last_sweep.get() {
            self.last_sweep.set(now);
            let mut watch = self.watch.get();
            if let Err(error) = store.tend_leases(&mut watch, None, now) {
                log::error!("{error}; will be tried again");
            }
            self.watch.set(watch);
        }
        if !self.waiting.borrow().is_empty() {
            self.answer_waiting(&store);
        }
    }

    fn answer_waiting(&self, store: &CredentialStore<ProxySharedData>) {
        let left = self.ticks_left.get();
        let reply = if store.generation() != self.generation.get() {
            self.reply(store, b"GET", b"/v1/identities", b"")
        } else if left == 0 {
            Reply::unchanged()
        } else {
            return self.ticks_left.set(left - 1);
        };
        for (context, caller) in self.waiting.take() {
            if caller.strong_count() > 0 {
                match host::act_on(context) {
                    Ok(()) => send(&reply),
                    Err(error) => log::error!("{error}"),
                }
            }
        }
        if let Err(error) = host::set_tick_period(TICK) {
            log::error!("{error}");
        }
    }

    fn reply(&self, store: &CredentialStore<ProxySharedData>, method: &[u8], path: &[u8], body: &[u8]) -> Reply {
        intake::answer(store, &mut self.wanted_ids.borrow_mut(), method, path, body, host::now())
    }

    /// Has a call wait until the generation is another one. Returns whether it waits.
    fn wait(&self, context: u32, generation: u64, caller: &Rc<()>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            if host::set_tick_period(WAITING_TICK).is_err() {
                return false;
            }
            self.generation.set(generation);
            self.ticks_left.set((LONGEST_WAIT.as_millis() / WAITING_TICK.as_millis()) as u32);
        }
        let waits = waiting.len() < MOST_WAITING && self.generation.get() == generation;
        if waits {
            waiting.push((context, Rc::downgrade(caller)));
        }
        waits
    }
}

/// One call to the intake.
pub(crate) struct IntakeCall {
    context: u32,
    intake: Rc<Intake>,
    alive: Rc<()>,
    method: Vec<u8>,
    path: Vec<u8>,
    body: Zeroizing<Vec<u8>>,
    answered: bool,
}

impl IntakeCall {
    pub(crate) fn new(context: u32, intake: Rc<Intake>) -> Self {
        let (method, path, body) = (Vec::new(), Vec::new(), Zeroizing::default());
        Self { context, intake, alive: Rc::new(()), method, path, body, answered: false }
    }

    fn answer(&mut self) -> Flow {
        let store = CredentialStore(ProxySharedData);
        if let Some(generation) = intake::awaited_generation(&self.method, &self.path)
            && generation == store.generation()
            && self.intake.wait(self.context, generation, &self.alive)
        {
            self.answered = true;
            return Flow::Stop;
        }
        let reply = self.intake.reply(&store, &self.method, &self.path, &self.body);
        if reply.changed {
            tell_watchers(&store);
        }
        self.send(&reply)
    }

    fn send(&mut self, reply: &Reply) -> Flow {
        self.answered = true;
        send(reply);
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
        if !self.intake.policy.admits(&caller) {
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

fn send(reply: &Reply) {
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

/// Wakes the signers of all workers, so that they pick up the change immediately rather than on the next tick.
fn tell_watchers(store: &CredentialStore<ProxySharedData>) {
    let vm_id = host::property(b"plugin_vm_id").unwrap_or_default();
    for place in store.watchers(host::now()) {
        if let Err(error) = host::wake_queue(&vm_id, &watcher_queue(place)) {
            log::debug!("a worker will see the change with its next tick: {error}");
        }
    }
}
