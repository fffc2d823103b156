use std::fmt;

/// An email address in the form that is stored, mailed to and logged in with: ASCII, trimmed, lower case throughout,
/// plus-tags kept, at most 254 characters (RFC 5321, 4.5.3.1.3 less the angle brackets).
///
/// Quoted local parts and address literals are refused: nobody signs up with one, and SES is particular about them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// Not an address of the kind that the service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an email address")]
pub struct InvalidEmail;

impl Email {
    pub fn parse(text: &str) -> Result<Email, InvalidEmail> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let acceptable = text.is_ascii()
            && text.len() <= 254
            && local.len() <= 64
            && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom_text))
            && domain.contains('.')
            && domain.split('.').all(is_label);
        acceptable.then(|| Email(text.to_ascii_lowercase())).ok_or(InvalidEmail)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `atext` of RFC 5322, 3.2.3.
fn is_atom_text(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Addresses stay out of logs, and so out of what is printed by accident.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_trimmed_and_lower_cased_whole_with_its_tag_kept() {
        let email = Email::parse("  Ada.Lovelace+Books@Example.COM\n").expect("an address");
        assert_eq!(email.as_str(), "ada.lovelace+books@example.com");
    }

    #[test]
    fn an_address_may_hold_what_others_forget() {
        for text in ["o'brien@example.ie", "a=b,@example.com", "x@a-b.example", "n/1@example.com"] {
            assert_eq!(Email::parse(text).is_ok(), !text.contains(','), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}com", "abcdefghi.".repeat(26));
        for text in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "ada@@example.com",
            "a b@example.com",
            "ada@exa mple.com",
            "ada@-a.com",
            "ada@a-.com",
            "ada@a..com",
            ".ada@example.com",
            "ada.@example.com",
            "a..b@example.com",
            "\"a\"@example.com",
            "ada@[127.0.0.1]",
            "ädä@example.com",
            "ada@exämple.com",
            "ada@example.com\nBcc: eve@example.com",
            "ada@example.com,eve@example.com",
            "Ada <ada@example.com>",
            "ada@example.com\0",
            &long_local,
            &long,
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail), "{text:?}");
        }
    }
}
