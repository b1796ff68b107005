//! The protocols that peers speak, one folder each; none knows another.

pub mod pilot;
