//! The signer role: what all requests of one worker share under one policy.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::host::{self, HeaderMap, HostError, Map, ProxySharedData};
use crate::local_reply;
use crate::metrics::Metrics;
use crate::request::{Held, Rechunked, RequestHead};
use crate::root::watcher_queue;
use crate::sampling::Sampling;
use sigv4_core::aws_endpoint;
use sigv4_core::clock_skew::{ClockSkew, SkewGauges};
use sigv4_core::credentials::{CredentialStore, SetError, Watch};
use sigv4_core::held::{HeldQueue, HeldShare, HeldTotals, Overloaded};
use sigv4_core::path;
use sigv4_core::policy::{self, Location, Policy, Route, Scheme, ScopeSource, UPSTREAM_SCHEME_HEADER};
use sigv4_core::refusal::{Refusal, UnsupportedRequest};
use sigv4_core::signing::{
    self, Algorithm, AwsChunkedBody, PayloadHash, Scope, SignedHeaders, SigningContext, SigningCredentials,
    UnsignedRequest, UriStyle, WireUri, is_owned_by_signing,
};

/// How often leases are renewed, and the generation of the shared data compared should a wake-up have been lost.
const TICK: Duration = Duration::from_secs(1);

/// How often while requests wait for credentials, so that none waits noticeably longer than its policy says.
const WAITING_TICK: Duration = Duration::from_millis(20);

/// How many requests whose body is late are looked at in a tick.
const LATE_BODIES: usize = 100;

thread_local! {
    /// What this worker holds, under whichever policy. A virtual machine is one thread.
    static HELD_TOTALS: Rc<HeldTotals> = Rc::default();
}

/// Stands for the life of credentials without an expiry: a number that no alert for short ones is above.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The policy, the credentials held for it, and the buffers of signing.
pub(crate) struct Signer {
    pub(crate) policy: Policy,
    /// Names the policy among those of other plugins; equal on all workers.
    policy_id: String,
    store: CredentialStore<ProxySharedData>,
    credentials: RefCell<HeldCredentials>,
    /// Where the identity of each id is in the policy.
    places: HashMap<String, usize>,
    signing: RefCell<Signing>,
    /// Requests that wait for credentials.
    waiting: RefCell<HeldQueue<RefCell<Held>>>,
    /// Requests whose body has not come yet; of some it has.
    bodiless: RefCell<HeldQueue<RefCell<Held>>>,
    watcher: Cell<Option<usize>>,
    watch: Cell<Watch>,
    ticks_fast: Cell<bool>,
    /// When that was last done which is done once a second, however often the clock ticks.
    last_second: Cell<SystemTime>,
    pub(crate) sampling: Sampling,
    /// The proxy's clock when it was last read.
    now: Cell<SystemTime>,
    pub(crate) metrics: Metrics,
    skew_gauges: RefCell<SkewGauges>,
}

/// This worker's copy of the credentials, by the place of their identity in the policy.
struct HeldCredentials {
    generation: u64,
    by_identity: Vec<Option<SigningCredentials>>,
}

impl HeldCredentials {
    fn reload(&mut self, store: &CredentialStore<ProxySharedData>, policy: &Policy, place: usize) {
        let (held, now_held) = (&mut self.by_identity[place], store.get(policy.identities()[place].id()));
        // What is the same keeps the keys that were derived from it.
        if held.as_ref().map(SigningCredentials::credentials) != now_held.as_ref() {
            *held = now_held.map(SigningCredentials::from);
        }
    }
}

/// Buffers and keys that one request after another uses.
#[derive(Default)]
struct Signing {
    signer: signing::Signer,
    clock_skew: ClockSkew,
    host: String,
    path: Vec<u8>,
    uri: WireUri,
}

