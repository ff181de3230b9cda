//! The services that take a body which is not part of the signature: `UNSIGNED-PAYLOAD`.

use super::uri::is_s3;

/// An operation with such a body, outside of S3: signing name, method, and path, in which `*` stands for a segment.
///
/// Source: the operations in botocore's models with `v4-unsigned-body` (S3's `WriteGetObjectResponse` is another; S3 takes an
/// unsigned body everywhere). A test compares them.
const OPERATIONS: &[(&str, &[u8], &[u8])] = &[
    ("ebs", b"PUT", b"/snapshots/*/blocks/*"),
    ("lex", b"POST", b"/bot/*/alias/*/user/*/content"),
    ("lex", b"POST", b"/bots/*/botAliases/*/botLocales/*/sessions/*/utterance"),
    // An object's path has any number of segments, and nothing else is put there.
    ("mediastore", b"PUT", b""),
    ("omics", b"PUT", b"/sequencestore/*/upload/*/part"),
];

/// Returns whether a service of this signing name is known to take `UNSIGNED-PAYLOAD`, if only for some operations.
pub fn takes_unsigned_payload(service: &str) -> bool {
    is_s3(service) || takes_nothing_else(service) || OPERATIONS.iter().any(|(name, _, _)| *name == service)
}

/// Returns whether a service of this signing name takes `UNSIGNED-PAYLOAD` and nothing else.
///
/// Source: VPC Lattice User Guide, "SigV4 authenticated requests".
pub(crate) fn takes_nothing_else(service: &str) -> bool {
    service == "vpc-lattice-svcs"
}

/// Returns whether a request is of such an operation; `path` is the one that is sent, without its query.
pub(crate) fn is_unsigned_operation(service: &str, method: &[u8], path: &[u8]) -> bool {
    OPERATIONS.iter().any(|(name, verb, form)| *name == service && *verb == method && has_form(path, form))
}

fn has_form(path: &[u8], form: &[u8]) -> bool {
    let (mut segments, mut forms) = (path.split(|&byte| byte == b'/'), form.split(|&byte| byte == b'/'));
    form.is_empty()
        || loop {
            match (segments.next(), forms.next()) {
                (None, None) => return true,
                (Some(segment), Some(form)) if segment == form || (form == b"*" && !segment.is_empty()) => {}
                _ => return false,
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `integration/endpoints/generate.py`: signing name, method, path of each operation, with an example for each
    /// of its parameters.
    const BOTOCORE: &str = include_str!("../../tests/data/botocore-unsigned-operations.tsv");

    #[test]
    fn they_are_those_of_botocore() {
        let known: Vec<Vec<&str>> =
            BOTOCORE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
        assert!(known.len() >= OPERATIONS.len());
        for operation in &known {
            let [service, method, path] = operation[..] else { panic!("{operation:?}") };
            let is_known = is_s3(service) || is_unsigned_operation(service, method.as_bytes(), path.as_bytes());
            assert!(is_known, "{operation:?}");
        }
        for (service, method, form) in OPERATIONS {
            let is_of = |operation: &Vec<&str>| {
                operation[0] == *service
                    && operation[1].as_bytes() == *method
                    && has_form(operation[2].as_bytes(), form)
            };
            assert!(known.iter().any(is_of), "botocore no longer has {service} {}", String::from_utf8_lossy(form));
        }
    }

    #[test]
    fn others_of_the_same_services_are_not() {
        for (service, method, path) in [
            ("ebs", "POST", "/snapshots/s/blocks/0"),
            ("ebs", "PUT", "/snapshots/s/blocks"),
            ("ebs", "PUT", "/snapshots/s/blocks/"),
            ("ebs", "PUT", "/snapshots/s/blocks/0/more"),
            ("ebs", "PUT", "/v/snapshots/s/blocks/0"),
            ("lex", "POST", "/bot/b/alias/a/user/u/text"),
            ("omics", "PUT", "/snapshots/s/blocks/0"),
            ("mediastore", "DELETE", "/a/b"),
            ("execute-api", "PUT", "/snapshots/s/blocks/0"),
        ] {
            assert!(!is_unsigned_operation(service, method.as_bytes(), path.as_bytes()), "{service} {method} {path}");
        }
    }
}
