//! The only place that reads clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::pool::Instant;

/// A monotonic clock that starts at zero, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the system's clock showed then, in microseconds.
    start: u64,
}

impl Clock {
    /// A clock that shows zero now.
    pub fn start() -> Clock {
        Clock { start: Clock::system_us() }
    }

    /// By the system's calls and not through `std`, which takes longer for its own arithmetic than
    /// for the reading.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock")]
    fn system_us() -> u64 {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
        tv_sec.cast_unsigned() * 1_000_000 + u64::from(part(tv_nsec) / 1000)
    }

    /// Time since the start.
    pub fn now(&self) -> Instant {
        Instant::from_micros(Clock::system_us() - self.start)
    }

    /// Unix time in milliseconds; 0 on a board whose clock stands before 1970.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn unix_ms() -> u64 {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
        u64::try_from(tv_sec).map_or(0, |s| s * 1000 + u64::from(part(tv_nsec) / 1_000_000))
    }
}

/// The nanoseconds behind a second. In 32 bits: no 32-bit board divides 64 by itself.
fn part(tv_nsec: i64) -> u32 {
    u32::try_from(tv_nsec).unwrap_or_default()
}

/// A point of time as people write it, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// The year.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
    /// 0 to 999.
    pub milli: u64,
}

impl CivilTime {
    /// The point so many milliseconds after the start of 1970.
    pub fn from_unix_ms(ms: u64) -> CivilTime {
        let seconds = ms / 1000;
        // Eras of 400 years that begin on 1 March, so that the leap day comes last.
        let shifted = seconds / 86_400 + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        CivilTime {
            year: era * 400 + year + u64::from(month <= 2),
            month,
            day,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            milli: ms % 1000,
        }
    }

    /// Seconds of Unix time; `None` before 1970 and for what is no time at all. A day that its month
    /// does not have is one of the next month.
    pub fn to_unix_s(self) -> Option<u64> {
        let CivilTime { year, month, day, hour, minute, second, .. } = self;
        if !(1..=12).contains(&month) || day == 0 || year > 9999 {
            return None;
        }
        let year = year.checked_sub(u64::from(month <= 2))?;
        let shifted = if month > 2 { month - 3 } else { month + 9 };
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * shifted + 2) / 5 + day;
        Some(days.checked_sub(719_469)? * 86_400 + hour * 3600 + minute * 60 + second)
    }

    /// `12/Mar/2020:19:03:58 +0000`
    pub fn to_common_log(self) -> String {
        let CivilTime { year, day, hour, minute, second, .. } = self;
        let month = self.month_name();
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }

    fn month_name(self) -> &'static str {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        usize::try_from(self.month - 1).map_or("", |month| MONTHS[month])
    }

    /// `Thu, 12 Mar 2020 19:03:58 GMT`
    pub fn to_http(self) -> [u8; 29] {
        const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
        let days = self.to_unix_s().unwrap_or_default() / 86_400;
        let weekday = usize::try_from(days % 7).map_or(b"   ", |weekday| DAYS[weekday]);
        let CivilTime { year, day, hour, minute, second, .. } = self;
        let month = self.month_name();
        let mut text = *b"   , 00     0000 00:00:00 GMT";
        [text[0], text[1], text[2]] = *weekday;
        for (place, byte) in text[8..11].iter_mut().zip(month.bytes()) {
            *place = byte;
        }
        let pairs =
            [(5, day), (12, year / 100), (14, year), (17, hour), (20, minute), (23, second)];
        for (at, number) in pairs {
            [text[at], text[at + 1]] = two_digits(number);
        }
        text
    }

    /// `2020-03-12T19:03:58.000Z`
    pub fn to_iso(self) -> String {
        let CivilTime { year, month, day, hour, minute, second, milli } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// The last two digits of a number.
fn two_digits(number: u64) -> [u8; 2] {
    let digit = |number: u64| b"0123456789"[usize::try_from(number % 10).unwrap_or_default()];
    [digit(number / 10), digit(number)]
}

#[cfg(test)]
mod tests {
    use super::CivilTime;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (days, date) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_780, "2026-11-23"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            let time = CivilTime::from_unix_ms(days * 86_400_000);
            assert_eq!(&time.to_iso()[..10], date);
            assert_eq!(time.to_unix_s(), Some(days * 86_400));
        }
        let time = CivilTime::from_unix_ms(1_584_039_838_007);
        assert_eq!(time.to_common_log(), "12/Mar/2020:19:03:58 +0000");
        assert_eq!(time.to_iso(), "2020-03-12T19:03:58.007Z");
        assert_eq!(&time.to_http(), b"Thu, 12 Mar 2020 19:03:58 GMT");
        assert_eq!(time.to_unix_s(), Some(1_584_039_838));
        assert_eq!(CivilTime { year: 1969, ..time }.to_unix_s(), None);
        assert_eq!(CivilTime { month: 13, ..time }.to_unix_s(), None);
    }
}
