//! Whether Envoy has authenticated a request by a token, read from what its `jwt_authn` filter leaves in the stream's
//! dynamic metadata.
//!
//! The metadata is a `google.protobuf.Struct` with a member for each `payload_in_metadata` and `header_in_metadata`, which
//! are there once a token is verified. With `failed_status_in_metadata` there is also one for a token that was *refused*,
//! of the form `{code, message}`, and a rule such as `allow_missing_or_failed` lets that request go on. So it is not enough
//! that there is something.
//!
//! Sources: Envoy's `jwt_authn/v3/config.proto`; protobuf.dev, "Encoding".

/// Whether the metadata holds what only a verified token leaves. `metadata` is the serialized struct; what can't be
/// read authenticates nobody.
pub fn has_verified_token(metadata: &[u8]) -> bool {
    let mut members = Fields(metadata);
    members.any(|(field, entry)| {
        let payload = (field == MAP_ENTRY).then(|| value_of(entry)).flatten().and_then(struct_of);
        payload.is_some_and(|payload| !payload.is_empty() && !is_failure(payload))
    })
}

// google/protobuf/struct.proto
const MAP_ENTRY: u64 = 1;
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;
const STRUCT_VALUE: u64 = 5;

/// Whether a struct has the members of a failure's status and no others. (A payload of just these is not believed.)
fn is_failure(payload: &[u8]) -> bool {
    Fields(payload).all(|(field, entry)| {
        let key = Fields(entry).find(|(field, _)| *field == ENTRY_KEY).map(|(_, key)| key);
        field != MAP_ENTRY || matches!(key, None | Some(b"" | b"code" | b"message"))
    })
}

fn value_of(entry: &[u8]) -> Option<&[u8]> {
    Fields(entry).find(|(field, _)| *field == ENTRY_VALUE).map(|(_, value)| value)
}

fn struct_of(value: &[u8]) -> Option<&[u8]> {
    Fields(value).find(|(field, _)| *field == STRUCT_VALUE).map(|(_, value)| value)
}

/// The fields of a protobuf message: number, and content where it has a length. Ends at what is malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => self.varint().map(|_| &b""[..])?,
            1 => self.take(8).map(|_| &b""[..])?,
            2 => {
                let length = self.varint()?;
                self.take(usize::try_from(length).ok()?)?
            }
            5 => self.take(4).map(|_| &b""[..])?,
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    /// A struct of text members.
    fn object(members: &[(&str, &str)]) -> Vec<u8> {
        let member = |(key, text): &(&str, &str)| entry(key, &field(3, text.as_bytes()));
        members.iter().flat_map(member).collect()
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
    }

    /// A struct with one member that is a struct.
    fn metadata(key: &str, members: &[(&str, &str)]) -> Vec<u8> {
        entry(key, &field(5, &object(members)))
    }

    #[test]
    fn a_payload_authenticates() {
        assert!(has_verified_token(&metadata("jwt", &[("iss", "https://issuer"), ("sub", "a")])));
        assert!(has_verified_token(&metadata("jwt", &[("code", "1"), ("sub", "a")])));
        let both = [metadata("failed", &[("code", "2"), ("message", "expired")]), metadata("jwt", &[("sub", "a")])];
        assert!(has_verified_token(&both.concat()));
    }

    #[test]
    fn the_status_of_a_refused_token_does_not() {
        assert!(!has_verified_token(&metadata("failed", &[("code", "2"), ("message", "Jwt is expired")])));
        assert!(!has_verified_token(&metadata("jwt", &[("code", "2")])));
        // 0 is the default of a number and may be left out.
        assert!(!has_verified_token(&metadata("jwt", &[("message", "Jwt is expired")])));
    }

    #[test]
    fn nothing_or_something_else_does_not() {
        for metadata in [
            &b""[..],
            b"\x0a",
            b"\x0a\xff",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"{}",
            &object(&[("a", "b")]),
        ] {
            assert!(!has_verified_token(metadata), "{metadata:?}");
        }
        assert!(!has_verified_token(&metadata("jwt", &[])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            has_verified_token(&bytes);
        }
    }
}
