//! The form in which the proxy hands maps over: header maps, and properties that are maps.

/// The names and values of a serialized map, in its order. Ends at what is malformed.
pub fn pairs(map: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    // The count, then the lengths of all names and values, then each name and value with a NUL behind it.
    let count = length_at(map, 0);
    let mut at = count.saturating_mul(8).saturating_add(4);
    (0..count).map_while(move |index| {
        let name = map.get(at..at.checked_add(length_at(map, 4 + index * 8))?)?;
        at += name.len() + 1;
        let value = map.get(at..at.checked_add(length_at(map, 8 + index * 8))?)?;
        at += value.len() + 1;
        Some((name, value))
    })
}

fn length_at(map: &[u8], at: usize) -> usize {
    let bytes = map.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize)
}

/// A map in the form that [`pairs`] reads.
#[cfg(test)]
pub(crate) fn serialize(map: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
    for (name, value) in map {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in map {
        bytes.extend([name.as_bytes(), b"\0", value, b"\0"].concat());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_map_is_read_in_its_order() {
        let map = serialize(&[(":path", b"/a"), ("x-empty", b""), ("x-bytes", b"\xff\0")]);
        let read: Vec<_> = pairs(&map).collect();
        assert_eq!(read, [(&b":path"[..], &b"/a"[..]), (b"x-empty", b""), (b"x-bytes", b"\xff\0")]);
        assert_eq!(pairs(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            pairs(&bytes).count();
        }
    }
}
