//! `aws-chunked` bodies, re-signed while they stream.
//!
//! An SDK may send a body in chunks. Each chunk's signature is derived from the previous one, the first from the signature
//! in the headers. A proxy that replaces the latter must replace all others too:
//!
//! ```text
//! 10000;chunk-signature=<64 hex>\r\n<65536 bytes>\r\n          chunks
//! 0;chunk-signature=<64 hex>\r\n                               the last one is empty
//! x-amz-checksum-crc32c:<base64>\r\n                           trailers, in two of the three forms
//! x-amz-trailer-signature:<64 hex>\r\n                         of the trailers, where chunks are signed
//! \r\n
//! ```
//!
//! The client's framing is kept byte for byte and only signatures are replaced, which are all of one length. So the body's
//! length and `content-length` do not change, whatever the trailers hold. A signature precedes the chunk that it covers, so
//! a signed chunk is buffered until it is complete; at most [`MAX_SIGNED_CHUNK`] is buffered. (Cutting the body into chunks
//! of our own would buffer less, but `content-length` would have to be known in advance, and S3 rejects an upload that does
//! not match it.) SDKs send signed chunks of 64 or 128 KiB. Unsigned chunks are forwarded as they arrive.
//!
//! Sources: S3 API Reference, "Transferring Payload in Multiple Chunks" and "Including Trailing Headers".

use std::{fmt, mem};

use sha2::{Digest, Sha256};

use super::canonical_request::CanonicalHeaders;
use super::hex::{self, HexDigest};
use super::payload_hash::EMPTY;
use super::signing_key::SigningKey;
use super::streaming_form::{AwsChunkedForm, begins_with_ignoring_case};

/// The most bytes of a signed chunk that are buffered: Envoy's own default for a request.
pub const MAX_SIGNED_CHUNK: usize = 1024 * 1024;

/// The longest line. A chunk's first line has up to 16 digits, a signature and its name; a trailer has a checksum or
/// similar.
const MAX_LINE: usize = 1024;
const MAX_TRAILERS: usize = 16;

const CHUNK_SIGNATURE: &[u8] = b";chunk-signature=";
const TRAILER_SIGNATURE: &[u8] = b"x-amz-trailer-signature:";

/// The defect of an `aws-chunked` body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AwsChunkedError {
    /// A chunk does not begin with its size in hexadecimal and the signature that its form requires.
    #[error(
        "a chunk must begin with its size in hexadecimal, `;chunk-signature=` and 64 digits if it is signed, and CRLF"
    )]
    ChunkHeader,
    /// A signed chunk is larger than [`MAX_SIGNED_CHUNK`].
    #[error("a signed chunk is larger than 1 MiB; send smaller ones, or STREAMING-UNSIGNED-PAYLOAD-TRAILER")]
    ChunkTooLarge,
    /// The data of a chunk is not followed by CRLF.
    #[error("a chunk's data is not followed by CRLF after the number of bytes that its size gives")]
    ChunkEnd,
    /// The chunks do not add up to `x-amz-decoded-content-length`.
    #[error("the chunks do not add up to x-amz-decoded-content-length")]
    DecodedLength,
    /// A trailer is not `name:value`, or is too long, or there are too many.
    #[error("a trailer must be `name:value` of at most 1024 bytes, and there may be at most 16")]
    Trailer,
    /// The trailers are signed but their signature is missing or malformed.
    #[error("the trailers must end with x-amz-trailer-signature and 64 hexadecimal digits")]
    TrailerSignature,
    /// Bytes follow the body's end.
    #[error("bytes follow the end of the chunked body")]
    AfterEnd,
    /// The request ended within the body.
    #[error("the request ended before its chunked body did")]
    Truncated,
}

/// The signer of a body's chunks.
pub(super) struct ChunkSigner {
    pub(super) key: SigningKey,
    /// Timestamp and credential scope, a line each.
    pub(super) context: Vec<u8>,
    /// Initially the signature in the headers.
    pub(super) previous_signature: Vec<u8>,
}

