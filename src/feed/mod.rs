//! From a subscribed URL to items: the producer side.

pub mod fetch;
pub mod fingerprint;
pub mod identity;
pub mod parse;
pub mod schedule;
pub mod seen;
