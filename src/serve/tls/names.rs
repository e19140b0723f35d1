//! What a client is called that showed a certificate.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

/// The first URI of its alternative names (a SPIFFE id is one), or else the first DNS name there. What has neither is told apart
/// by its subject. `None` of what is no certificate, which rustls lets nobody show.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let named = certificate.valid_uri_names().next().or_else(|| certificate.valid_dns_names().next());
    Some(named.map_or_else(|| format!("subject-{}", fingerprint(certificate.subject())), str::to_owned))
}

fn fingerprint(subject: &[u8]) -> String {
    Sha256::digest(subject).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn name(common: &str, others: Vec<SanType>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = others;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        of(certificate.der()).unwrap()
    }

    #[test]
    fn a_uri_counts_before_a_dns_name_and_without_either_it_is_the_subject() {
        let dns = SanType::DnsName("team-a.example".try_into().unwrap());
        let uri = SanType::URI("spiffe://example/team-a".try_into().unwrap());
        assert_eq!(name("a", vec![dns.clone(), uri]), "spiffe://example/team-a");
        assert_eq!(name("a", vec![dns]), "team-a.example");
        let (a, b) = (name("a", Vec::new()), name("b", Vec::new()));
        assert!(a.starts_with("subject-") && a != b, "{a} {b}");
        // Of the same subject, whatever key it has now.
        assert_eq!(name("a", Vec::new()), a);
    }
}
