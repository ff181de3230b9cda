//! One request on its way through the signer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::exports::Flow;
use crate::host::{self, Buffer, HeaderMap, HostError, Map};
use crate::intake::has_client_certificate;
use crate::signer::{Signed, Signer};
use sigv4_core::authentication;
use sigv4_core::clock_skew;
use sigv4_core::held::{HeldShare, Overloaded};
use sigv4_core::path::SafePath;
use sigv4_core::payload::{BodyFacts, PayloadPlan, is_event_stream};
use sigv4_core::policy::{self, CopySourceError, HeaderRules, Policy, Route, UPSTREAM_SCHEME_HEADER, Unmatched};
use sigv4_core::refusal::{Refusal, UnsupportedRequest};
use sigv4_core::signing::{
    AwsChunkedBody, PayloadHash, PayloadHasher, is_owned_by_signing, is_s3, names_streaming_form,
};

/// How long a body may be late before it is checked whether it came and was not shown to the filter.
const BODY_CHECK: Duration = Duration::from_secs(1);

/// What the proxy may buffer of a body, where the filter is not shown how much: the stock listener's bound.
const FULL_BUFFER: usize = 16 * 1024 * 1024;

/// The context of one HTTP stream.
pub(crate) struct SignedRequest {
    context: u32,
    signer: Rc<Signer>,
    /// The place of its route in the policy; `None` where no route takes it.
    route: Option<usize>,
    /// Whether it is [looked at closely](crate::sampling::Sampling).
    is_sampled: bool,
    /// The host that it was signed for, if it is sampled and its route has no target: responses may tell of its clock.
    authority: Vec<u8>,
    state: State,
}

/// How far the request has come. What is not [`State::Passes`] never goes on by itself.
enum State {
    /// Signed, or not to be signed.
    Passes,
    /// Signed, and the chunks of its body are signed anew as they pass.
    Rechunks(Rechunked),
    /// Shared with the signer, whose clock may sign or refuse it.
    Held(Rc<RefCell<Held>>),
    /// The client has its answer.
    Answered,
}

/// What the filter reads of a request's headers, in one pass.
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) authority: &'a [u8],
    pub(crate) path: SafePath<'a>,
    pub(crate) authorization: Option<&'a [u8]>,
    pub(crate) content_sha256: Option<&'a [u8]>,
    pub(crate) decoded_content_length: Option<u64>,
    /// Whether there are headers that [signing owns](is_owned_by_signing).
    pub(crate) sends_owned: bool,
    is_upgrade: bool,
    /// Whether a header names another object, to S3.
    names_copy_source: bool,
    is_event_stream: bool,
    content_length: Option<u64>,
}

impl<'a> RequestHead<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let (mut method, mut authority, mut path) = (&b""[..], &b""[..], &b""[..]);
        let (mut authorization, mut content_sha256, mut decoded_content_length) = (None, None, None);
        let (mut sends_owned, mut is_upgrade) = (false, false);
        let (mut sent_event_stream, mut content_length, mut names_copy_source) = (false, None, false);
        for (name, value) in headers.iter() {
            match name {
                b":method" => method = value,
                b":authority" => authority = value,
                b":path" => path = value,
                b"authorization" => authorization = Some(value),
                // Of several, one that names a streaming form counts: the body may have signatures in it.
                b"x-amz-content-sha256" if !content_sha256.is_some_and(names_streaming_form) => {
                    content_sha256 = Some(value);
                }
                b"content-type" => sent_event_stream |= is_event_stream(value),
                b"content-length" => content_length = Some(parse_number(value).unwrap_or(u64::MAX)),
                b"x-amz-decoded-content-length" => decoded_content_length = parse_number(value),
                b"upgrade" => is_upgrade = value.eq_ignore_ascii_case(b"websocket"),
                _ => names_copy_source |= policy::copy_source_header(name).is_some(),
            }
            sends_owned |= is_owned_by_signing(name);
        }
        if method == b"CONNECT" {
            return Err(UnsupportedRequest::Connect.into());
        }
        Ok(Self {
            method,
            authority,
            path: SafePath::check(path).map_err(Refusal::InvalidPath)?,
            authorization,
            content_sha256,
            decoded_content_length,
            sends_owned,
            is_upgrade,
            names_copy_source,
            is_event_stream: sent_event_stream,
            content_length,
        })
    }

    /// How much of the body the proxy may buffer unseen.
    fn unseen_size(&self) -> usize {
        let length = self.content_length.and_then(|length| usize::try_from(length).ok());
        length.map_or(FULL_BUFFER, |length| length.min(FULL_BUFFER))
    }

    /// The authority without its port.
    pub(crate) fn host(&self) -> &'a [u8] {
        match self.authority.iter().rposition(|&byte| byte == b':') {
            Some(colon) if !self.authority.ends_with(b"]") => self.authority.get(..colon).unwrap_or_default(),
            _ => self.authority,
        }
    }
}

