//! Any text as a policy: refused in one line, or compiled into routes that find themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigv4_core::path::SafePath;
use sigv4_core::policy::{Policy, RouteIdentity};

#[path = "../../src/core/tests/oracle/upstream.rs"]
mod upstream;

fuzz_target!(|text: &[u8]| {
    let policy = match Policy::from_json(text) {
        Ok(policy) => policy,
        Err(refusal) => {
            let refusal = refusal.to_string();
            assert!(!refusal.is_empty() && !refusal.contains(char::is_control), "{refusal:?}");
            return;
        }
    };
    assert!(!policy.routes().is_empty());
    let mut order: Vec<_> = policy.routes_by_precedence().iter().map(|route| route.index).collect();
    order.sort_unstable();
    assert!(order.iter().enumerate().all(|(place, index)| place == *index), "each route has one place");

    for route in policy.routes() {
        match &route.identity {
            RouteIdentity::Fixed(identity) => assert!(policy.identities().get(*identity).is_some()),
            RouteIdentity::Caller(_) => assert!(policy.has_caller_identities() && !route.callers.is_empty()),
        }
        assert!(route.callers.is_empty() || !route.allow_unauthenticated);
        assert!(std::ptr::eq(policy.route_named(route.name.as_bytes()).expect("a name"), route), "{}", route.name);
        let prefix = route.prefix.as_bytes();
        assert_eq!(route.prefix_in(prefix), Some(prefix), "a prefix begins with itself");
        assert!(!upstream::may_leave(b"", prefix), "{}", route.prefix);
        if let Some(target) = &route.target {
            assert!(!upstream::may_leave(b"", target.path.as_bytes()), "{}", target.path);
            assert!(!target.authority.is_empty() && !target.authority.contains(['@', '/', '?', '#', ' ']));
        } else {
            assert!(!route.hosts.is_empty());
        }
        // The path that a prefix spells is taken by that prefix, unless an upstream may read it as another one's; by which of
        // its routes is up to their hosts.
        let path = SafePath::check(prefix).expect("a path that may be sent");
        let hosts = route.hosts.iter().map(|host| host.to_string().replacen("*.", "x.", 1));
        for authority in hosts.chain(route.hosts.is_empty().then(|| "unheard-of.example".to_owned())) {
            let Ok(found) = policy.find(authority.as_bytes(), &path) else { continue };
            let found = found.expect("its own prefix and host");
            assert_eq!(found.prefix_in(prefix).map(<[u8]>::len), Some(prefix.len()), "{authority} {}", route.prefix);
        }
    }
});
