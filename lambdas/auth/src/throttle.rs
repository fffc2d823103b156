//! How often: decided over counters that live in the item of a user.

use crate::Seconds;

/// Failed logins in a row. Five are free, then the next must wait 1, 2, 4 … 900 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginThrottle {
    pub(crate) failures: u64,
    pub(crate) allowed_at: Seconds,
}

const FREE_FAILURES: u64 = 5;
const LONGEST_WAIT: Seconds = 900;

impl LoginThrottle {
    pub fn allows(&self, now: Seconds) -> bool {
        self.allowed_at <= now
    }

    /// With one more attempt, counted as failed until it is known to be right.
    pub fn counted(&self, now: Seconds) -> LoginThrottle {
        let failures = self.failures.saturating_add(1);
        let wait = match failures.checked_sub(FREE_FAILURES) {
            None => 0,
            Some(doublings) => LONGEST_WAIT.min(1 << doublings.min(10)),
        };
        LoginThrottle { failures, allowed_at: now + wait }
    }
}

/// When mails of one kind went to an address, within the last day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailLog(pub(crate) Vec<Seconds>);

const MINUTE: Seconds = 60;
const HOUR: Seconds = 60 * MINUTE;
const DAY: Seconds = 24 * HOUR;

impl MailLog {
    /// At most one a minute, five an hour and ten a day.
    pub fn allows(&self, now: Seconds) -> bool {
        let sent_within = |period| self.0.iter().filter(|sent| **sent + period > now).count();
        sent_within(MINUTE) < 1 && sent_within(HOUR) < 5 && sent_within(DAY) < 10
    }

    /// With a mail that is sent now.
    pub fn with(&self, now: Seconds) -> MailLog {
        let recent = self.0.iter().copied().filter(|sent| sent + DAY > now);
        MailLog(recent.chain([now]).collect())
    }
}

/// The hash key of the item that counts the mails of the whole stage: no address looks like it.
///
/// Its attributes: `hour` (hours since 1970) and `sent` (mails in that hour).
pub const BUDGET_KEY: &str = "#mails";

/// The hour that the budget of a moment belongs to.
pub fn budget_hour(now: Seconds) -> u64 {
    now / HOUR
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1_800_000_000;

    #[test]
    fn five_failures_are_free_and_then_the_wait_doubles_up_to_a_quarter_of_an_hour() {
        let mut throttle = LoginThrottle::default();
        let waits: Vec<u64> = (0..18)
            .map(|_| {
                throttle = throttle.counted(NOW);
                throttle.allowed_at - NOW
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]);
        assert!(!throttle.allows(NOW + 899) && throttle.allows(NOW + 900));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let throttle = LoginThrottle { failures: u64::MAX, allowed_at: 0 };
        assert_eq!(throttle.counted(NOW).allowed_at, NOW + 900);
    }

    #[test]
    fn a_kind_of_mail_goes_out_once_a_minute() {
        let log = MailLog::default().with(NOW);
        assert!(!log.allows(NOW) && !log.allows(NOW + 59) && log.allows(NOW + 60));
    }

    #[test]
    fn five_mails_an_hour_and_ten_a_day_are_the_most() {
        let sent_every =
            |seconds: Seconds, times: u64| (0..times).fold(MailLog::default(), |log, i| log.with(NOW + i * seconds));
        let five = sent_every(60, 5);
        assert!(!five.allows(NOW + 3599) && five.allows(NOW + 3600));
        let ten = sent_every(3600, 10);
        assert!(!ten.allows(NOW + DAY - 1) && ten.allows(NOW + DAY));
    }

    #[test]
    fn only_the_mails_of_a_day_are_kept() {
        let log = (0..20).fold(MailLog::default(), |log, i| log.with(NOW + i * DAY));
        assert_eq!(log.0.len(), 1);
    }
}