/// How far a request comes at its headers.
enum Begun {
    Decided(State),
    /// It has to be held.
    Waits {
        payload: HeldPayload,
        since: SystemTime,
        credentials_by: Option<SystemTime>,
        share: HeldShare,
    },
}

/// A request that is held back at its headers. They stay as they are with the proxy, and are read again to sign them.
pub(crate) struct Held {
    route: usize,
    payload: HeldPayload,
    /// What it takes of what the worker may hold; `None` once it goes on.
    share: Option<HeldShare>,
    /// The size of its headers.
    header_size: usize,
    since: SystemTime,
    /// Until when the request may wait for credentials; `None` where they are there already.
    credentials_by: Option<SystemTime>,
    /// The length of a body that was hashed, once it is whole.
    hashed_length: Option<usize>,
    /// Trailers follow the body.
    has_trailers: bool,
    progress: Progress,
    /// Once signed: what signs the chunks of its body anew.
    rechunks: Option<Rechunked>,
}

/// An `aws-chunked` body whose chunks are re-signed, and its share of what the worker may hold.
pub(crate) struct Rechunked {
    pub(crate) body: Box<AwsChunkedBody>,
    pub(crate) share: HeldShare,
}

enum HeldPayload {
    Known(PayloadHash),
    Hashing { hasher: PayloadHasher, seen: usize },
}

/// What has become of a held request.
#[derive(Clone, Copy, PartialEq)]
enum Progress {
    Waits,
    /// It goes on.
    Signed,
    /// The client has its answer.
    Answered,
}

impl Held {
    /// Whether it is signed with the hash of its body, which has to be seen for that.
    fn is_hashed(&self) -> bool {
        matches!(self.payload, HeldPayload::Hashing { .. })
    }

    /// Whether it waits for credentials rather than for its body.
    pub(crate) fn waits_for_credentials(&self) -> bool {
        self.credentials_by.is_some()
    }

    /// When its wait for credentials ends.
    pub(crate) fn credentials_by(&self) -> Option<SystemTime> {
        self.credentials_by
    }

    /// Takes the part of the body that has come.
    fn take_body(&mut self, available: usize) -> Result<(), Refusal> {
        if let Some(share) = &mut self.share {
            share.set_bytes(self.header_size.saturating_add(available)).map_err(|Overloaded| Refusal::Overloaded)?;
        }
        if let HeldPayload::Hashing { hasher, seen } = &mut self.payload {
            let part = host::buffer(Buffer::RequestBody, *seen, available.saturating_sub(*seen)).map_err(failed)?;
            hasher.update(&part);
            *seen += part.len();
        }
        Ok(())
    }

    /// The body is whole.
    fn body_ends(&mut self) {
        if let HeldPayload::Hashing { hasher, seen } = &mut self.payload {
            self.hashed_length = Some(*seen);
            self.payload = HeldPayload::Known(std::mem::take(hasher).finish());
        }
    }

