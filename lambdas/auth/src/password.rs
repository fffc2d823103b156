//! Passwords as their owners type them: how they are prepared, and which are accepted.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use crate::Email;
use crate::settings::Limits;

/// A password prepared by the OpaqueString profile (RFC 8265, 4.2): non-ASCII spaces become U+0020, then NFC; empty
/// ones and those with a control character (Cc) are refused.
///
/// Of the profile's base class (RFC 8264, FreeformClass) only the controls are refused, not what Unicode 6.3 had not
/// assigned, nor joiners: the browser prepares in the same way and has no such tables, and both are in today's emoji.
/// That is why the crate `precis-profiles`, which refuses them, is not used.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// `None` when the text can't be a password.
    pub fn prepare(text: &str) -> Option<Password> {
        let spaced = text.chars().map(|c| if is_space_separator(c) { ' ' } else { c });
        let prepared: String = spaced.nfc().collect();
        let acceptable = !prepared.is_empty() && !prepared.contains(char::is_control);
        acceptable.then_some(Password(prepared))
    }

    /// The bytes that key derivation starts from.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Unicode's category Zs, unchanged since Unicode 6.3.
fn is_space_separator(c: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Why a call was refused, as a stable code that pages have a text for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Not an email address.
    InvalidEmail,
    /// The password is empty, or holds a control character.
    NotAllowed,
    TooShort,
    TooLong,
    /// zxcvbn finds it too easy to guess.
    TooWeak,
    /// It is the address, or little more than a part of it.
    ContainsEmail,
    /// The old password does not match, or too many attempts came before this one.
    WrongPassword,
    /// The account is not the caller's, or there is none.
    NotYours,
    /// The link was used, replaced, ran out, or never was one.
    LinkExpired,
}

/// Judges a new password for an account: prepared when it is acceptable, all that is wrong with it otherwise.
pub fn judge(text: &str, email: &Email, limits: &Limits) -> Result<Password, Vec<Reason>> {
    let password = Password::prepare(text).ok_or_else(|| vec![Reason::NotAllowed])?;
    let length = password.0.chars().count() as u64;
    if length < limits.password_min_length {
        return Err(vec![Reason::TooShort]);
    }
    // Before zxcvbn, whose time grows with the square of the length.
    if length > limits.password_max_length {
        return Err(vec![Reason::TooLong]);
    }

    let mut reasons = Vec::new();
    if is_derived(&password.0, email) {
        reasons.push(Reason::ContainsEmail);
    }
    if score(&password.0, email) < limits.password_min_score {
        reasons.push(Reason::TooWeak);
    }
    if reasons.is_empty() { Ok(password) } else { Err(reasons) }
}

/// Fewer than eight characters are left once the address and its pieces are taken out of it.
fn is_derived(password: &str, email: &Email) -> bool {
    let password = password.to_lowercase();
    let own = parts(email).filter(|part| part.len() >= 3).fold(password.clone(), |own, part| own.replace(part, ""));
    own != password && own.chars().count() < 8
}

fn score(password: &str, email: &Email) -> u64 {
    let inputs: Vec<&str> = parts(email).chain(["portcullis"]).collect();
    // zxcvbn looks at the first 100 characters; the rest can only make a password better.
    u64::from(u8::from(zxcvbn::zxcvbn(password, &inputs).score()))
}

/// The address and its pieces, as a password might be made of them.
fn parts(email: &Email) -> impl Iterator<Item = &str> {
    let whole = email.as_str();
    let sides = whole.split('@');
    [whole].into_iter().chain(sides).chain(whole.split(|c: char| !c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        input: String,
        output: Option<String>,
    }

    #[test]
    fn passwords_are_prepared_as_in_the_browser() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../vectors/opaque_string.json")).expect("a list of vectors");
        for Vector { input, output } in vectors {
            assert_eq!(Password::prepare(&input).map(|password| password.0), output, "{input:?}");
        }
    }

    #[test]
    fn a_prepared_password_stays_as_it_is_when_prepared_again() {
        let once = Password::prepare("A\u{30a}\u{2003}b").expect("a password");
        assert_eq!(Password::prepare(&once.0), Some(once));
    }

    fn judged(text: &str) -> Result<(), Vec<Reason>> {
        let email = Email::parse("ada.lovelace@engine.example").expect("an address");
        judge(text, &email, &Limits::default()).map(|_| ())
    }

    #[test]
    fn a_few_unrelated_words_are_accepted() {
        assert_eq!(judged("violet tram scarf monsoon"), Ok(()));
        assert_eq!(judged("三月のライオンが部屋で歌う"), Ok(()));
    }

    #[test]
    fn length_counts_code_points_at_both_ends() {
        assert_eq!(judged("vq7#Lw!pz9K"), Err(vec![Reason::TooShort]));
        assert_eq!(judged("vq7#Lw!pz9Kx"), Ok(()));
        assert_eq!(judged("éééééééé"), Err(vec![Reason::TooShort]));
        assert_eq!(judged(&"vq7#Lw!pé9Kx%tR3".repeat(16)), Ok(()));
        assert_eq!(judged(&format!("{}x", "vq7#Lw!pé9Kx%tR3".repeat(16))), Err(vec![Reason::TooLong]));
    }

    #[test]
    fn what_is_easy_to_guess_is_refused() {
        for text in ["passwordpassword", "aaaaaaaaaaaaaaaa", "qwertyuiop123", "123456789012", "portcullis2026"] {
            assert_eq!(judged(text), Err(vec![Reason::TooWeak]), "{text}");
        }
    }

    #[test]
    fn what_is_derived_from_the_address_is_refused() {
        for text in [
            "ada.lovelace@engine.example",
            "Ada.Lovelace@Engine.Example",
            "ada.lovelace@engine.example!9",
            "lovelace#V9q!",
            "Ada.Lovelace-7xQ",
        ] {
            let reasons = judged(text).expect_err("derived");
            assert!(reasons.contains(&Reason::ContainsEmail), "{text}: {reasons:?}");
        }
        assert_eq!(judged("lovelace tram scarf monsoon violet"), Ok(()));
    }

    #[test]
    fn a_control_character_is_not_allowed() {
        assert_eq!(judged("violet tram\tscarf monsoon"), Err(vec![Reason::NotAllowed]));
        assert_eq!(judged(""), Err(vec![Reason::NotAllowed]));
    }

    #[test]
    fn reasons_are_stable_codes() {
        use Reason::*;
        let all =
            [InvalidEmail, NotAllowed, TooShort, TooLong, TooWeak, ContainsEmail, WrongPassword, NotYours, LinkExpired];
        let codes = r#"["invalidEmail","notAllowed","tooShort","tooLong","tooWeak","containsEmail","wrongPassword","notYours","linkExpired"]"#;
        assert_eq!(serde_json::to_string(&all).expect("JSON"), codes);
    }
}
