//! Benchmarks against fork, bubblewrap and a bare overlay mount. Never part of the product.

#![forbid(unsafe_code)]