impl Signer {
    /// Starts to sign under a policy; `document` is the text it was read from.
    pub(crate) fn start(policy: Policy, document: &[u8]) -> Result<Self, HostError> {
        // Another version of the filter may read other identities out of the same text.
        let mut digest = Sha256::new_with_prefix(document);
        policy.identities().iter().for_each(|identity| digest.update(identity.id()));
        let policy_id = signing::lower_hex(&digest.finalize()[..8]);
        let by_identity = policy.identities().iter().map(|_| None).collect();
        let places = policy.identities().iter().map(|identity| identity.id().to_owned()).zip(0..).collect();
        let metrics = Metrics::new(policy.routes().len());
        let skew_gauges = RefCell::new(SkewGauges::new(&policy));
        let signer = Self {
            policy,
            policy_id,
            store: CredentialStore(ProxySharedData),
            // No generation of the store, so that what is held already is read with the first look.
            credentials: RefCell::new(HeldCredentials { generation: u64::MAX, by_identity }),
            places,
            signing: RefCell::default(),
            waiting: RefCell::default(),
            bodiless: RefCell::default(),
            watcher: Cell::new(None),
            watch: Cell::new(Watch::new(host::now())),
            ticks_fast: Cell::new(false),
            last_second: Cell::new(SystemTime::UNIX_EPOCH),
            sampling: Sampling::default(),
            now: Cell::new(SystemTime::UNIX_EPOCH),
            metrics,
            skew_gauges,
        };
        host::set_tick_period(TICK)?;
        signer.tick();
        Ok(signer)
    }

    /// Renews the leases, looks for changes and sees to the requests that are held.
    pub(crate) fn tick(&self) {
        let now = self.read_clock();
        self.reload_and_advance(now);
        // The clock ticks faster while requests wait for credentials.
        if now.duration_since(self.last_second.get()).is_ok_and(|passed| passed < TICK - WAITING_TICK) {
            return;
        }
        self.last_second.set(now);
        if let Err(error) = self.renew_leases(now) {
            log::error!("{error}; will be tried again");
        }
        self.exchange_clock_skew(now);
        self.check_late_bodies(now);
        self.show_remaining_life(now);
        self.sampling.new_second();
        self.metrics.publish();
    }

    /// Reads the proxy's clock.
    pub(crate) fn read_clock(&self) -> SystemTime {
        self.now.set(host::now());
        self.now.get()
    }

    /// The time when the clock was last read: with the last tick, or for a request since. Not more than a second ago, which
    /// is as fine as the date of a signature.
    pub(crate) fn now(&self) -> SystemTime {
        self.now.get()
    }

    /// Another worker says that credentials changed.
    pub(crate) fn woken(&self, queue: u32) {
        if let Err(error) = host::drain_queue(queue) {
            log::error!("{error}");
        }
        self.reload_and_advance(self.read_clock());
    }

    fn renew_leases(&self, now: SystemTime) -> Result<(), SetError> {
        let mut watch = self.watch.get();
        let tended = self.store.tend_leases(&mut watch, Some((&self.policy_id, self.policy.identities())), now);
        self.watch.set(watch);
        tended?;
        if let Some(place) = self.watcher.get()
            && self.store.renew_watcher(place, now)?
        {
            return Ok(());
        }
        let place = self.store.claim_watcher(now)?;
        match host::register_queue(&watcher_queue(place)) {
            Ok(_) => self.watcher.set(Some(place)),
            Err(error) => log::error!("{error}; changes of credentials are seen with the next tick"),
        }
        Ok(())
    }

    /// Takes over what the shared data holds, if it has changed since the last look, and whether it has.
    fn reload(&self) -> bool {
        let generation = self.store.generation();
        let mut credentials = self.credentials.borrow_mut();
        if generation == credentials.generation {
            return false;
        }
        match self.store.changes(credentials.generation, generation) {
            Some(ids) => ids.iter().filter_map(|id| self.places.get(id)).for_each(|place| {
                credentials.reload(&self.store, &self.policy, *place);
            }),
            None => (0..self.policy.identities().len()).for_each(|place| {
                credentials.reload(&self.store, &self.policy, place);
            }),
        }
        credentials.generation = generation;
        true
    }

    fn show_remaining_life(&self, now: SystemTime) {
        for (held, identity) in self.credentials.borrow().by_identity.iter().zip(self.policy.identities()) {
            let remaining = match held {
                Some(held) => held.credentials().remaining(now).unwrap_or(FOR_EVER),
                None => Duration::ZERO,
            };
            self.metrics.remaining_life(identity.id(), remaining);
        }
    }

    /// Takes note of a request that is held, to look after it until it goes on.
    pub(crate) fn hold(&self, context: u32, held: &Rc<RefCell<Held>>) {
        if held.borrow().waits_for_credentials() {
            self.waiting.borrow_mut().push(context, held);
            self.tick_every(WAITING_TICK);
        } else {
            self.bodiless.borrow_mut().push(context, held);
        }
    }

