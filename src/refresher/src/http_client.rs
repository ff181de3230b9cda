//! The HTTP client of all sources. It bounds their answers, so that an impostor of AWS can't fill the memory. It also
//! normalizes the expiry in metadata endpoints' answers: the SDK knows one form alone, and accepts an instance's
//! credentials however long ago they expired.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider as Tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use serde::Deserialize;
use sigv4_core::credentials::parse_expiration;
use sigv4_core::instant::format_rfc3339;
use tokio::sync::Semaphore;

/// Many times the largest answer with credentials.
const LARGEST_ANSWER: usize = 64 << 10;

/// An instance's endpoint that can't get new credentials continues to return the old ones, and AWS may accept them. The
/// SDK extends their life by ten minutes each time; credentials that expired longer ago than this are useless.
const LONGEST_OVERDUE: Duration = Duration::from_secs(86_400);

/// A lookup takes a thread and two descriptors until it ends, even if nobody waits for it any longer.
const MOST_NAME_LOOKUPS: usize = 8;

#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {} KiB: is this an AWS endpoint?", LARGEST_ANSWER >> 10)]
struct AnswerTooLarge;

#[derive(Debug, thiserror::Error)]
#[error("the credentials have expired already, at {0}")]
struct Overdue(String);

/// Creates the client, with the proxies that the environment names.
pub fn bounded() -> SharedHttpClient {
    let resolver = Resolver(Arc::new(Semaphore::new(MOST_NAME_LOOKUPS)));
    SharedHttpClient::new(BoundedClient(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector =
            Connector::builder().tls_provider(Tls::Rustls(CryptoMode::Ring)).proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build_with_resolver(resolver.clone())
    })))
}

/// A resolver with few lookups at a time: the threads that read files must not all wait for a name server.
#[derive(Debug, Clone)]
struct Resolver(Arc<Semaphore>);

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let turn = self.0.clone().acquire_owned().await.map_err(ResolveDnsError::new)?;
            let name = name.to_owned();
            let lookup = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok::<_, io::Error>(found.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(ResolveDnsError::new)?.map_err(ResolveDnsError::new)
        })
    }
}

/// A client without the inner client's validation, which reads the system's certificates for every SDK client.
#[derive(Debug)]
struct BoundedClient(SharedHttpClient);

impl HttpClient for BoundedClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(BoundedConnector(self.0.http_connector(settings, components)))
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

#[derive(Debug)]
struct BoundedConnector(SharedHttpConnector);

impl HttpConnector for BoundedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // Credentials are read with GET; all calls of STS are POSTs.
        let reads = request.method() == "GET";
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await?.map(bound);
            if reads && answer.status().is_success() { check_expiration(answer).await } else { Ok(answer) }
        })
    }
}

async fn check_expiration(mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let body = std::mem::replace(answer.body_mut(), SdkBody::taken()).collect().await;
    let body = body.map_err(|error| ConnectorError::other(error, None))?.to_bytes();
    let body = with_plain_expiration(body).map_err(|error| ConnectorError::other(error.into(), None))?;
    // The SDK compares it with the body.
    answer.headers_mut().insert("content-length", body.len().to_string());
    *answer.body_mut() = SdkBody::from(body);
    Ok(answer)
}

/// Rewrites the expiry of a credentials document in the SDK's form; returns any other body unchanged.
fn with_plain_expiration(body: Bytes) -> Result<Bytes, Overdue> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document<'a> {
        #[serde(borrow)]
        expiration: &'a str,
    }
    let Ok(Document { expiration }) = serde_json::from_slice(&body) else { return Ok(body) };
    let Ok(at) = parse_expiration(expiration) else { return Ok(body) };
    if at + LONGEST_OVERDUE < SystemTime::now() {
        return Err(Overdue(expiration.to_owned()));
    }
    let Some(plain) = format_rfc3339(at) else { return Ok(body) };
    let start = expiration.as_ptr().addr() - body.as_ptr().addr();
    Ok([&body[..start], plain.as_bytes(), &body[start + expiration.len()..]].concat().into())
}

fn bound(body: SdkBody) -> SdkBody {
    SdkBody::from_body_1_x(
        Limited::new(body, LARGEST_ANSWER)
            .map_err(|error| if error.is::<LengthLimitError>() { AnswerTooLarge.into() } else { error }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<String, String> {
        let body = with_plain_expiration(Bytes::copy_from_slice(body.as_bytes()));
        body.map(|body| String::from_utf8(body.to_vec()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_expiry_is_written_as_the_sdk_reads_it_and_nothing_else_is_touched() {
        let plain = r#"{"Token": "é=", "Expiration": "2100-01-02T03:04:05Z", "Code": "Success"}"#;
        for zone in ["Z", "+00:00", "+0000", "Z ", ".75Z"] {
            assert_eq!(read(&plain.replace('Z', zone)).unwrap(), plain, "{zone}");
        }
        for other in
            ["", "instance-role", "{}", r#"{"Expiration": 4102542245}"#, r#"{"Expiration": "later"}"#, "\u{fffd}"]
        {
            assert_eq!(read(other).unwrap(), other);
        }
    }

    #[test]
    fn what_expired_lately_may_still_be_taken_and_what_expired_in_2020_not() {
        let document = |at: SystemTime| format!(r#"{{"Expiration": "{}"}}"#, format_rfc3339(at).unwrap());
        let lately = document(SystemTime::now() - Duration::from_secs(3600));
        assert_eq!(read(&lately).unwrap(), lately);
        let old = read(r#"{"Expiration": "2020-01-02T03:04:05+00:00"}"#).unwrap_err();
        assert_eq!(old, "the credentials have expired already, at 2020-01-02T03:04:05+00:00");
    }
}