impl ChunkSigner {
    fn sign_chunk(&mut self, data_hash: &HexDigest) -> HexDigest {
        self.sign(b"AWS4-HMAC-SHA256-PAYLOAD\n", &[EMPTY, b"\n", data_hash])
    }

    fn sign_trailers(&mut self, canonical_trailers: &[u8]) -> HexDigest {
        let hash = hex::encode(&Sha256::digest(canonical_trailers).into());
        self.sign(b"AWS4-HMAC-SHA256-TRAILER\n", &[&hash])
    }

    fn sign(&mut self, algorithm_line: &[u8], hashes: &[&[u8]]) -> HexDigest {
        let mut string_to_sign = [algorithm_line, &self.context, &self.previous_signature, b"\n"].concat();
        string_to_sign.extend(hashes.iter().copied().flatten());
        let signature = self.key.sign(&string_to_sign);
        self.previous_signature = signature.to_vec();
        signature
    }
}

/// A stream of an `aws-chunked` body: takes the client's bytes as they arrive, and returns them re-signed.
pub struct ChunkResigner {
    form: AwsChunkedForm,
    /// `None` if chunks are not signed.
    signer: Option<ChunkSigner>,
    /// The data still to come, by `x-amz-decoded-content-length`.
    data_left: u64,
    state: State,
    /// The line that is being read.
    line: Vec<u8>,
    /// The signed chunk that is being read: its first line, with the client's signature, and its data.
    chunk: Vec<u8>,
    chunk_hasher: Sha256,
    trailers: CanonicalHeaders,
    trailer_count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the line that begins a chunk.
    ChunkHeader,
    /// In a chunk's data, of which `left` bytes are to come.
    Data {
        left: u64,
    },
    /// After a chunk's data, or after the last chunk if no trailers follow; `seen` bytes of the CRLF there have come.
    ChunkEnd {
        seen: usize,
        is_last: bool,
    },
    /// In the trailers; `signed` once their signature has come.
    Trailers {
        signed: bool,
    },
    /// After the line that ends the body.
    End,
    Failed(AwsChunkedError),
}

impl ChunkResigner {
    pub(super) fn new(form: AwsChunkedForm, decoded_length: u64, signer: Option<ChunkSigner>) -> Self {
        Self {
            form,
            signer,
            data_left: decoded_length,
            state: State::ChunkHeader,
            line: Vec::new(),
            chunk: Vec::new(),
            chunk_hasher: Sha256::new(),
            trailers: CanonicalHeaders::default(),
            trailer_count: 0,
        }
    }

