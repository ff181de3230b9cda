//! The one HTTP client of all sources. It bounds their answers: whoever answers in AWS's place must not fill the memory.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;

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
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::Semaphore;

/// Many times the largest answer with credentials.
const LARGEST_ANSWER: usize = 64 << 10;

/// A lookup takes a thread and two descriptors until it ends, even if nobody waits for it any longer.
const MOST_NAME_LOOKUPS: usize = 8;

#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {} KiB: is this an AWS endpoint?", LARGEST_ANSWER >> 10)]
struct AnswerTooLarge;

/// Makes the client, with the proxies that the environment names.
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

/// Looks up few names at a time: the threads that files are read in must not all wait for a name server.
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

/// Leaves out the inner client's validation, which reads the system's certificates for every SDK client that is made.
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
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move { Ok(answer.await?.map(bound)) })
    }
}

fn bound(body: SdkBody) -> SdkBody {
    SdkBody::from_body_1_x(
        Limited::new(body, LARGEST_ANSWER)
            .map_err(|error| if error.is::<LengthLimitError>() { AnswerTooLarge.into() } else { error }),
    )
}
