//! A request that resembles an earlier one is signed without an allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use sigv4_core::credentials::Credentials;
use sigv4_core::path::{self, SafePath};
use sigv4_core::signing::{Algorithm, PayloadHash, Scope, Signer, SigningContext, UnsignedRequest, UriStyle, WireUri};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// Every call goes on to the system's allocator as it came, so its guarantees are ours; counting touches a thread-local
// that needs no allocation and has no destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_request_like_an_earlier_one_needs_no_allocation() {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret".to_owned(), Some("token".into()), None).unwrap().into();
    let headers: Vec<(String, String)> =
        (0..40).map(|index| (format!("x-amz-meta-{}", index * 7 % 40), "a value".to_owned())).collect();
    let mut signer = Signer::default();
    let (mut joined, mut uri) = (Vec::new(), WireUri::default());
    let mut allocations_of = |seconds: u64| {
        let before = ALLOCATIONS.get();
        let safe = SafePath::check(b"/orders/a%20b/%C3%BC?b=2&a=1&a=0&versions").unwrap();
        path::join(b"/prod", b"/orders", &safe, &mut joined);
        uri.set(UriStyle::S3, &joined, safe.query());
        let request = UnsignedRequest {
            method: b"GET",
            authority: b"h.example",
            uri: &uri,
            payload: PayloadHash::Empty,
            signed_headers: &[],
        };
        let context = SigningContext {
            credentials: &credentials,
            scope: Scope { region: "eu-west-1", service: "s3" },
            algorithm: Algorithm::SigV4,
            at: UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let signed = signer.sign(&request, headers, &context).unwrap();
        assert_eq!(signed.iter().count(), 4);
        ALLOCATIONS.get() - before
    };
    assert!(allocations_of(0) > 0, "the first request fills the buffers");
    assert_eq!(allocations_of(0), 0);
    assert_eq!(allocations_of(1), 0, "a second later");
}
