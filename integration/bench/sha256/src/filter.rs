//! A filter that hashes as many KiB as the request's path says, `/1024`, and does nothing else.
#![cfg(target_arch = "wasm32")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use sha2::{Digest, Sha256};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Hashes) });
}}

struct Hashes;

impl Context for Hashes {}

impl HttpContext for Hashes {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let kibibytes = path.trim_start_matches('/').parse().unwrap_or(0);
        let mut hasher = Sha256::new();
        (0..kibibytes).for_each(|_: u32| hasher.update([0x5a; 1024]));
        // So that the hash is needed.
        self.set_http_request_header("x-first-byte", Some(&hasher.finalize()[0].to_string()));
        Action::Continue
    }
}

impl RootContext for Hashes {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Hashes))
    }
}
