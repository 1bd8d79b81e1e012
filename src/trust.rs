//! Whose certificates count when this program asks a server over HTTPS: the machine's own trust store
//! (`SSL_CERT_FILE` overrides it), as for curl and the AWS SDK. So an authority of one's own counts, a rehearsal's too.

use std::sync::Arc;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// For an agent's configuration. On a machine with no trust store, Mozilla's list that is built into this program.
pub fn tls() -> TlsConfig {
    let found: Vec<_> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    let roots = if found.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::Specific(Arc::new(found))
    };
    TlsConfig::builder().root_certs(roots).build()
}
