//! `certificate`: the TLS key and certificate Postgres shows to the backend.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use crate::appliance::path;
use crate::host::Host;
use crate::host::file::{self, FileError, Owner};

/// 20 years. The backend trusts this one certificate and nothing above it, so an early end would protect nobody; but it
/// would cut the API off from its database at a time when no window is open to hand over a new one. Replacing the
/// database host makes a new key long before.
const VALIDITY: Duration = Duration::days(20 * 365);
/// The clock may be wrong at first boot, on either host.
const CLOCK_SKEW: Duration = Duration::days(1);

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refused.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// On a bootstrapped host: the certificate the backend trusts is gone or does not fit any more.
    #[error(
        "the certificate of this database cannot be used ({0}); open the NAT window and run `drawbridge-host bootstrap --again` here, then on the backend"
    )]
    Lost(Unusable),
}

/// What is wrong with a certificate, from the backend's point of view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not a PEM file with exactly one certificate.
    #[error("not one certificate in PEM form")]
    NotOneCertificate,
    /// TLS would refuse it.
    #[error("not valid for {address}: {reason}")]
    Invalid {
        /// The database's address.
        address: Ipv4Addr,
        /// rustls's reason.
        reason: String,
    },
    /// The key beside it is missing or another one's.
    #[error("its private key is missing or does not belong to it")]
    Key,
}

/// Checks a certificate exactly as the backend's connection will: it is its own trust anchor, and must be valid now for
/// this address.
pub fn verify(pem: &str, address: Ipv4Addr) -> Result<CertificateDer<'static>, Unusable> {
    let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
    let (Some(Ok(certificate)), None) = (found.next(), found.next()) else {
        return Err(Unusable::NotOneCertificate);
    };
    let invalid = |reason: String| Unusable::Invalid { address, reason };
    let mut anchors = RootCertStore::empty();
    anchors
        .add(certificate.clone())
        .map_err(|error| invalid(error.to_string()))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider)
        .build()
        .map_err(|error| invalid(error.to_string()))?;
    let name = ServerName::IpAddress(address.into());
    verifier
        .verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
        .map_err(|error| invalid(error.to_string()))?;
    Ok(certificate)
}

/// Checks the certificate and key on disk.
pub fn check(host: &Host, address: Ipv4Addr) -> Result<(), CertificateError> {
    look(host, address)?.map_err(CertificateError::Lost)
}

/// Makes key and certificate, unless there are some that fit.
pub fn ensure(host: &Host, address: Ipv4Addr, postgres: Owner) -> Result<(), CertificateError> {
    let (certificate_file, key_file) = (
        host.path(path::SERVER_CERTIFICATE),
        host.path(path::SERVER_KEY),
    );
    let owner = Some((0, postgres.1));
    if let Some(parent) = key_file.parent() {
        // Postgres may look, the other users may not.
        file::folder(parent, 0o750, owner)?;
    }
    if look(host, address)?.is_err() {
        let (certificate, key) = make(address, OffsetDateTime::now_utc())?;
        // A kill between the two leaves a pair that does not match, which the next look notices.
        // Root's, for Postgres's group to read: Postgres accepts that, and bootstrap can read it again without the right
        // to read everybody's files.
        file::write(&key_file, key.as_bytes(), 0o640, owner)?;
        file::write(&certificate_file, certificate.as_bytes(), 0o644, None)?;
    }
    look(host, address)?.map_err(CertificateError::Lost)
}

fn look(host: &Host, address: Ipv4Addr) -> Result<Result<(), Unusable>, FileError> {
    let pem = file::read(&host.path(path::SERVER_CERTIFICATE))?.unwrap_or_default();
    let key = file::read(&host.path(path::SERVER_KEY))?.unwrap_or_default();
    Ok(
        verify(&pem, address).and_then(|certificate| match is_pair(certificate, &key) {
            true => Ok(()),
            false => Err(Unusable::Key),
        }),
    )
}

fn is_pair(certificate: CertificateDer<'static>, key_pem: &str) -> bool {
    PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .ok()
        .and_then(|key| ring::sign::any_supported_type(&key).ok())
        .is_some_and(|key| {
            CertifiedKey::new(vec![certificate], key)
                .keys_match()
                .is_ok()
        })
}

/// Certificate and key in PEM form. ECDSA on P-256: every Postgres client can verify it.
fn make(address: Ipv4Addr, now: OffsetDateTime) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + VALIDITY;
    params.subject_alt_names = vec![SanType::IpAddress(address.into())];
    params
        .distinguished_name
        .push(DnType::CommonName, "drawbridge database");
    // Its key must not be able to vouch for any other name.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 20, 3, 10);

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    #[test]
    fn a_certificate_is_good_for_its_address_and_time_only() {
        let (pem, _) = make(HERE, now()).unwrap();
        assert!(verify(&pem, HERE).is_ok());
        for (pem, address) in [
            (pem.clone(), Ipv4Addr::new(10, 20, 3, 11)),
            (make(HERE, now() - VALIDITY - CLOCK_SKEW).unwrap().0, HERE),
            (make(HERE, now() + CLOCK_SKEW * 3).unwrap().0, HERE),
        ] {
            assert!(matches!(
                verify(&pem, address),
                Err(Unusable::Invalid { .. })
            ));
        }
        for text in ["", "pending", &pem.repeat(2), &pem[..pem.len() / 2]] {
            assert_eq!(verify(text, HERE), Err(Unusable::NotOneCertificate));
        }
    }

    #[test]
    fn a_certificate_that_fits_is_kept_and_one_that_does_not_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let read = || std::fs::read_to_string(host.path(path::SERVER_CERTIFICATE)).unwrap();
        let me = (
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        );
        if me.0 != 0 {
            eprintln!("SKIPPED: needs root to give the key to another user");
            return;
        }
        assert!(matches!(check(&host, HERE), Err(CertificateError::Lost(_))));
        ensure(&host, HERE, me).unwrap();
        let first = read();
        ensure(&host, HERE, me).unwrap();
        check(&host, HERE).unwrap();
        assert_eq!(read(), first);
        let key = host.path(path::SERVER_KEY);
        assert_eq!(
            std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o640
        );

        // A kill between key and certificate.
        std::fs::write(&key, make(HERE, now()).unwrap().1).unwrap();
        assert!(matches!(
            check(&host, HERE),
            Err(CertificateError::Lost(Unusable::Key))
        ));
        ensure(&host, HERE, me).unwrap();
        assert_ne!(read(), first);

        let elsewhere = Ipv4Addr::new(10, 20, 3, 99);
        ensure(&host, elsewhere, me).unwrap();
        assert!(verify(&read(), elsewhere).is_ok());
    }
}