    /// Signs, if all is there that a signature needs.
    fn advance(&mut self, signer: &Signer, now: SystemTime) -> Progress {
        if self.progress == Progress::Waits {
            let tried = self.try_to_sign(signer, now);
            match tried {
                Ok(Progress::Signed) => self.ends(signer, "Signed", now),
                Ok(Progress::Answered) => self.ends(signer, "Redirected", now),
                Ok(Progress::Waits) | Err(_) => {}
            }
            self.progress = tried.unwrap_or_else(|refusal| self.refuse(signer, &refusal));
            // What the client still owes to a refused request stays with the proxy until the stream ends.
            if self.progress == Progress::Signed {
                self.share = None;
            }
        }
        self.progress
    }

    fn try_to_sign(&mut self, signer: &Signer, now: SystemTime) -> Result<Progress, Refusal> {
        let route = signer.policy.routes().get(self.route).ok_or(Refusal::NoRoute)?;
        if let Some(by) = self.credentials_by {
            if signer.can_sign(route, now) {
                self.credentials_by = None;
            } else if now >= by {
                return Err(signer.no_credentials(route));
            } else {
                return Ok(Progress::Waits);
            }
        }
        let HeldPayload::Known(payload) = self.payload else { return Ok(Progress::Waits) };
        let headers = HeaderMap::read(Map::Request).map_err(failed)?;
        let head = RequestHead::of(&headers)?;
        Ok(match signer.sign(route, &headers, &head, payload, now)? {
            Signed::Here(body) => {
                self.rechunks = body.map(|body| signer.rechunked(body));
                self.set_content_length(&head)?;
                Progress::Signed
            }
            Signed::Elsewhere => Progress::Answered,
        })
    }

