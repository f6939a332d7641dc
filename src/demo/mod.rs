//! A web server with feeds to try feedmill on: the demo's own, and generated ones of any size.
//!
//! ```text
//!   demo/feeds/jobboard.rss ──read at each request──▶ server ──ETag, Last-Modified, 304──▶ feed::fetch
//!   generate: seed, n items ──streamed──────────────▶
//! ```
//!
//! Called by `feedmill demo serve` and `feedmill demo generate`, and by tests that need a real HTTP server. It holds
//! no state: a server that is stopped and started again answers the same validators.
//!
//! *Not here:* failures on purpose (wrong status, stalls, bombs); tests that need them bring their own server.

mod generate;
mod server;

pub use generate::{GeneratedFeed, ITEM_BYTES_DEFAULT};
pub use server::serve;