    /// Takes the next bytes of the body and appends to `out` what can be forwarded.
    ///
    /// # Errors
    /// [`AwsChunkedError`] if the body is malformed: the request must be reset. Every further call returns it again.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), AwsChunkedError> {
        while !input.is_empty() {
            let taken = self.step(input, out).inspect_err(|error| self.state = State::Failed(*error))?;
            input = input.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Returns the number of bytes buffered of chunks. A line of at most 1 KiB and the trailers are not counted, as a body
    /// whose chunks are not signed is not held.
    pub fn held_bytes(&self) -> usize {
        self.chunk.capacity()
    }

    /// Checks that the body is complete; called at the end of the request.
    ///
    /// # Errors
    /// [`AwsChunkedError::Truncated`] if it is not.
    pub fn finish(&self) -> Result<(), AwsChunkedError> {
        match self.state {
            State::End => Ok(()),
            State::Failed(error) => Err(error),
            _ => Err(AwsChunkedError::Truncated),
        }
    }

    /// Takes some of the input, at least a byte, and returns how much.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, AwsChunkedError> {
        match self.state {
            State::ChunkHeader => {
                let taken = self.read_line(input, AwsChunkedError::ChunkHeader)?;
                self.with_whole_line(|body, line| body.begin_chunk(line, out))?;
                Ok(taken)
            }
            State::Data { left } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                self.take_data(input.get(..taken).unwrap_or_default(), left, out);
                Ok(taken)
            }
            State::ChunkEnd { seen, is_last } => {
                if input.first() != b"\r\n".get(seen) {
                    return Err(AwsChunkedError::ChunkEnd);
                }
                self.state = match (seen, is_last) {
                    (0, _) => State::ChunkEnd { seen: 1, is_last },
                    (_, false) => State::ChunkHeader,
                    (_, true) => State::End,
                };
                out.extend(input.first());
                Ok(1)
            }
            State::Trailers { signed } => {
                let taken = self.read_line(input, AwsChunkedError::Trailer)?;
                self.with_whole_line(|body, line| body.take_trailer(line, signed, out))?;
                Ok(taken)
            }
            State::End => Err(AwsChunkedError::AfterEnd),
            State::Failed(error) => Err(error),
        }
    }

    /// Appends the input's part of the line to it, and returns the part's length.
    fn read_line(&mut self, input: &[u8], too_long: AwsChunkedError) -> Result<usize, AwsChunkedError> {
        let taken = input.iter().position(|&byte| byte == b'\n').map_or(input.len(), |end| end + 1);
        if self.line.len() + taken > MAX_LINE {
            return Err(too_long);
        }
        self.line.extend_from_slice(input.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    /// Passes a complete line to a function, and starts another.
    fn with_whole_line(
        &mut self,
        take: impl FnOnce(&mut Self, &[u8]) -> Result<(), AwsChunkedError>,
    ) -> Result<(), AwsChunkedError> {
        if !self.line.ends_with(b"\n") {
            return Ok(());
        }
        let line = mem::take(&mut self.line);
        take(self, &line)
    }

    fn begin_chunk(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), AwsChunkedError> {
        let size = parse_chunk_header(line, self.form.is_signed()).ok_or(AwsChunkedError::ChunkHeader)?;
        self.data_left = self.data_left.checked_sub(size).ok_or(AwsChunkedError::DecodedLength)?;
        if self.form.is_signed() {
            if size > MAX_SIGNED_CHUNK as u64 {
                return Err(AwsChunkedError::ChunkTooLarge);
            }
            self.chunk.extend_from_slice(line);
        } else {
            out.extend_from_slice(line);
        }
        if size > 0 {
            self.state = State::Data { left: size };
            return Ok(());
        }
        if self.data_left > 0 {
            return Err(AwsChunkedError::DecodedLength);
        }
        self.sign_chunk(line.len(), out);
        self.state = match self.form {
            AwsChunkedForm::Signed => State::ChunkEnd { seen: 0, is_last: true },
            AwsChunkedForm::SignedTrailer | AwsChunkedForm::UnsignedTrailer => State::Trailers { signed: false },
        };
        Ok(())
    }

    fn take_data(&mut self, data: &[u8], left: u64, out: &mut Vec<u8>) {
        if self.form.is_signed() {
            self.chunk_hasher.update(data);
            self.make_room(data.len(), left);
            self.chunk.extend_from_slice(data);
        } else {
            out.extend_from_slice(data);
        }
        let left = left.saturating_sub(data.len() as u64);
        if left > 0 {
            self.state = State::Data { left };
            return;
        }
        let header_len = self.chunk.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.sign_chunk(header_len, out);
        self.state = State::ChunkEnd { seen: 0, is_last: false };
    }

    /// Makes room for some of the `left` bytes of the buffered chunk: twice as much each time, but none past its end.
    fn make_room(&mut self, size: usize, left: u64) {
        if self.chunk.capacity() - self.chunk.len() < size {
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            self.chunk.reserve_exact(self.chunk.len().min(left).max(size));
        }
    }

    /// Forwards the buffered chunk, with our signature instead of the client's at the end of its first line.
    fn sign_chunk(&mut self, header_len: usize, out: &mut Vec<u8>) {
        let Some(signer) = &mut self.signer else { return };
        let data_hash = hex::encode(&self.chunk_hasher.finalize_reset().into());
        let signature = signer.sign_chunk(&data_hash);
        let end = header_len.saturating_sub(b"\r\n".len());
        if let Some(signed) = self.chunk.get_mut(end.saturating_sub(signature.len())..end) {
            signed.copy_from_slice(&signature);
        }
        // The whole buffer is handed over: nothing of it is kept, not even its capacity.
        if out.is_empty() {
            *out = mem::take(&mut self.chunk);
        } else {
            out.extend(mem::take(&mut self.chunk));
        }
    }

    fn take_trailer(&mut self, line: &[u8], signed: bool, out: &mut Vec<u8>) -> Result<(), AwsChunkedError> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let line_end = line.get(text.len()..).unwrap_or_default();
        match (self.form, text) {
            (AwsChunkedForm::UnsignedTrailer, b"") => self.state = State::End,
            (_, b"") if signed => self.state = State::End,
            (_, _) if signed => return Err(AwsChunkedError::TrailerSignature),
            (AwsChunkedForm::SignedTrailer, _) if begins_with_ignoring_case(text, TRAILER_SIGNATURE) => {
                return self.sign_trailers(text, line_end, out);
            }
            // Some clients end the trailers with an empty line before their signature.
            (_, b"") => self.count_trailer()?,
            (_, _) => {
                self.count_trailer()?;
                let (name, value) = split_trailer(text).ok_or(AwsChunkedError::Trailer)?;
                if self.form.is_signed() {
                    self.trailers.add(name, value);
                }
            }
        }
        out.extend_from_slice(line);
        Ok(())
    }

    fn count_trailer(&mut self) -> Result<(), AwsChunkedError> {
        self.trailer_count += 1;
        if self.trailer_count > MAX_TRAILERS { Err(AwsChunkedError::Trailer) } else { Ok(()) }
    }

    fn sign_trailers(&mut self, text: &[u8], line_end: &[u8], out: &mut Vec<u8>) -> Result<(), AwsChunkedError> {
        let (before, _) = text
            .split_at_checked(text.len().saturating_sub(size_of::<HexDigest>()))
            .filter(|(before, signature)| {
                before.trim_ascii_end().len() == TRAILER_SIGNATURE.len() && is_signature(signature)
            })
            .ok_or(AwsChunkedError::TrailerSignature)?;
        self.trailers.sort();
        if let Some(signer) = &mut self.signer {
            out.extend_from_slice(before);
            out.extend_from_slice(&signer.sign_trailers(self.trailers.lines()));
            out.extend_from_slice(line_end);
        }
        self.state = State::Trailers { signed: true };
        Ok(())
    }
}

/// Returns the size in a chunk's first line.
fn parse_chunk_header(line: &[u8], is_signed: bool) -> Option<u64> {
    let text = line.strip_suffix(b"\r\n")?;
    let digits = if is_signed {
        let (rest, signature) = text.split_at_checked(text.len().checked_sub(size_of::<HexDigest>())?)?;
        rest.strip_suffix(CHUNK_SIGNATURE).filter(|_| is_signature(signature))?
    } else {
        text
    };
    // Sixteen digits are what 64 bits can hold.
    if !(1..=16).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0_u64, |size, &byte| Some(size << 4 | u64::from(hex::digit(byte)?)))
}

fn is_signature(text: &[u8]) -> bool {
    text.len() == size_of::<HexDigest>() && text.iter().all(u8::is_ascii_hexdigit)
}

fn split_trailer(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = text.split_at_checked(text.iter().position(|&byte| byte == b':')?)?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_value = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    let value = value.get(1..)?;
    (!name.is_empty() && name.iter().all(is_name) && value.iter().all(is_value)).then_some((name, value))
}

impl fmt::Debug for ChunkResigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkResigner").field("form", &self.form).field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
