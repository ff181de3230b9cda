//! A route's prefix, its target's path and a request's path, a line each: what is sent stays below the target, whichever way
//! an upstream reads it, and is its own wire form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigv4_core::path::{self, SafePath};
use sigv4_core::policy::Policy;
use sigv4_core::signing::{UriStyle, WireUri};

#[path = "../../src/core/tests/oracle/upstream.rs"]
mod upstream;
use upstream::{decode_once, may_leave};

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let (Some(prefix), Some(target), Some(request)) = (lines.next(), lines.next(), lines.next()) else { return };
    let (Ok(prefix), Ok(target)) = (std::str::from_utf8(prefix), std::str::from_utf8(target)) else { return };
    if !target.is_empty() && !target.starts_with('/') {
        return;
    }
    let Ok(path) = SafePath::check(request) else { return };
    assert!(!may_leave(b"", path.path()));

    let document = serde_json::json!({ "routes": {
        prefix: { "target": format!("https://h.example{target}"), "service": "s3", "region": "eu-west-1" },
    }});
    let Ok(policy) = Policy::from_json(document.to_string().as_bytes()) else { return };
    let route = &policy.routes()[0];
    let target = route.target.as_ref().expect("a target");
    assert_eq!(target.authority, "h.example");
    // With one route, a path that begins with the prefix has one route in every reading.
    let found = policy.find(b"h.example", &path);
    assert_eq!(matches!(found, Ok(Some(_))), route.prefix_in(path.path()).is_some());
    let _ = policy.find_any(b"h.example", request);

    // Where the prefix does not match, as if Envoy's route metadata had named the route.
    let mut joined = Vec::new();
    path::join(target.path.as_bytes(), route.prefix_in(path.path()).unwrap_or_default(), &path, &mut joined);
    assert!(!may_leave(target.path.as_bytes(), &joined), "{}", joined.escape_ascii());
    for style in [UriStyle::Standard, UriStyle::S3, UriStyle::S3Control] {
        let (mut root, mut uri, mut again) = (WireUri::default(), WireUri::default(), WireUri::default());
        root.set(style, target.path.as_bytes(), None);
        uri.set(style, &joined, path.query());
        assert!(!may_leave(root.path(), uri.path()), "{style:?} {}", uri.as_bytes().escape_ascii());
        assert_eq!(decode_once(uri.path()), decode_once(&joined), "{style:?}");
        assert!(uri.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && !b"#\\".contains(byte)));
        assert!(!uri.path().contains(&b'?'));
        again.set(style, uri.path(), Some(uri.query()));
        assert_eq!(again.as_bytes(), uri.as_bytes(), "{style:?}");
    }
});
