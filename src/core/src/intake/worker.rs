//! The intake role: authenticates callers, passes their calls to [`answer`](api::answer), and holds those that wait for a
//! change.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;

use crate::connection;
use crate::credentials::{CredentialStore, RequiredIds, Watch};
use crate::host::{Flow, Host, HostError, MapKind};
use crate::wakeup;

use super::api::{self, MAX_BODY, Reply};
use super::config::{Caller, IntakeConfig};

/// The longest wait for a change. During a hot restart, a call that waits at the old Envoy sees no change of the new one, so
/// this is short.
pub const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The most calls of one worker that wait for a change; the next one is answered immediately.
pub const MOST_WAITING: usize = 32;

/// The interval between sweeps of leases, the same as the signers' renewals.
const TICK: Duration = Duration::from_secs(1);

/// The interval between reads of the generation while calls wait for a change.
const FAST_TICK: Duration = Duration::from_millis(25);

/// State shared by all calls to one worker's intake.
pub struct Intake<H: Host> {
    host: H,
    store: CredentialStore<H>,
    config: IntakeConfig,
    required_ids: RefCell<RequiredIds>,
    /// The calls that wait for another generation; a call's token is dropped with the call.
    waiting: RefCell<Vec<(u32, Weak<()>)>>,
    /// The generation that they have seen, and the number of ticks until they are answered with 304.
    generation: Cell<u64>,
    ticks_left: Cell<u32>,
    watch: Cell<Watch>,
    /// The time of the last sweep, which is independent of the tick's period.
    last_sweep: Cell<SystemTime>,
}

impl<H: Host> Intake<H> {
    /// Starts to accept calls.
    pub(crate) fn start(host: H, config: IntakeConfig) -> Result<Self, HostError> {
        let now = host.now();
        host.set_tick_period(TICK)?;
        Ok(Self {
            store: CredentialStore(host.clone()),
            host,
            config,
            required_ids: RefCell::default(),
            waiting: RefCell::default(),
            generation: Cell::default(),
            ticks_left: Cell::default(),
            watch: Cell::new(Watch::new(now)),
            last_sweep: Cell::new(now),
        })
    }

    /// Ends the leases of removed policies, because no signer may be left to wipe their credentials, and answers the calls
    /// that have waited long enough.
    pub(crate) fn on_tick(&self) {
        let now = self.host.now();
        if now.duration_since(self.last_sweep.get()).is_ok_and(|passed| passed >= TICK) || now < self.last_sweep.get() {
            self.last_sweep.set(now);
            let mut watch = self.watch.get();
            if let Err(error) = self.store.tend_leases(&mut watch, None, now) {
                log::error!("{error}; it will be retried");
            }
            self.watch.set(watch);
        }
        if !self.waiting.borrow().is_empty() {
            self.answer_waiting();
        }
    }

    fn answer_waiting(&self) {
        let left = self.ticks_left.get();
        let reply = if self.store.generation() != self.generation.get() {
            self.reply(b"GET", b"/v1/identities", b"")
        } else if left == 0 {
            Reply::unchanged()
        } else {
            return self.ticks_left.set(left - 1);
        };
        for (context, caller) in self.waiting.take() {
            if caller.strong_count() > 0 {
                match self.host.set_effective_context(context) {
                    Ok(()) => self.send(&reply),
                    Err(error) => log::error!("{error}"),
                }
            }
        }
        if let Err(error) = self.host.set_tick_period(TICK) {
            log::error!("{error}");
        }
    }

    fn reply(&self, method: &[u8], path: &[u8], body: &[u8]) -> Reply {
        api::answer(&self.store, &mut self.required_ids.borrow_mut(), method, path, body, self.host.now())
    }

