//! Shared data without a proxy, for the tests of core and refresher and for fuzz targets.

use std::collections::HashMap;
use std::sync::Mutex;

use super::{SetError, SharedData};

/// Shared data as a proxy keeps it: each write gives the key a new number.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) Mutex<HashMap<String, (Vec<u8>, u32)>>);

impl SharedData for &Memory {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
        let mut map = self.0.lock().unwrap();
        let current = map.get(key).map_or(0, |(_, cas)| *cas);
        if cas != 0 && cas != current {
            return Err(SetError::Raced);
        }
        map.insert(key.to_owned(), (value.to_vec(), current + 1));
        Ok(())
    }
}
