//! Gets credentials from AWS's provider chain and pushes them into the proxy.

fn main() {}
