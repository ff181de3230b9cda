//! Prints how many GB/s SHA-256 hashes natively.

use std::hint::black_box;
use std::time::Instant;

use sha2::{Digest, Sha256};

fn main() {
    const MEBIBYTES: u32 = 256;
    let part = [0x5a; 1024];
    let start = Instant::now();
    let mut hasher = Sha256::new();
    (0..MEBIBYTES * 1024).for_each(|_| hasher.update(black_box(part)));
    black_box(hasher.finalize());
    let bytes = f64::from(MEBIBYTES) * 1024.0 * 1024.0;
    println!("{:.3}", bytes / start.elapsed().as_secs_f64() / 1e9);
}
