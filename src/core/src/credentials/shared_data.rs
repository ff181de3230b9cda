//! The proxy's shared data: a map of bytes in its memory that all virtual machines of one `vm_id` see, with
//! compare-and-swap.

use serde::{Serialize, de::DeserializeOwned};

/// The attempts of a compare-and-swap; with one attempt per worker and tick, this many conflicts do not happen by chance.
pub(super) const ATTEMPTS: usize = 64;

/// The proxy's shared data.
pub trait SharedData {
    /// Returns the value of a key and its compare-and-swap number; `None` if it was never set.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets a value if its compare-and-swap number is still `cas` (0: always).
    ///
    /// # Errors
    /// [`SetError::Raced`] if another writer was faster.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError>;

    /// Returns the JSON value of a key; the default if there is none, or none of this type.
    fn read<T: DeserializeOwned + Default>(&self, key: &str) -> T {
        self.get(key).and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Updates a value with compare-and-swap, retrying on conflict. `change` takes the value and returns the new one, or
    /// `None` if there is nothing to write.
    ///
    /// A value that was never set has no number to compare, so the first write of a key is unguarded. The proxy makes it
    /// before it starts its workers, when it validates a policy on its main thread.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    fn update_bytes(&self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (bytes, cas) = self.get(key).unwrap_or_default();
            let Some(changed) = change(&bytes) else { return Ok(()) };
            match self.set(key, &changed, cas) {
                Err(SetError::Raced) => {}
                done => return done,
            }
        }
        Err(SetError::Raced)
    }

    /// [Updates](Self::update_bytes) a value that is JSON. `change` returns whether to write.
    ///
    /// # Errors
    /// If the proxy refuses the value, or if another version wrote a value that this one can't read: overwriting it would
    /// drop the leases of that version's policies.
    fn update<T, F>(&self, key: &str, mut change: F) -> Result<(), SetError>
    where
        T: Serialize + DeserializeOwned + Default,
        F: FnMut(&mut T) -> bool,
    {
        let mut readable = true;
        self.update_bytes(key, &mut |bytes| {
            let value = if bytes.is_empty() { Some(T::default()) } else { serde_json::from_slice(bytes).ok() };
            readable = value.is_some();
            // Writing into a vector does not fail.
            value.and_then(|mut value| change(&mut value).then(|| serde_json::to_vec(&value).unwrap_or_default()))
        })?;
        if readable { Ok(()) } else { Err(SetError::Unreadable) }
    }
}

/// The reason why shared data was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The value had changed since it was read.
    #[error("another worker changed the value first")]
    Raced,
    /// The proxy refused it.
    #[error("the proxy refused the value")]
    Refused,
    /// Another version of the filter wrote the value that is there.
    #[error("another version of the filter wrote the data of this vm_id: use one .wasm, or another vm_id")]
    Unreadable,
}
