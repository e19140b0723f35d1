//! Times as traces write them.

use super::LineError;
use serde_json::Value;
use std::time::Duration;

/// What a trace counts time in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds, with or without a fraction.
    Seconds,
    /// Milliseconds, whole in all published traces.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl TimeUnit {
    /// A month: longer than any published trace, shorter than two hours of milliseconds read as seconds.
    const SECONDS_MAX: u128 = 31 * 86_400;

    const fn nanos(self) -> i128 {
        match self {
            TimeUnit::Seconds => 1_000_000_000,
            TimeUnit::Milliseconds => 1_000_000,
            TimeUnit::Microseconds => 1_000,
            TimeUnit::Nanoseconds => 1,
        }
    }

    /// A time since the start, as Qwen-Bailian and Mooncake write it, where a wrong unit can be told.
    pub(super) fn duration(self, timestamp: &str) -> Result<Duration, LineError> {
        let wrong = |why, other, other_flag| {
            Err(LineError::TimeUnit { timestamp: timestamp.to_owned(), why, other, other_flag })
        };
        let since = nanos(timestamp, self).and_then(|nanos| u128::try_from(nanos).ok());
        let Some(nanos) = since.filter(|&nanos| nanos < u128::from(u64::MAX)) else {
            return Err(LineError::Malformed {
                reason: format!("timestamp {timestamp} is not a time since the start"),
            });
        };
        match self {
            TimeUnit::Seconds if nanos / 1_000_000_000 > Self::SECONDS_MAX => {
                wrong("is more than a month after the start, in seconds", "milliseconds", "ms")
            }
            TimeUnit::Milliseconds if nanos % 1_000_000 != 0 => {
                wrong("is not a whole number of milliseconds", "seconds", "s")
            }
            TimeUnit::Seconds | TimeUnit::Milliseconds | TimeUnit::Microseconds | TimeUnit::Nanoseconds => {
                Ok(Duration::from_nanos(nanos as u64))
            }
        }
    }
}

/// A decimal number of `unit`, exact to the nanosecond, of a tenth of which the rest is cut off.
#[inline]
pub(super) fn nanos(text: &str, unit: TimeUnit) -> Option<i128> {
    // As nearly all are written: few enough digits for a word, and no sign.
    let mut whole = 0_u64;
    let mut digits = 0;
    for byte in text.bytes() {
        match byte.wrapping_sub(b'0') {
            digit @ 0..=9 if digits < 19 => whole = whole * 10 + u64::from(digit),
            _ => return decimal_nanos(text, unit),
        }
        digits += 1;
    }
    if digits == 0 { None } else { Some(i128::from(whole) * unit.nanos()) }
}

/// The same of any decimal number.
fn decimal_nanos(text: &str, unit: TimeUnit) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    // Forty digits would not fit.
    if !plain(whole) || !plain(fraction) || whole.len() > 28 || whole.len() + fraction.len() == 0 {
        return scientific(text, unit);
    }
    let mut nanos = whole.bytes().fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0')) * unit.nanos();
    // A unit has a power of ten of nanoseconds, and few enough for a word.
    let mut place = unit.nanos() as u64;
    let mut rest = 0;
    for digit in fraction.bytes() {
        place /= 10;
        if place == 0 {
            break;
        }
        rest += u64::from(digit - b'0') * place;
    }
    nanos += i128::from(rest);
    Some(if negative { -nanos } else { nanos })
}

/// What `nanos` cannot take digit by digit, such as 1.9440110e7.
fn scientific(text: &str, unit: TimeUnit) -> Option<i128> {
    let value: f64 = text.parse().ok()?;
    value.is_finite().then(|| (value * unit.nanos() as f64).round() as i128)
}

/// A JSON number, or a number in a JSON string.
pub(super) fn json_nanos(value: &Value, unit: TimeUnit) -> Option<i128> {
    match value {
        Value::Number(number) => nanos(&number.to_string(), unit),
        Value::String(text) => nanos(text, unit),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A time of a trace that counts from elsewhere, such as 1970; `None` when it is before that or centuries after.
#[inline]
pub(super) fn since_epoch(nanos: i128) -> Option<Duration> {
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Longer than any trace: a time so long after the first is damage.
pub(in crate::trace) const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A time since the start; `None` when it is negative or more than a century.
pub(super) fn duration(nanos: i128) -> Option<Duration> {
    since_epoch(nanos).filter(|&at| at < CENTURY)
}

/// `2023-11-16 18:17:03.9799600`, `2024-05-10 00:00:00+00:00` and `2024-10-15T12:00:05.819Z` as nanoseconds since 1970.
pub(super) fn civil_nanos(text: &str) -> Option<i128> {
    let (date, rest) = text.trim().split_at_checked(10)?;
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone_at);
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parts(clock, ':', [2, 2, 2])?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !valid || !(fraction.is_empty() || fraction.starts_with('.')) {
        return None;
    }
    let fraction = if fraction.is_empty() { 0 } else { nanos(&format!("0{fraction}"), TimeUnit::Seconds)? };
    let offset = match zone {
        "" | "Z" => 0,
        zone => {
            let [hours, minutes] = parts(&zone[1..], ':', [2, 2])?;
            (if zone.starts_with('-') { -1 } else { 1 }) * (hours * 3600 + minutes * 60)
        }
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * 1_000_000_000 + fraction)
}

fn parts<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from a date of the Gregorian calendar; Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let check = |text, unit, expected| assert_eq!(nanos(text, unit), expected, "{text}");
        check("61.114", TimeUnit::Seconds, Some(61_114_000_000));
        check("27482", TimeUnit::Milliseconds, Some(27_482_000_000));
        check("1753694362340138614", TimeUnit::Nanoseconds, Some(1_753_694_362_340_138_614));
        check("-1.5", TimeUnit::Seconds, Some(-1_500_000_000));
        check("1.9440110e7", TimeUnit::Seconds, Some(19_440_110_000_000_000));
        check("0.1234567890123", TimeUnit::Seconds, Some(123_456_789));
        for bad in ["", ".", "-", "NaN", "inf", "1,5", "soon"] {
            check(bad, TimeUnit::Seconds, None);
        }
    }

    #[test]
    fn dates_are_read_as_azure_writes_them() {
        let check = |text, expected: Option<i128>| assert_eq!(civil_nanos(text), expected, "{text}");
        check("1970-01-01 00:00:00", Some(0));
        check("2023-11-16 18:17:03.9799600", Some(1_700_158_623_979_960_000));
        check("2024-05-10 00:00:00.009930+00:00", Some(1_715_299_200_009_930_000));
        check("2024-05-10 00:00:00+00:00", Some(1_715_299_200_000_000_000));
        check("2024-05-10 02:30:00+02:30", Some(1_715_299_200_000_000_000));
        check("2024-10-15T12:00:05.819Z", Some(1_728_993_605_819_000_000));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000_000));
        for bad in ["", "2024-05-10", "2024-13-10 00:00:00", "2024-05-10 00:00:0x", "2024-05-10 00:00:00.5.5"] {
            check(bad, None);
        }
        check("2024-05-10 00:00:00é", None);
    }
}
