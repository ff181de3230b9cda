//! AWS Signature Version 4: a checked request is turned into a signed one.
//!
//! The modules carry the names that AWS's documents give to the parts of a signature. A request passes through them in
//! this order: its path and query are put in wire form ([`WireUri`]), its body gets a [`PayloadHash`], and a [`Signer`]
//! makes the canonical request, the string to sign and, with a cached signing key, the signature.
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
mod timestamp;
mod uri;

pub use algorithm::Algorithm;
pub use aws_chunked::{
    AwsChunkedError, AwsChunkedForm, ChunkResigner, MAX_SIGNED_CHUNK, UnsupportedStreamingForm, names_streaming_form,
};
pub use error::SigningError;
pub use payload_hash::{PayloadHash, PayloadHasher};
pub use scope::Scope;
pub use signed_headers::{is_signature_header, may_be_signed};
pub use signer::{SignedHeaders, Signer, SigningContext, UnsignedRequest};
pub use signing_key::SigningCredentials;
pub(crate) use uri::write_encoded;
pub use uri::{UriStyle, WireUri, is_s3};
