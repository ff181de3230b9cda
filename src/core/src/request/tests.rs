//! Requests through the whole signer, on a proxy that the test plays.

mod callers;
mod dialects;
mod failing_host;
mod held;
mod proxy;
mod resigned;
mod scope;
mod signed;
