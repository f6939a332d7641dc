//! The one implementation of cryptography that all TLS of this process uses.

/// Makes ring the provider of the process, unless the program that embeds feedmill has chosen one.
///
/// Without it, rustls refuses to start when two providers are compiled in.
pub fn install_provider() {
    // An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
