//! `strftime_now`, which some templates write today's date with. In UTC, as the engines' containers are.

use std::time::SystemTime;

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A time by a format of C's `strftime`; `None` for a conversion that is not known here, or a time before 1970.
pub(super) fn strftime(time: SystemTime, format: &str) -> Option<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (weekday, name) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    let mut written = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            written.push(c);
            continue;
        }
        written += &match rest.next()? {
            'Y' => year.to_string(),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'B' => name.to_owned(),
            'b' => name[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'H' => format!("{:02}", of_day / 3600),
            'M' => format!("{:02}", of_day / 60 % 60),
            'S' => format!("{:02}", of_day % 60),
            'F' => format!("{year}-{month:02}-{day:02}"),
            '%' => "%".to_owned(),
            _ => return None,
        };
    }
    Some(written)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Thursday 01 Jan 1970 00:00:00"),
            (951_782_400 + 3_661, "Tuesday 29 Feb 2000 01:01:01"),
            (1_722_000_000, "Friday 26 Jul 2024 13:20:00"),
            (4_102_444_799, "Thursday 31 Dec 2099 23:59:59"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(strftime(time, "%A %d %b %Y %H:%M:%S").as_deref(), Some(expected));
        }
        assert_eq!(strftime(SystemTime::UNIX_EPOCH, "%Q"), None);
    }
}
