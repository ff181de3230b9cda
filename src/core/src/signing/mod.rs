//! AWS Signature Version 4: a checked request is turned into a signed one.
//!
//! The modules are named like the parts of a signature in AWS's documents. A request passes through them in this order:
//! [`WireUri`] writes its path and query in wire form, [`PayloadHash`] describes its body, and a [`Signer`] makes the
//! canonical request, the string to sign and, with a cached signing key, the signature.
//!
//! Source: IAM User Guide, "AWS Signature Version 4 for API requests".

mod algorithm;
mod aws_chunked;
mod canonical_request;
mod error;
mod hex;
mod payload_hash;
mod prefix_hash;
mod scope;
mod signed_headers;
mod signer;
mod signing_key;
mod sigv4a;
mod streaming_form;
mod timestamp;
mod unsigned_payload;
mod uri;

pub use algorithm::Algorithm;
pub use aws_chunked::{AwsChunkedError, ChunkResigner, MAX_SIGNED_CHUNK};
pub use canonical_request::UnsignedRequest;
pub use error::SigningError;
pub use payload_hash::{PayloadHash, PayloadHasher};
pub use scope::Scope;
pub use signed_headers::{is_hop_by_hop, is_signature_header, may_be_signed, signs_content_sha256};
pub use signer::{SignedHeaders, Signer, SigningContext};
pub use signing_key::SigningCredentials;
pub use streaming_form::{AwsChunkedForm, UnsupportedStreamingForm, names_streaming_form};
pub use unsigned_payload::takes_unsigned_payload;
pub(crate) use unsigned_payload::{is_unsigned_operation, takes_nothing_else};
pub(crate) use uri::write_encoded;
pub use uri::{UriStyle, WireUri, is_s3};
