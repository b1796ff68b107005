//! The `beacon-relay` program.

fn main() {}