    /// Says how long the body is, if the client did not: several services, S3 among them, take none of unknown length.
    /// Not with trailers, which HTTP/1.1 has behind a chunked body only.
    fn set_content_length(&self, head: &RequestHead<'_>) -> Result<(), Refusal> {
        match self.hashed_length {
            Some(length) if head.content_length.is_none() && !self.has_trailers => {
                host::add_header(Map::Request, b"content-length", length.to_string().as_bytes()).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// Takes what has come of the body, in a callback of its stream.
    fn on_body(&mut self, signer: &Signer, size: usize, ends: bool) -> Progress {
        if self.progress == Progress::Waits {
            if let Err(refusal) = self.take_body(size) {
                self.progress = self.refuse(signer, &refusal);
            }
            if ends {
                self.body_ends();
            }
        }
        self.advance(signer, signer.read_clock())
    }

    fn ends(&self, signer: &Signer, outcome: &'static str, now: SystemTime) {
        let route = signer.policy.routes().get(self.route);
        signer.metrics.held(route, outcome, now.duration_since(self.since).unwrap_or_default());
    }

    fn refuse(&self, signer: &Signer, refusal: &Refusal) -> Progress {
        self.ends(signer, refusal.code(), host::now());
        signer.refuse(refusal, signer.policy.routes().get(self.route));
        Progress::Answered
    }

    /// Goes on outside a callback of its stream if it can, or ends if it has waited too long. Returns whether it still waits.
    pub(crate) fn look_after(&mut self, signer: &Signer, now: SystemTime) -> bool {
        if self.progress != Progress::Waits {
            return false;
        }
        let progress = self.advance(signer, now);
        if progress == Progress::Signed {
            // What the proxy has kept of a body that was not hashed comes to the filter now.
            if let Err(error) = host::continue_request() {
                log::error!("{error}");
            }
        }
        if progress == Progress::Waits && self.body_is_withheld(now) {
            let why = "the proxy does not show the body to the filter: set allow_on_headers_stop_iteration: true in \
                       the filter's PluginConfig (Envoy 1.36 and later)";
            log::error!("{why}");
            self.progress = self.refuse(signer, &Refusal::SigningFailed(why.to_owned()));
        }
        self.progress == Progress::Waits
    }

    /// Whether parts of the body have come to the proxy and none to the filter. So it is where a pause at the headers
    /// stops the body too.
    fn body_is_withheld(&self, now: SystemTime) -> bool {
        self.is_body_unseen() && self.is_body_late(now) && request_size() > self.header_size as u64
    }

    pub(crate) fn is_body_unseen(&self) -> bool {
        matches!(self.payload, HeldPayload::Hashing { seen: 0, .. })
    }

    /// Whether its body could be here, if the proxy showed it.
    pub(crate) fn is_body_late(&self, now: SystemTime) -> bool {
        now.duration_since(self.since).is_ok_and(|held| held >= BODY_CHECK)
    }
}

impl Rechunked {
    /// Signs the first `size` bytes that the proxy holds of the body anew, in their place.
    fn pass(&mut self, size: usize, ends: bool) -> Result<(), Refusal> {
        let part = host::buffer(Buffer::RequestBody, 0, size).map_err(failed)?;
        if !part.is_empty() {
            let mut signed = Vec::new();
            self.body.push(&part, &mut signed).map_err(Refusal::InvalidBody)?;
            host::replace_buffer(Buffer::RequestBody, part.len(), &signed).map_err(failed)?;
            self.share.set_bytes(self.body.held_bytes()).map_err(|Overloaded| Refusal::Overloaded)?;
        }
        if ends { self.body.finish().map_err(Refusal::InvalidBody) } else { Ok(()) }
    }
}

impl SignedRequest {
    pub(crate) fn new(context: u32, signer: Rc<Signer>) -> Self {
        Self { context, signer, route: None, is_sampled: false, authority: Vec::new(), state: State::Passes }
    }

    /// Signs the request, or holds it, or lets it pass where no route wants it.
    fn begin(&mut self, ends: bool) -> Result<State, Refusal> {
        let signer = Rc::clone(&self.signer);
        let headers = HeaderMap::read(Map::Request).map_err(failed)?;
        refuse_upstream_scheme(&headers)?;
        let head = RequestHead::of(&headers);
        let Some(route) = choose_route(&signer.policy, &headers, &head)? else { return Ok(State::Passes) };
        self.route = Some(route.index);
        let head = head?;
        if self.is_sampled && route.target.is_none() {
            self.authority = head.authority.to_vec();
        }
        match self.begin_on(&signer, route, &headers, &head, ends)? {
            Begun::Decided(state) => Ok(state),
            Begun::Waits { payload, since, credentials_by, share } => {
                // Envoy itself answers should the body outgrow its buffer, and that answer can name the route.
                signer.describe(b"sigv4.route", &route.name);
                let held = Rc::new(RefCell::new(Held {
                    route: route.index,
                    payload,
                    share: Some(share),
                    header_size: headers.byte_size(),
                    since,
                    credentials_by,
                    hashed_length: None,
                    has_trailers: false,
                    progress: Progress::Waits,
                    rechunks: None,
                }));
                signer.hold(self.context, &held);
                Ok(State::Held(held))
            }
        }
    }

    fn begin_on(
        &self,
        signer: &Signer,
        route: &Route,
        headers: &HeaderMap,
        head: &RequestHead<'_>,
        ends: bool,
    ) -> Result<Begun, Refusal> {
        if !route.allow_unauthenticated && !is_authenticated() {
            return Err(Refusal::Unauthenticated);
        }
        refuse_pass_through(route, head)?;
        let service = signer.service(route, head)?;
        if is_s3(&service) || route.takes_clients_service() {
            check_copy_source(&signer.policy, route, headers, head).map_err(Refusal::InvalidCopySource)?;
        }
        let now = signer.now();
        let plan = PayloadPlan::of(
            route.payload,
            BodyFacts {
                is_empty: ends,
                is_upgrade: head.is_upgrade,
                service: &service,
                over_tls: route.upstream_tls,
                client_hash: head.content_sha256,
                is_event_stream: head.is_event_stream,
            },
        )
        .map_err(UnsupportedRequest::from)?;
        let has_credentials = signer.can_sign(route, now);
        if !has_credentials && signer.policy.credentials_wait.is_zero() {
            return Err(signer.no_credentials(route));
        }
        let payload = match plan {
            PayloadPlan::Known(payload) if has_credentials => {
                return Ok(Begun::Decided(match signer.sign(route, headers, head, payload, now)? {
                    Signed::Here(None) => State::Passes,
                    // No body follows, and even an empty one has a last chunk.
                    Signed::Here(Some(body)) if ends => {
                        body.finish().map(|()| State::Passes).map_err(Refusal::InvalidBody)?
                    }
                    Signed::Here(Some(body)) => State::Rechunks(signer.rechunked(body)),
                    Signed::Elsewhere => State::Answered,
                }));
            }
            PayloadPlan::Known(payload) => HeldPayload::Known(payload),
            PayloadPlan::HashBody => HeldPayload::Hashing { hasher: PayloadHasher::default(), seen: 0 },
        };
        let unseen_size = match payload {
            HeldPayload::Known(_) if !ends => head.unseen_size(),
            _ => 0,
        };
        let share = signer.hold_share(headers.byte_size().saturating_add(unseen_size))?;
        let since = signer.read_clock();
        let credentials_by = (!has_credentials).then(|| since + signer.policy.credentials_wait);
        Ok(Begun::Waits { payload, since, credentials_by, share })
    }

    /// What became of a request at its headers, in the word that is counted; `None` where that is not decided, or there was
    /// nothing to do.
    fn outcome(&self, begun: &Result<State, Refusal>) -> Option<&'static str> {
        match begun {
            Err(refusal) => Some(refusal.code()),
            Ok(State::Answered) => Some("Redirected"),
            Ok(State::Passes | State::Rechunks(_)) => self.route.map(|_| "Signed"),
            Ok(State::Held(_)) => None,
        }
    }

    /// Publishes what has been counted, so that a worker with little to do shows each request at once.
    fn publish(&self) {
        if self.is_sampled {
            self.signer.metrics.publish();
        }
    }

    fn route(&self) -> Option<&Route> {
        self.signer.policy.routes().get(self.route?)
    }

    /// Reads in a refusal what the upstream's clock says, and applies the route's rules to the response's headers.
    fn on_response(&self, route: &Route) -> Result<(), HostError> {
        if self.is_sampled {
            self.check_clock(route)?;
        }
        if route.response_headers.is_empty() { Ok(()) } else { apply_response_rules(&route.response_headers) }
    }

    fn check_clock(&self, route: &Route) -> Result<(), HostError> {
        if !clock_skew::is_refusal(&host::header(Map::Response, b":status")?) {
            return Ok(());
        }
        let headers = HeaderMap::read(Map::Response)?;
        if let Some(date) = clock_skew::date_of_refusal(headers.iter()) {
            let authority =
                route.target.as_ref().map_or(self.authority.as_slice(), |target| target.authority.as_bytes());
            self.signer.learn_clock(authority, date, host::now());
        }
        Ok(())
    }

    /// Takes what has come of the body, and goes on if that was what the request waited for.
    fn on_body(&mut self, size: usize, ends: bool) -> Flow {
        if let State::Held(held) = &self.state {
            let mut held = held.borrow_mut();
            match held.on_body(&self.signer, size, ends) {
                Progress::Waits | Progress::Answered => return Flow::Stop,
                Progress::Signed => {}
            }
            let rechunks = held.rechunks.take();
            drop(held);
            self.state = rechunks.map_or(State::Passes, State::Rechunks);
        }
        match &mut self.state {
            State::Passes => Flow::Continue,
            State::Rechunks(body) => match body.pass(size, ends) {
                Ok(()) => Flow::Continue,
                Err(refusal) => {
                    self.signer.refuse(&refusal, self.route());
                    self.state = State::Answered;
                    Flow::Stop
                }
            },
            State::Held(_) | State::Answered => Flow::Stop,
        }
    }

    pub(crate) fn on_request_headers(&mut self, end_of_stream: bool) -> Flow {
        self.is_sampled = self.signer.sampling.takes_next();
        let started = self.is_sampled.then(|| self.signer.read_clock());
        let begun = self.begin(end_of_stream);
        if let Some((started, outcome)) = started.zip(self.outcome(&begun)) {
            let took = self.signer.read_clock().duration_since(started).unwrap_or_default();
            self.signer.metrics.took(self.route(), outcome, took);
        }
        self.state = begun.unwrap_or_else(|refusal| {
            self.signer.refuse(&refusal, self.route());
            State::Answered
        });
        self.publish();
        match self.state {
            State::Passes | State::Rechunks(_) => Flow::Continue,
            // Nothing need be known of the body, which streams once there are credentials.
            State::Held(ref held) if !held.borrow().is_hashed() => Flow::StopUnread,
            State::Held(_) | State::Answered => Flow::Stop,
        }
    }

    pub(crate) fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Flow {
        let flow = self.on_body(size, end_of_stream);
        self.publish();
        flow
    }

    // Trailers end the body without an end of stream on it.
    pub(crate) fn on_request_trailers(&mut self) -> Flow {
        if let State::Held(held) = &self.state {
            held.borrow_mut().has_trailers = true;
        }
        self.on_request_body(0, true)
    }

    pub(crate) fn on_response_headers(&self) {
        if matches!(self.state, State::Answered) {
            return;
        }
        if let Some(route) = self.route()
            && let Err(error) = self.on_response(route)
        {
            log::error!("{error}; the response's headers pass as they are");
        }
    }
}

/// Checks that no header that goes to S3, and no query parameter, names an object outside of the route.
fn check_copy_source(
    policy: &Policy,
    route: &Route,
    headers: &HeaderMap,
    head: &RequestHead<'_>,
) -> Result<(), CopySourceError> {
    head.path.query().map_or(Ok(()), policy::check_query)?;
    if !head.names_copy_source {
        return Ok(());
    }
    let mut seen = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| route.request_headers.keeps(name)) {
        let Some(name) = policy::copy_source_header(name) else { continue };
        if seen.contains(&name) {
            return Err(CopySourceError::Repeated(name));
        }
        seen.push(name);
        policy.check_copy_source(route, (head.authority, &head.path), (name, value))?;
    }
    Ok(())
}

fn apply_response_rules(rules: &HeaderRules) -> Result<(), HostError> {
    for (name, _) in HeaderMap::read(Map::Response)?.iter().filter(|(name, _)| !rules.keeps(name)) {
        host::remove_header(Map::Response, name)?;
    }
    rules
        .set()
        .iter()
        .try_for_each(|header| host::replace_header(Map::Response, header.name.as_bytes(), header.value.as_bytes()))
}

/// Refuses a request that has the signer's own [`UPSTREAM_SCHEME_HEADER`]. Envoy has chosen its route by it, so nothing that
/// Envoy says of the route can be relied on, and removing the header would not change what it says.
///
/// As an upstream filter, the signer meets its own header again when Envoy retries a request. The upstream is chosen by
/// then.
fn refuse_upstream_scheme(headers: &HeaderMap) -> Result<(), Refusal> {
    let name = UPSTREAM_SCHEME_HEADER.as_bytes();
    if !headers.iter().any(|(sent, _)| sent == name) {
        return Ok(());
    }
    match host::property(b"upstream\0address") {
        Some(address) if !address.is_empty() => host::remove_header(Map::Request, name).map_err(failed),
        _ => Err(UnsupportedRequest::UpstreamScheme.into()),
    }
}

/// Refuses a request that would leave, signed, through a cluster of Istio's that adds no TLS: the one for hosts that no
/// ServiceEntry has. A route with a target goes to a cluster that the proxy chooses only after signing, which the filter
/// does not see.
fn refuse_pass_through(route: &Route, head: &RequestHead<'_>) -> Result<(), Refusal> {
    if route.target.is_some() || !route.upstream_tls {
        return Ok(());
    }
    match host::property(b"xds\0cluster_name") {
        Some(cluster) if is_pass_through(&cluster) => Err(Refusal::SigningFailed(format!(
            "the proxy has no TLS for {:?} and would send the request in clear through {}; list the host in a ServiceEntry \
             whose DestinationRule originates TLS, or set upstreamTls: false on the route",
            String::from_utf8_lossy(head.authority),
            String::from_utf8_lossy(&cluster),
        ))),
        _ => Ok(()),
    }
}

/// Whether a cluster of this name sends to wherever the client was connecting, as it is: `PassthroughCluster`, and for
/// what comes in `InboundPassthroughCluster`, to whose name older releases of Istio add the IP version.
fn is_pass_through(cluster: &[u8]) -> bool {
    cluster == b"PassthroughCluster" || cluster.starts_with(b"InboundPassthroughCluster")
}

/// The route that signs this request; `None` where the request passes untouched. What Envoy's own route says in its
/// metadata comes before the policy's matching.
fn choose_route<'p>(
    policy: &'p Policy,
    headers: &HeaderMap,
    head: &Result<RequestHead<'_>, Refusal>,
) -> Result<Option<&'p Route>, Refusal> {
    if policy.route_metadata
        && let Some(says) = ask_route_metadata(policy)?
    {
        return Ok(match says {
            RouteMetadata::Disabled => None,
            RouteMetadata::Names(route) => Some(route),
        });
    }
    let found = match head {
        Ok(head) => policy.find(head.authority, &head.path).map_err(Refusal::InvalidPath)?,
        Err(refusal) if policy.unmatched == Unmatched::Deny => return Err(refusal.clone()),
        // A path that can't be trusted passes only if no route takes it, however it is read.
        Err(_) => {
            let value = |wanted: &[u8]| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
            // CONNECT has no path; it is for the whole host.
            let path = value(b":path").unwrap_or_default().split(|byte| *byte == b'?').next();
            policy.find_any(value(b":authority").unwrap_or_default(), path.unwrap_or_default())
        }
    };
    match found {
        None if policy.unmatched == Unmatched::Deny => Err(Refusal::NoRoute),
        found => Ok(found),
    }
}

