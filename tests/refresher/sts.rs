//! STS, as far as `AssumeRole` goes: every role can be made to answer in its own way.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The secret of every session that is handed out.
pub const SESSION_SECRET: &str = "SESSION/secret+that/no/log/may/show";
/// The token of every session that is handed out.
pub const SESSION_TOKEN: &str = "SESSIONTOKENthatnologmayshow==";

/// How a role's calls are answered.
#[derive(Clone, Copy)]
pub enum Answer {
    /// A session for so long.
    Session(Duration),
    /// AccessDenied.
    Denied,
    /// Status 200 and a body that is cut off in the middle, behind the secret.
    Garbage,
    /// No answer at all.
    Silence,
}

/// What was asked for: the parameters of one `AssumeRole` call.
pub type Call = HashMap<String, String>;

pub struct Sts {
    pub port: u16,
    answers: Mutex<BTreeMap<String, Answer>>,
    calls: Mutex<Vec<Call>>,
}

impl Sts {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sts = Arc::new(Self { port, answers: Mutex::default(), calls: Mutex::default() });
        tokio::spawn({
            let sts = sts.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let sts = sts.clone();
                    tokio::spawn(async move {
                        let service = service_fn(|request| {
                            let sts = sts.clone();
                            async move { Ok::<_, Infallible>(sts.answer(request).await) }
                        });
                        let builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            }
        });
        sts
    }

    pub fn set(&self, role_arn: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(role_arn.to_owned(), answer);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let call: Call = url::form_urlencoded::parse(&body).into_owned().collect();
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(call.clone());
            calls.len()
        };
        let answer = self.answers.lock().unwrap().get(&call["RoleArn"]).copied().unwrap_or(Answer::Denied);
        let (status, body) = match answer {
            Answer::Session(life) => {
                let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + life);
                (StatusCode::OK, session(&format!("ASIASESSION{number}"), &expiration.to_string()))
            }
            Answer::Garbage => {
                let whole = session("ASIAGARBAGE", "tomorrow");
                (StatusCode::OK, whole[..whole.len() - 60].to_owned())
            }
            Answer::Silence => std::future::pending().await,
            Answer::Denied => (
                StatusCode::FORBIDDEN,
                "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                 <Message>you may not assume this role</Message></Error></ErrorResponse>"
                    .to_owned(),
            ),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response
    }
}

fn session(access_key_id: &str, expiration: &str) -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>{SESSION_SECRET}</SecretAccessKey>\
         <SessionToken>{SESSION_TOKEN}</SessionToken><Expiration>{expiration}</Expiration>\
         </Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}
