//! An `aws-chunked` body whose chunks are signed again as they pass.

use crate::held::{HeldShare, Overloaded};
use crate::host::Host;
use crate::local_reply::Refusal;
use crate::signing::ChunkResigner;

/// The body, and its share of what the worker may hold.
pub(super) struct ResignedBody {
    body: Box<ChunkResigner>,
    share: HeldShare,
}

impl ResignedBody {
    /// Begins to sign a body's chunks.
    pub(super) fn new(body: Box<ChunkResigner>, share: HeldShare) -> Self {
        Self { body, share }
    }

    /// Signs the first `size` bytes that the proxy holds of the body, in their place; `ends` is whether it is complete.
    ///
    /// # Errors
    /// If the body is malformed, too much of it has to be held, or the proxy refuses a call. The rest must not be sent on.
    pub(super) fn resign(&mut self, host: &impl Host, size: usize, ends: bool) -> Result<(), Refusal> {
        let (mut left, mut signed) = (size, Vec::new());
        while left > 0 {
            let piece = host.body_piece(0, left)?;
            left = left.saturating_sub(piece.len());
            signed.clear();
            self.body.push(&piece, &mut signed).map_err(Refusal::InvalidBody)?;
            // Pieces are taken from the front and appended after the ones that were not signed yet, which come round in
            // their order.
            host.drain_body(piece.len())?;
            host.append_to_body(&signed)?;
            self.share.set_bytes(self.body.held_bytes()).map_err(|Overloaded| Refusal::Overloaded)?;
        }
        if ends { self.finish() } else { Ok(()) }
    }

    /// Checks that the body was complete.
    ///
    /// # Errors
    /// If it was not.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        self.body.finish().map_err(Refusal::InvalidBody)
    }
}
