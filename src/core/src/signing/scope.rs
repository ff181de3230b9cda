//! The credential scope: the region and service in which a signature is valid.

/// Region and signing name. [`Scope`] alone owns its parts, `Scope<&str>` borrows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope<S = String> {
    /// The region, such as `eu-west-1`.
    pub region: S,
    /// The signing name, such as `execute-api`.
    pub service: S,
}

impl Scope {
    /// Returns a borrowed copy.
    pub fn as_deref(&self) -> Scope<&str> {
        Scope { region: &self.region, service: &self.service }
    }
}

impl<'a> Scope<&'a str> {
    /// Returns the scope that a client signed for, from its `authorization` header (`AWS4-HMAC-SHA256
    /// Credential=AKID/20150830/us-east-1/s3/aws4_request, …`). `None` if the header is of another kind, has no region
    /// (SigV4A), or has a name that no region or service can have.
    pub fn of_authorization(authorization: &'a [u8]) -> Option<Self> {
        let parameters = std::str::from_utf8(authorization).ok()?.strip_prefix("AWS4-HMAC-SHA256")?;
        let credential = parameters.split([' ', ',']).find_map(|parameter| parameter.strip_prefix("Credential="))?;
        let mut parts = credential.split('/').skip(1);
        let (_date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next() != Some("aws4_request") || parts.next().is_some() {
            return None;
        }
        (is_name(region) && is_name(service)).then_some(Scope { region, service })
    }
}

/// Returns whether a text has the characters of AWS's regions and signing names: lower-case letters, digits, `-`, `_`, `.`.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_of_a_client_is_read_from_its_authorization() {
        let header =
            b"AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(Scope::of_authorization(header), Some(Scope { region: "us-east-1", service: "s3" }));
        let no_blanks = b"AWS4-HMAC-SHA256 SignedHeaders=host,Credential=A/1/eu-west-1/es/aws4_request,Signature=0";
        assert_eq!(Scope::of_authorization(no_blanks), Some(Scope { region: "eu-west-1", service: "es" }));
    }

    #[test]
    fn what_names_no_scope_gives_none() {
        for header in [
            "",
            "Bearer abc",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Credential=AKID",
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/s3",
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/s3/aws4_request/x",
            "AWS4-HMAC-SHA256 Credential=AKID/20150830//s3/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us east/s3/aws4_request",
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/s\n3/aws4_request",
            "AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/s3/aws4_request",
        ] {
            assert_eq!(Scope::of_authorization(header.as_bytes()), None, "{header}");
        }
        assert_eq!(Scope::of_authorization(b"AWS4-HMAC-SHA256 Credential=\xff/1/r/s/aws4_request"), None);
    }
}
