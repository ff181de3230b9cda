//! The proxy's serialized form of maps: header maps, and properties that are maps.

/// A map in the proxy's form, in one block.
#[derive(Debug, Clone, Copy)]
pub struct HeaderMap<B = Vec<u8>>(pub B);

impl<B: AsRef<[u8]>> HeaderMap<B> {
    /// Returns names, which Envoy keeps in lower case, and values, in the order of arrival. Ends at malformed data.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        HeaderMap(self.0.as_ref()).entries()
    }

    /// Returns the first value of a name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(each, _)| *each == name).map(|(_, value)| value)
    }

    /// Returns the size of all names and values together, as the proxy counts headers.
    pub fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl<'m> HeaderMap<&'m [u8]> {
    /// Returns names and values for as long as the map lives. Ends at malformed data.
    pub fn entries(self) -> impl Iterator<Item = (&'m [u8], &'m [u8])> + Clone {
        // The count, then the lengths of all names and values, then each name and value followed by a NUL.
        let (count, map) = self.0.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let lengths = length(*count).checked_mul(8).and_then(|size| map.split_at_checked(size));
        let (lengths, mut texts) = lengths.unwrap_or_default();
        let (lengths, _) = lengths.as_chunks();
        lengths.iter().map_while(move |&[n0, n1, n2, n3, v0, v1, v2, v3]| {
            let name = next_text(&mut texts, length([n0, n1, n2, n3]))?;
            let value = next_text(&mut texts, length([v0, v1, v2, v3]))?;
            Some((name, value))
        })
    }
}

impl HeaderMap {
    /// Writes a map in the proxy's form.
    pub fn serialize<N: AsRef<[u8]>, V: AsRef<[u8]>>(map: &[(N, V)]) -> Self {
        let length = |text: &[u8]| (text.len() as u32).to_le_bytes();
        let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
        for (name, value) in map {
            bytes.extend(length(name.as_ref()));
            bytes.extend(length(value.as_ref()));
        }
        for (name, value) in map {
            for text in [name.as_ref(), value.as_ref()] {
                bytes.extend_from_slice(text);
                bytes.push(0);
            }
        }
        Self(bytes)
    }
}

fn length(bytes: [u8; 4]) -> usize {
    u32::from_le_bytes(bytes) as usize
}

/// Takes a text and the NUL that follows it.
fn next_text<'m>(texts: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (text, rest) = texts.split_at_checked(length)?;
    *texts = rest.split_first()?.1;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_map_is_read_in_its_order() {
        let map = HeaderMap::serialize::<_, &[u8]>(&[(":path", b"/a"), ("x-empty", b""), ("x-bytes", b"\xff\0")]);
        let read: Vec<_> = map.iter().collect();
        assert_eq!(read, [(&b":path"[..], &b"/a"[..]), (b"x-empty", b""), (b"x-bytes", b"\xff\0")]);
        assert_eq!(HeaderMap(b"").iter().count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            HeaderMap(bytes).iter().count();
        }
    }
}