/// What the metadata of Envoy's own route say to the filter.
enum RouteMetadata<'p> {
    Disabled,
    Names(&'p Route),
}

fn ask_route_metadata(policy: &Policy) -> Result<Option<RouteMetadata<'_>>, Refusal> {
    // All metadata of a route, mostly none, cost the proxy less than a look for one part of them. They are serialized
    // protobuf, in which the key of ours stands as it is.
    let all = host::property(b"xds\0route_metadata").unwrap_or_default();
    if !all.windows(b"sigv4".len()).any(|part| part == b"sigv4") {
        return Ok(None);
    }
    if host::property(b"xds\0route_metadata\0filter_metadata\0sigv4\0disabled").is_some_and(|value| value == [1]) {
        return Ok(Some(RouteMetadata::Disabled));
    }
    let Some(name) = host::property(b"xds\0route_metadata\0filter_metadata\0sigv4\0route") else { return Ok(None) };
    policy.route_named(&name).map(|route| Some(RouteMetadata::Names(route))).ok_or_else(|| {
        let name = String::from_utf8_lossy(&name);
        Refusal::SigningFailed(format!("Envoy's route metadata names {name:?}, which is no route of the policy"))
    })
}

fn parse_number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok())
}

/// Whether Envoy has authenticated the request: a client certificate that it verified, or a token that `jwt_authn`
/// verified and whose payload it keeps in its dynamic metadata. Nothing that a client sends is looked at.
fn is_authenticated() -> bool {
    has_client_certificate()
        || host::property(b"metadata\0filter_metadata\0envoy.filters.http.jwt_authn")
            .is_some_and(|metadata| authentication::has_verified_token(&metadata))
}

/// Bytes of the current stream's request that have arrived, headers included.
fn request_size() -> u64 {
    let bytes = host::property(b"request\0total_size").and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

fn failed(error: HostError) -> Refusal {
    Refusal::SigningFailed(error.to_string())
}