    /// Returns a share for a request that is about to be held, with headers of this size.
    pub(crate) fn hold_share(&self, header_size: usize) -> Result<HeldShare, Refusal> {
        let limits = self.policy.held_limits;
        HELD_TOTALS
            .with(|totals| HeldShare::of_request(totals, limits))
            .and_then(|mut share| share.set_bytes(header_size).map(|()| share))
            .map_err(|Overloaded| Refusal::Overloaded)
    }

    /// Begins to sign a body's chunks anew.
    pub(crate) fn rechunked(&self, body: Box<AwsChunkedBody>) -> Rechunked {
        let share = HELD_TOTALS.with(|totals| HeldShare::of_parts(totals, self.policy.held_limits));
        Rechunked { body, share }
    }

    /// Takes over credentials that changed, and looks after requests that wait for some: with a change after all of them,
    /// else after those that have waited as long as they may.
    fn reload_and_advance(&self, now: SystemTime) {
        let changed = self.reload();
        let mut waiting = self.waiting.take();
        while let Some((context, held)) =
            waiting.pop_due(|held| changed || held.borrow().credentials_by().is_none_or(|by| now >= by))
        {
            if self.look_after(context, &held, now) {
                self.hold(context, &held);
            }
        }
        if !waiting.is_empty() {
            self.waiting.replace(waiting);
        }
        self.tick_every(if self.waiting.borrow().is_empty() { TICK } else { WAITING_TICK });
        self.metrics.publish();
    }

    /// Looks after the requests of which no body was seen for a while, those that came first first.
    fn check_late_bodies(&self, now: SystemTime) {
        let mut bodiless = self.bodiless.borrow_mut();
        for _ in 0..bodiless.len().min(LATE_BODIES) {
            let Some((context, held)) = bodiless.pop_due(|held| held.borrow().is_body_late(now)) else { return };
            if self.look_after(context, &held, now) && held.borrow().is_body_unseen() {
                bodiless.push(context, &held);
            }
        }
    }

    /// Returns whether the request still waits.
    fn look_after(&self, context: u32, held: &RefCell<Held>, now: SystemTime) -> bool {
        match host::act_on(context) {
            Ok(()) => held.borrow_mut().look_after(self, now),
            Err(error) => {
                log::error!("{error}");
                false
            }
        }
    }

    fn tick_every(&self, period: Duration) {
        let fast = period == WAITING_TICK;
        if self.ticks_fast.get() != fast {
            match host::set_tick_period(period) {
                Ok(()) => self.ticks_fast.set(fast),
                Err(error) => log::error!("{error}"),
            }
        }
    }

    /// Whether credentials that hold at `now` are there for the route.
    pub(crate) fn can_sign(&self, route: &Route, now: SystemTime) -> bool {
        let credentials = self.credentials.borrow();
        matches!(credentials.by_identity.get(route.identity), Some(Some(held)) if held.credentials().hold_at(now))
    }

