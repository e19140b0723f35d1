//! When a certificate expires: the one field of X.509 (RFC 5280, 4.1) that is needed here, read without a parser for all of it.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When the first certificate of a chain expires, in seconds since 1970; `None` if none can be read.
pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<i64> {
    chain.iter().filter_map(|certificate| not_after(certificate)).min()
}

fn not_after(certificate: &[u8]) -> Option<i64> {
    let (certificate, _) = inside(certificate, SEQUENCE)?;
    let (mut fields, _) = inside(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = skip(fields)?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = skip(fields)?;
    }
    let (validity, _) = inside(fields, SEQUENCE)?;
    let not_after = skip(validity)?;
    match *not_after.first()? {
        UTC_TIME => {
            let (digits, _) = inside(not_after, UTC_TIME)?;
            let year = number(digits.get(..2)?)?;
            // RFC 5280, 4.1.2.5.1.
            seconds(if year < 50 { 2000 + year } else { 1900 + year }, digits.get(2..)?)
        }
        GENERALIZED_TIME => {
            let (digits, _) = inside(not_after, GENERALIZED_TIME)?;
            seconds(number(digits.get(..4)?)?, digits.get(4..)?)
        }
        _ => None,
    }
}

/// What an element of this tag holds, and what comes after it.
fn inside(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

fn skip(bytes: &[u8]) -> Option<&[u8]> {
    inside(bytes, *bytes.first()?).map(|(_, rest)| rest)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// `MMDDHHMMSSZ` of a year, as seconds since 1970.
fn seconds(year: i64, rest: &[u8]) -> Option<i64> {
    let &[ref digits @ .., b'Z'] = rest else { return None };
    let [month, day, hour, minute, second] =
        [0, 2, 4, 6, 8].map(|at| digits.get(at..at + 2).and_then(number).filter(|_| digits.len() == 10));
    let (month, day) = (month?, day?);
    // Days of the civil calendar, with years that begin in March (H. Hinnant, "chrono-compatible low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hour? * 3600 + minute? * 60 + second?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn what_was_written_is_read() {
        // Seconds as `date -u -d 2031-02-03 +%s` has them; from 2050 on the year has four digits.
        for ((year, month, day), expected) in [
            ((2031, 2, 3), 1_927_843_200),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2000, 2, 29), 951_782_400),
            ((1970, 1, 1), 0),
        ] {
            let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_before = date_time_ymd(1969, 1, 1);
            params.not_after = date_time_ymd(year, month, day);
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(of(&[made.der().clone()]), Some(expected), "{year}-{month}-{day}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), flip in any::<(usize, u8)>()) {
            not_after(&bytes);
            let made = CertificateParams::new(vec!["a".to_owned()]).unwrap();
            let mut made = made.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            let at = flip.0 % made.len();
            made[at] = flip.1;
            not_after(&made);
            not_after(&made[..at]);
        }
    }
}