    /// Makes a call wait until the generation changes. Returns whether it waits.
    fn wait(&self, context: u32, generation: u64, caller: &Rc<()>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            if self.host.set_tick_period(FAST_TICK).is_err() {
                return false;
            }
            self.generation.set(generation);
            self.ticks_left.set((LONGEST_WAIT.as_millis() / FAST_TICK.as_millis()) as u32);
        }
        let waits = waiting.len() < MOST_WAITING && self.generation.get() == generation;
        if waits {
            waiting.push((context, Rc::downgrade(caller)));
        }
        waits
    }

    fn send(&self, reply: &Reply) {
        if reply.status >= 400 {
            log::debug!("the intake answers {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        let mut headers = vec![("cache-control", "no-store")];
        if !reply.body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(reply.allow.map(|methods| ("allow", methods)));
        if let Err(error) = self.host.send_local_reply(reply.status, "intake", &headers, &reply.body) {
            log::error!("{error}");
        }
    }
}

/// One call to the intake.
pub struct IntakeCall<H: Host> {
    context: u32,
    intake: Rc<Intake<H>>,
    alive: Rc<()>,
    method: Vec<u8>,
    path: Vec<u8>,
    body: Zeroizing<Vec<u8>>,
    answered: bool,
}

impl<H: Host> IntakeCall<H> {
    /// Makes the call of a new stream.
    pub(crate) fn new(context: u32, intake: Rc<Intake<H>>) -> Self {
        let (method, path, body) = (Vec::new(), Vec::new(), Zeroizing::default());
        Self { context, intake, alive: Rc::new(()), method, path, body, answered: false }
    }

    fn answer(&mut self) -> Flow {
        if let Some(generation) = api::awaited_generation(&self.method, &self.path)
            && generation == self.intake.store.generation()
            && self.intake.wait(self.context, generation, &self.alive)
        {
            self.answered = true;
            return Flow::Stop;
        }
        let reply = self.intake.reply(&self.method, &self.path, &self.body);
        if reply.changed {
            wakeup::notify_workers(&self.intake.host, &self.intake.store, self.intake.host.now());
        }
        self.send(&reply)
    }

    fn send(&mut self, reply: &Reply) -> Flow {
        self.answered = true;
        self.intake.send(reply);
        Flow::Stop
    }

    pub(crate) fn on_request_headers(&mut self, end_of_stream: bool) -> Flow {
        let Ok(headers) = self.intake.host.headers(MapKind::Request) else {
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
            over_unix_socket: connection::is_over_unix_socket(&self.intake.host),
            client_certificate: connection::has_client_certificate(&self.intake.host),
            authorization,
        };
        if !self.intake.config.admits(&caller) {
            return self.send(&Reply::unauthenticated());
        }
        if end_of_stream { self.answer() } else { Flow::Stop }
    }

    pub(crate) fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Flow {
        if self.answered {
            return Flow::Stop;
        }
        // While the stream is paused, Envoy buffers the body and passes all of it so far.
        if size > MAX_BODY {
            return self.send(&Reply::too_large());
        }
        match self.intake.host.body(0, size) {
            Ok(body) => self.body = Zeroizing::new(body),
            Err(error) => log::error!("{error}"),
        }
        if end_of_stream { self.answer() } else { Flow::Stop }
    }

    pub(crate) fn on_request_trailers(&mut self) -> Flow {
        if self.answered { Flow::Stop } else { self.answer() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::host::mock::{MockHost, MockReply, MockStream};

    const POLICY: &str = r#"{"intake": {}}"#;

    /// An intake whose policy wants one identity, `default`.
    struct Proxy {
        host: MockHost,
        intake: Rc<Intake<MockHost>>,
    }

    impl Proxy {
        fn start() -> Self {
            let now = UNIX_EPOCH + Duration::from_secs(1_767_323_045);
            let host = MockHost::new(now, POLICY);
            let identities = [crate::credentials::Identity::default_chain()];
            CredentialStore(host.shared_data()).lease("policy", &identities, now, false).unwrap();
            CredentialStore(host.shared_data()).claim_slot(now).unwrap();
            let policy = IntakeConfig::from_json(POLICY.as_bytes()).unwrap();
            let intake = Rc::new(Intake::start(host.clone(), policy).unwrap());
            Self { host, intake }
        }

        /// Begins a call from a client at an address.
        fn call(&self, context: u32, address: &str, method: &str, path: &str, ends: bool) -> IntakeCall<MockHost> {
            let request = [(":method", method), (":path", path)];
            let request = request.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
            let properties = [("source\0address", address.as_bytes().to_vec())].into();
            self.host.set_stream(context, MockStream { request, properties, ..MockStream::default() });
            let mut call = IntakeCall::new(context, Rc::clone(&self.intake));
            assert_eq!(call.on_request_headers(ends), Flow::Stop);
            call
        }

        fn get(&self, context: u32, path: &str) -> IntakeCall<MockHost> {
            self.call(context, "/run/sigv4/intake.sock", "GET", path, true)
        }

        fn push(&self, context: u32, document: &[u8]) -> MockReply {
            let path = "/v1/identities/default/credentials";
            let mut call = self.call(context, "/run/sigv4/intake.sock", "PUT", path, false);
            self.host.with_stream(context, |stream| stream.body = document.to_vec());
            assert_eq!(call.on_request_body(document.len(), true), Flow::Stop);
            self.reply(context).unwrap()
        }

        fn reply(&self, context: u32) -> Option<MockReply> {
            self.host.stream(context).reply
        }

        fn pass(&self, time: Duration) {
            self.host.set_now(self.host.now() + time);
            self.host.enter(1);
            self.intake.on_tick();
        }
    }

    const DOCUMENT: &[u8] = br#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret"}"#;

    #[test]
    fn a_push_is_taken_and_the_workers_are_notified() {
        let proxy = Proxy::start();
        assert_eq!(proxy.push(2, DOCUMENT).status, 204);
        assert_eq!(proxy.host.notified(), ["sigv4.watcher.0"]);
        assert!(CredentialStore(proxy.host.shared_data()).get("default").is_some());
    }

    #[test]
    fn a_client_from_elsewhere_gets_nothing() {
        let proxy = Proxy::start();
        for address in ["10.0.0.1:1234", "", "[::1]:1"] {
            proxy.call(2, address, "GET", "/v1/identities", true);
            assert_eq!(proxy.reply(2).unwrap().status, 401, "{address}");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_refused_before_it_is_read() {
        let proxy = Proxy::start();
        let mut call = proxy.call(2, "/socket", "PUT", "/v1/identities/default/credentials", false);
        proxy.host.fail_call(None);
        assert_eq!(call.on_request_body(MAX_BODY + 1, false), Flow::Stop);
        assert_eq!(proxy.reply(2).unwrap().status, 413);
        assert!(!proxy.host.calls().contains(&"get_buffer_bytes"));
    }

    #[test]
    fn a_call_waits_for_a_change() {
        let proxy = Proxy::start();
        let generation = CredentialStore(proxy.host.shared_data()).generation();
        let waiting = proxy.get(2, &format!("/v1/identities?after={generation}"));
        assert_eq!(proxy.host.tick_period(), Some(FAST_TICK));
        proxy.pass(FAST_TICK);
        assert_eq!(proxy.reply(2), None);

        proxy.push(3, DOCUMENT);
        proxy.pass(FAST_TICK);
        let reply = proxy.reply(2).unwrap();
        assert!(reply.status == 200 && reply.body.contains("AKIDEXAMPLE"), "{reply:?}");
        assert_eq!(proxy.host.tick_period(), Some(TICK));
        drop(waiting);
    }

    #[test]
    fn a_call_waits_no_longer_than_its_bound() {
        let proxy = Proxy::start();
        let generation = CredentialStore(proxy.host.shared_data()).generation();
        let _waiting = proxy.get(2, &format!("/v1/identities?after={generation}"));
        for _ in 0..=LONGEST_WAIT.as_millis() / FAST_TICK.as_millis() {
            proxy.pass(FAST_TICK);
        }
        assert_eq!(proxy.reply(2).unwrap().status, 304);
    }

    #[test]
    fn more_calls_than_may_wait_are_answered_immediately() {
        let proxy = Proxy::start();
        let generation = CredentialStore(proxy.host.shared_data()).generation();
        let path = format!("/v1/identities?after={generation}");
        let waiting: Vec<_> = (0..MOST_WAITING as u32).map(|number| proxy.get(2 + number, &path)).collect();
        assert!((0..MOST_WAITING as u32).all(|number| proxy.reply(2 + number).is_none()));
        proxy.get(1000, &path);
        assert_eq!(proxy.reply(1000).unwrap().status, 200);
        drop(waiting);
    }

    #[test]
    fn no_failing_call_lets_a_client_in() {
        let calls = {
            let proxy = Proxy::start();
            proxy.host.fail_call(None);
            proxy.call(2, "10.0.0.1:1", "GET", "/v1/identities", true);
            proxy.host.calls().len()
        };
        assert!(calls > 3);
        for failing in 0..calls {
            let proxy = Proxy::start();
            proxy.host.fail_call(Some(failing));
            proxy.call(2, "10.0.0.1:1", "GET", "/v1/identities", true);
            let status = proxy.reply(2).map(|reply| reply.status);
            assert!(matches!(status, None | Some(401)), "{failing}: {status:?}");
        }
    }
}