    /// Rewrites and signs the current stream's request.
    pub(crate) fn sign(
        &self,
        route: &Route,
        headers: &HeaderMap,
        head: &RequestHead<'_>,
        payload: PayloadHash,
        now: SystemTime,
    ) -> Result<Signed, Refusal> {
        let credentials = self.credentials.borrow();
        let credentials = match credentials.by_identity.get(route.identity) {
            Some(Some(held)) if held.credentials().hold_at(now) => held,
            _ => return Err(self.no_credentials(route)),
        };
        let Signing { signer, clock_skew, host, path, uri } = &mut *self.signing.borrow_mut();
        let scope = scope(route, head, host)?;
        let authority = match &route.target {
            Some(target) => {
                let prefix = route.prefix_in(head.path.path()).unwrap_or_default();
                path::join(target.path.as_bytes(), prefix, &head.path, path);
                target.authority.as_bytes()
            }
            None => {
                path.clear();
                path.extend_from_slice(head.path.path());
                head.authority
            }
        };
        uri.set(UriStyle::of(scope.service, authority), path, head.path.query());
        let request =
            UnsignedRequest { method: head.method, authority, uri, payload, signed_headers: &route.signed_headers };
        let algorithm = match &route.algorithm {
            policy::Algorithm::SigV4 => Algorithm::SigV4,
            policy::Algorithm::SigV4a { region_set } => Algorithm::SigV4a { region_set },
        };
        let at = clock_skew.correct(authority, now);
        let context = SigningContext { credentials, scope, algorithm, at };
        let rules = &route.request_headers;
        let set = rules.set().iter().map(|header| (header.name.as_bytes(), header.value.as_bytes()));
        let sent = headers.iter().filter(|(name, _)| rules.keeps(name)).chain(set.clone());
        let mut rechunks = None;
        let signature = match route.location {
            Location::Header if let PayloadHash::AwsChunked(form) = payload => {
                let length = head.decoded_content_length.ok_or(UnsupportedRequest::NoDecodedLength)?;
                let (signed, body) = signer.sign_aws_chunked(form, length, &request, sent, &context)?;
                rechunks = Some(Box::new(body));
                Signature::Headers(signed)
            }
            Location::Query { .. } if matches!(payload, PayloadHash::AwsChunked(_)) => {
                return Err(UnsupportedRequest::ChunkedBodyInQuery.into());
            }
            Location::Header => Signature::Headers(signer.sign(&request, sent, &context)?),
            // Whoever follows a redirect sends headers of its own: none but the host can be signed.
            Location::Query { expires } if route.redirect => {
                let uri = signer.presign(&request, [], &context, expires)?;
                self.metrics.count(Some(route), "Redirected");
                self.describe_outcome(Some(route), scope.service, "Redirected");
                local_reply::redirect(&location(route, authority, uri));
                return Ok(Signed::Elsewhere);
            }
            Location::Query { expires } => Signature::Uri(signer.presign(&request, sent, &context, expires)?),
        };
        let write = || -> Result<(), HostError> {
            if head.sends_owned || !rules.is_empty() {
                for (name, _) in headers.iter() {
                    if !rules.keeps(name) || (is_owned_by_signing(name) && !signature.replaces(name)) {
                        host::remove_header(Map::Request, name)?;
                    }
                }
            }
            for (name, value) in set {
                host::replace_header(Map::Request, name, value)?;
            }
            host::replace_header(Map::Request, b":authority", authority)?;
            match &signature {
                Signature::Headers(signed) => {
                    host::replace_header(Map::Request, b":path", uri.as_bytes())?;
                    let write = if head.sends_owned { host::replace_header } else { host::add_header };
                    for (name, value) in signed.iter() {
                        write(Map::Request, name.as_bytes(), value)?;
                    }
                }
                Signature::Uri(presigned) => host::replace_header(Map::Request, b":path", presigned)?,
            }
            let Some(target) = &route.target else { return Ok(()) };
            // The proxy resolves hosts of the policy apart from those that clients choose.
            self.describe(b"sigv4.host", "policy");
            if target.scheme == Scheme::Http {
                host::replace_header(Map::Request, UPSTREAM_SCHEME_HEADER.as_bytes(), b"http")?;
            }
            Ok(())
        };
        write().map_err(|error| Refusal::SigningFailed(error.to_string()))?;
        self.metrics.count(Some(route), "Signed");
        if self.policy.access_log {
            self.describe_outcome(Some(route), scope.service, "Signed");
        }
        Ok(Signed::Here(rechunks))
    }

    /// Answers the current stream's request with a refusal. The stream must be paused after that.
    pub(crate) fn refuse(&self, refusal: &Refusal, route: Option<&Route>) {
        self.metrics.count(route, refusal.code());
        self.describe_outcome(route, "", refusal.code());
        local_reply::send(refusal, route.map(|route| route.name.as_str()));
    }

    /// Says which route took the current stream's request, how it is signed, and what became of it.
    fn describe_outcome(&self, route: Option<&Route>, signing_name: &str, outcome: &str) {
        if let Some(route) = route {
            self.describe(b"sigv4.route", &route.name);
            if let Some(identity) = self.policy.identities().get(route.identity) {
                self.describe(b"sigv4.identity", identity.id());
            }
        }
        if !signing_name.is_empty() {
            self.describe(b"sigv4.signing_name", signing_name);
        }
        self.describe(b"sigv4.outcome", outcome);
    }

    /// Keeps a word on the current stream's request in the proxy's filter state, where its access log and its own local
    /// replies find it. A request does not fail because it could not be described.
    pub(crate) fn describe(&self, property: &[u8], value: &str) {
        if let Err(error) = host::set_property(property, value.as_bytes()) {
            log::error!("{error}");
        }
    }

    /// Learns of a host's clock from the `date` of a refusal, in seconds since 1970.
    pub(crate) fn learn_clock(&self, authority: &[u8], date: i64, now: SystemTime) {
        let learned = self.signing.borrow_mut().clock_skew.learn(authority, date, now);
        if let Some(seconds) = learned {
            let authority = String::from_utf8_lossy(authority);
            log::warn!("the clock of {authority} is {seconds} s ahead of this proxy's; requests are signed by it");
            self.exchange_clock_skew(now);
        }
    }

