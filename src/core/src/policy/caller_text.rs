//! The text by which the access log names a caller.

use crate::header_map::HeaderMap;

use super::caller::{Admitted, Caller};

/// The largest text, in bytes.
const MAX: usize = 256;

impl Caller {
    /// Returns the name in the certificate, or issuer and subject of the token, by which the caller was admitted; if it was
    /// not, the first that is known. Empty if none is. Bytes other than visible ASCII become `?`, and what exceeds 256 bytes
    /// is cut off.
    pub fn text(&self, admitted: Option<Admitted<'_>>) -> String {
        let mut text = String::new();
        match (admitted, self.uri.as_ref().or(self.dns.as_ref()), &self.tokens) {
            (Some(Admitted::Name(name)), _, _) => push_visible(&mut text, name),
            (Some(Admitted::Token(payload)), _, _) => push_token(&mut text, payload),
            (None, Some(name), _) => push_visible(&mut text, name),
            (None, None, Some(tokens)) => {
                let mut payloads = tokens.iter().map(|(_, payload)| HeaderMap(payload));
                if let Some(payload) = payloads.find(|payload| payload.get(b"iss").is_some()) {
                    push_token(&mut text, payload);
                }
            }
            (None, None, None) => {}
        }
        text
    }
}

/// Appends issuer and subject of a token, with a blank between them.
fn push_token(text: &mut String, payload: HeaderMap<&[u8]>) {
    push_visible(text, payload.get(b"iss").unwrap_or_default());
    if let Some(subject) = payload.get(b"sub")
        && text.len() < MAX
    {
        text.push(' ');
        push_visible(text, subject);
    }
}

/// Appends a name in visible ASCII, as far as there is room.
fn push_visible(text: &mut String, name: &[u8]) {
    let room = MAX.saturating_sub(text.len());
    text.extend(name.iter().take(room).map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(claims: &[(&str, &[u8])]) -> HeaderMap {
        HeaderMap::serialize(&[("jwt", HeaderMap::serialize(claims).0)])
    }

    #[test]
    fn a_caller_is_named_by_what_admitted_it() {
        let caller = Caller {
            uri: Some(b"spiffe://td/ns/orders/sa/a".to_vec()),
            dns: Some(b"orders.internal".to_vec()),
            tokens: Some(tokens(&[("iss", b"https://a"), ("sub", b"alice")])),
        };
        assert_eq!(caller.text(Some(Admitted::Name(b"orders.internal"))), "orders.internal");
        let payload = HeaderMap::serialize(&[("sub", "alice"), ("iss", "https://a")]);
        assert_eq!(caller.text(Some(Admitted::Token(HeaderMap(&payload.0)))), "https://a alice");
        let payload = HeaderMap::serialize(&[("iss", "https://a")]);
        assert_eq!(caller.text(Some(Admitted::Token(HeaderMap(&payload.0)))), "https://a");
        assert_eq!(caller.text(None), "spiffe://td/ns/orders/sa/a");
    }

    #[test]
    fn a_caller_who_was_not_admitted_is_named_by_what_is_known() {
        assert_eq!(Caller { dns: Some(b"x.internal".to_vec()), ..Caller::default() }.text(None), "x.internal");
        let named = |tokens| Caller { tokens: Some(tokens), ..Caller::default() }.text(None);
        assert_eq!(named(tokens(&[("iss", b"https://b"), ("sub", b"bob")])), "https://b bob");
        assert_eq!(named(tokens(&[("code", b"2"), ("message", b"expired")])), "");
        assert_eq!(named(HeaderMap(b"\xff\xff\xff\xff".to_vec())), "");
        assert_eq!(Caller::default().text(None), "");
    }

    #[test]
    fn a_text_is_short_and_visible() {
        let hostile = b"a\nb\x1b[2J\0\"c\xe2\x80\xae d".to_vec();
        assert_eq!(Caller { dns: Some(hostile), ..Caller::default() }.text(None), "a?b?[2J?\"c????d");
        let long = tokens(&[("iss", &[b'i'; 200]), ("sub", &[b's'; 100_000])]);
        let text = Caller { tokens: Some(long), ..Caller::default() }.text(None);
        assert_eq!((text.len(), text.find('s')), (256, Some(201)));
    }
}
