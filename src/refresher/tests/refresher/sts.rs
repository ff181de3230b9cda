//! STS's AssumeRole, with a configurable answer for every role.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};

use crate::peer;

/// The secret of every session.
pub const SESSION_SECRET: &str = "SESSION/secret+that/no/log/may/show";
/// The prefix of a rotating session's secret, followed by its number in four digits.
pub const ROTATING_SECRET: &str = "ROTATING/secret/of/the+session/";
/// The token of every session.
pub const SESSION_TOKEN: &str = "SESSIONTOKENthatnologmayshow==";

/// The answer to a role's calls.
#[derive(Clone, Copy)]
pub enum Answer {
    /// A session of this duration.
    Session(Duration),
    /// A session of this duration, with a secret of its own.
    Rotating(Duration),
    /// AccessDenied.
    Denied,
    /// SignatureDoesNotMatch, with the caller's session token in the message.
    Echo,
    /// Status 503.
    Unavailable,
    /// Throttled; retry after this many seconds.
    Throttled(&'static str),
    /// Status 200 and a body that is cut off after the secret.
    Garbage,
    /// No answer at all.
    Silence,
    /// A session for the second of these, after the first.
    Slow(Duration, Duration),
}

/// The parameters of one call, and under `SignedBy` the access key id of the caller.
pub type Call = HashMap<String, String>;

/// A running STS.
pub struct Sts {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<BTreeMap<String, Answer>>,
    calls: Mutex<Vec<(Instant, Call)>>,
}

impl Sts {
    pub async fn start() -> Arc<Self> {
        Self::start_on(0).await
    }

    pub async fn start_on(port: u16) -> Arc<Self> {
        let state = Arc::<State>::default();
        let port = peer::start_on(port, {
            let state = state.clone();
            move |request| state.answer(&request)
        });
        Arc::new(Self { port: port.await, state })
    }

    /// Sets the answer to calls for this role, which are denied by default.
    pub fn set(&self, role_arn: &str, answer: Answer) {
        self.state.answers.lock().unwrap().insert(role_arn.to_owned(), answer);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().iter().map(|(_, call)| call.clone()).collect()
    }

    /// Returns the number of calls for this role.
    pub fn calls_for(&self, role_arn: &str) -> usize {
        self.calls().iter().filter(|call| call["RoleArn"] == role_arn).count()
    }

    /// Returns the times of the calls.
    pub fn call_times(&self) -> Vec<Instant> {
        self.state.calls.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

impl State {
    fn answer(&self, request: &Request<Bytes>) -> Option<Response<String>> {
        let mut call: Call = url::form_urlencoded::parse(request.body()).into_owned().collect();
        if let Some(authorization) = request.headers().get("authorization") {
            let authorization = authorization.to_str().unwrap();
            let (_, scope) = authorization.split_once("Credential=").unwrap();
            call.insert("SignedBy".to_owned(), scope.split('/').next().unwrap().to_owned());
        }
        let answer = self.answers.lock().unwrap().get(&call["RoleArn"]).copied().unwrap_or(Answer::Denied);
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push((Instant::now(), call.clone()));
            calls.len()
        };
        let session_for = |life| {
            let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + life).to_string();
            peer::answer(StatusCode::OK, session(&call["Action"], &format!("ASIASESSION{number}"), &expiration))
        };
        match answer {
            Answer::Session(life) => Some(session_for(life)),
            Answer::Rotating(life) => {
                let secret = format!("{ROTATING_SECRET}{number:04}");
                Some(session_for(life).map(|session| session.replace(SESSION_SECRET, &secret)))
            }
            Answer::Slow(delay, life) => {
                let mut answer = session_for(life);
                answer.extensions_mut().insert(peer::Delay(delay));
                Some(answer)
            }
            Answer::Garbage => {
                let whole = session(&call["Action"], "ASIAGARBAGE", "tomorrow");
                Some(peer::answer(StatusCode::OK, &whole[..whole.len() - 60]))
            }
            Answer::Silence => None,
            Answer::Echo => {
                let token =
                    request.headers().get("x-amz-security-token").map_or("none", |token| token.to_str().unwrap());
                let error = format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>\
                     <Message>The canonical string should have been x-amz-security-token:{token}</Message></Error></ErrorResponse>"
                );
                Some(peer::answer(StatusCode::FORBIDDEN, &error))
            }
            Answer::Unavailable => Some(peer::answer(StatusCode::SERVICE_UNAVAILABLE, "")),
            Answer::Throttled(seconds) => {
                let error = "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>\
                             <Message>Rate exceeded</Message></Error></ErrorResponse>";
                let mut answer = peer::answer(StatusCode::BAD_REQUEST, error);
                answer.headers_mut().insert("retry-after", HeaderValue::from_static(seconds));
                Some(answer)
            }
            Answer::Denied => Some(peer::answer(
                StatusCode::FORBIDDEN,
                "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                 <Message>you may not assume this role</Message></Error></ErrorResponse>",
            )),
        }
    }
}

fn session(action: &str, access_key_id: &str, expiration: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>{SESSION_SECRET}</SecretAccessKey>\
         <SessionToken>{SESSION_TOKEN}</SessionToken><Expiration>{expiration}</Expiration>\
         </Credentials></{action}Result></{action}Response>"
    )
}
