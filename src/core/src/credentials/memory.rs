//! Shared data without a proxy, for tests and fuzz targets.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{SetError, SharedData};

/// Shared data as a proxy keeps it: each write gives the key a new number.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) RefCell<HashMap<String, (Vec<u8>, u32)>>);

impl SharedData for &Memory {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.borrow().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
        let mut map = self.0.borrow_mut();
        let current = map.get(key).map_or(0, |(_, cas)| *cas);
        if cas != 0 && cas != current {
            return Err(SetError::Raced);
        }
        map.insert(key.to_owned(), (value.to_vec(), current + 1));
        Ok(())
    }
}
