//! The form in which the proxy hands maps over: header maps, and properties that are maps.

/// The names and values of a serialized map, in its order. Ends at what is malformed.
pub fn pairs(map: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    // The count, then the lengths of all names and values, then each name and value with a NUL behind it.
    let (count, map) = map.split_first_chunk().unwrap_or((&[0; 4], &[]));
    let lengths = length(*count).checked_mul(8).and_then(|size| map.split_at_checked(size));
    let (lengths, mut texts) = lengths.unwrap_or_default();
    let (lengths, _) = lengths.as_chunks();
    lengths.iter().map_while(move |&[n0, n1, n2, n3, v0, v1, v2, v3]| {
        let name = next_text(&mut texts, length([n0, n1, n2, n3]))?;
        let value = next_text(&mut texts, length([v0, v1, v2, v3]))?;
        Some((name, value))
    })
}

fn length(bytes: [u8; 4]) -> usize {
    u32::from_le_bytes(bytes) as usize
}

/// Takes a text and the NUL behind it.
fn next_text<'m>(texts: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (text, rest) = texts.split_at_checked(length)?;
    *texts = rest.split_first()?.1;
    Some(text)
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
