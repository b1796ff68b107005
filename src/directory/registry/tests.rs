//! The client against a registry over real TCP.
