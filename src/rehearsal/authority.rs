//! The rehearsal's own certificate authority. It vouches for the pretend AWS and for the deployment's domain, so that no
//! client has to be told to trust less than on AWS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// An authority that lives as long as the rehearsal; its key is in no file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

/// A certificate and its key, both in PEM form.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// Makes one and writes its certificate to `file`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(file: &Path) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Drawbridge rehearsal");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().context("cannot make the authority's key")?;
        let issuer = CertifiedIssuer::self_signed(params, key)
            .context("cannot make the authority's certificate")?;
        fs::write(file, issuer.pem())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Authority {
            issuer,
            file: file.to_owned(),
        })
    }

    /// Where its certificate is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its certificate in PEM form.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Makes a server's certificate for `names`, each a host name or an address.
    ///
    /// # Errors
    /// If one of them is neither.
    pub fn issue(&self, names: &[&str]) -> Result<Issued> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())
            .with_context(|| format!("no certificate can be for {}", names.join(", ")))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign a certificate")?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