    /// Shares what this worker has learned of clocks, and takes over what others have.
    fn exchange_clock_skew(&self, now: SystemTime) {
        let clock_skew = &mut self.signing.borrow_mut().clock_skew;
        if let Err(error) = clock_skew.share(&ProxySharedData, now) {
            log::error!("{error}; will be tried again");
        }
        if clock_skew.reload(&ProxySharedData) {
            let show = |host: &str, seconds| self.metrics.clock_skew(host, seconds);
            self.skew_gauges.borrow_mut().update(clock_skew.by_host(), show);
        }
    }

    /// Returns the signing name for which a request will be signed.
    ///
    /// # Errors
    /// [`Refusal::UnsupportedRequest`] if neither policy nor request tells it.
    pub(crate) fn service<'r>(&self, route: &'r Route, head: &RequestHead<'_>) -> Result<Cow<'r, str>, Refusal> {
        match &route.scope {
            Some(scope) => Ok(Cow::Borrowed(&scope.service)),
            None => {
                let host = &mut self.signing.borrow_mut().host;
                scope(route, head, host).map(|scope| Cow::Owned(scope.service.to_owned()))
            }
        }
    }

    /// The refusal of a request for whose identity nothing is held.
    pub(crate) fn no_credentials(&self, route: &Route) -> Refusal {
        let identity = self.policy.identities().get(route.identity).map(|identity| identity.id().to_owned());
        Refusal::NoCredentials { identity: identity.unwrap_or_default() }
    }
}

/// Where a signed request goes.
pub(crate) enum Signed {
    /// On through the proxy; with what signs the chunks of its body anew, if it has such.
    Here(Option<Box<AwsChunkedBody>>),
    /// To its URL by the client itself, which has been told so.
    Elsewhere,
}

/// What carries the signature.
enum Signature<'a> {
    Headers(SignedHeaders<'a>),
    Uri(&'a [u8]),
}

impl Signature<'_> {
    /// Whether a header of the client gives way to one of the signature.
    fn replaces(&self, name: &[u8]) -> bool {
        match self {
            Self::Headers(signed) => signed.iter().any(|(ours, _)| ours.as_bytes() == name),
            Self::Uri(_) => false,
        }
    }
}

/// The URL of a presigned request.
fn location(route: &Route, authority: &[u8], uri: &[u8]) -> String {
    let scheme = match route.target.as_ref().map(|target| target.scheme) {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) | None => "https",
    };
    format!("{scheme}://{}{}", String::from_utf8_lossy(authority), String::from_utf8_lossy(uri))
}

/// The scope of a request: the policy's, else what the host's name tells, else the client's where the route says so.
/// `host` is scratch space.
fn scope<'a>(route: &'a Route, head: &RequestHead<'a>, host: &'a mut String) -> Result<Scope<&'a str>, Refusal> {
    if let Some(scope) = &route.scope {
        return Ok(Scope { region: &scope.region, service: &scope.service });
    }
    host.clear();
    host.push_str(std::str::from_utf8(head.host()).unwrap_or_default().trim_end_matches('.'));
    host.make_ascii_lowercase();
    let inferred = aws_endpoint::infer(host).map(|found| Scope { region: found.region, service: found.signing_name });
    let found = inferred.or_else(|| match route.scope_source {
        ScopeSource::Client => head.authorization.and_then(Scope::of_authorization),
        ScopeSource::Infer => None,
    });
    if let Some(found) = found
        && found.region == aws_endpoint::ALL_REGIONS
        && route.region.is_none()
        && route.algorithm == policy::Algorithm::SigV4
    {
        return Err(UnsupportedRequest::Sigv4aHost { host: host.clone(), route: route.name.clone() }.into());
    }
    let region = route.region.as_deref().or(found.map(|scope| scope.region));
    let service = route.service.as_deref().or(found.map(|scope| scope.service));
    match (region, service) {
        (Some(region), Some(service)) => Ok(Scope { region, service }),
        _ => {
            let (host, route_name) = (host.clone(), route.name.clone());
            Err(match route.scope_source {
                ScopeSource::Client => UnsupportedRequest::NoClientScope { host, route: route_name },
                ScopeSource::Infer => UnsupportedRequest::UnknownScope { host, route: route_name },
            }
            .into())
        }
    }
}
