//! STS, as far as assuming roles goes: every role can be made to answer in its own way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};

use crate::peer;

/// The secret of every session that is handed out.
pub const SESSION_SECRET: &str = "SESSION/secret+that/no/log/may/show";
/// What the secret of a rotating session begins with; its number follows, in four digits.
pub const ROTATING_SECRET: &str = "ROTATING/secret/of/the+session/";
/// The token of every session that is handed out.
pub const SESSION_TOKEN: &str = "SESSIONTOKENthatnologmayshow==";

/// How a role's calls are answered.
#[derive(Clone, Copy)]
pub enum Answer {
    /// A session for so long.
    Session(Duration),
    /// A session for so long, with a secret of its own.
    Rotating(Duration),
    /// AccessDenied.
    Denied,
    /// Status 503.
    Unavailable,
    /// Status 200 and a body that is cut off in the middle, behind the secret.
    Garbage,
    /// No answer at all.
    Silence,
    /// A session for the second of these, after the first.
    Slow(Duration, Duration),
}

/// What was asked for: the parameters of one call, and under `SignedBy` the access key id of the caller.
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
        let state = Arc::<State>::default();
        let port = peer::start({
            let state = state.clone();
            move |request| state.answer(&request)
        });
        Arc::new(Self { port: port.await, state })
    }

    /// From now on, calls for this role are answered so; before, they are denied.
    pub fn set(&self, role_arn: &str, answer: Answer) {
        self.state.answers.lock().unwrap().insert(role_arn.to_owned(), answer);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().iter().map(|(_, call)| call.clone()).collect()
    }

    /// How often this role was asked for.
    pub fn calls_for(&self, role_arn: &str) -> usize {
        self.calls().iter().filter(|call| call["RoleArn"] == role_arn).count()
    }

    /// When the calls came in.
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
            Answer::Unavailable => Some(peer::answer(StatusCode::SERVICE_UNAVAILABLE, "")),
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
