use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a link carries: 32 random bytes, 43 characters of base64url.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn new(random: [u8; 32]) -> Token {
        Token(BASE64_URL_SAFE_NO_PAD.encode(random))
    }

    /// `None` when it can't be a token, such as a link that lost its end.
    pub fn parse(text: &str) -> Option<Token> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Token(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&self.0)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What is stored of a token, and looked up in an index: the SHA-256 of its text, in base64url.
#[derive(Clone, Eq)]
pub struct TokenHash(String);

impl TokenHash {
    pub(crate) fn stored(text: &str) -> TokenHash {
        TokenHash(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &TokenHash) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_fit_for_a_link_and_comes_back_from_it() {
        let token = Token::new([0xff; 32]);
        assert_eq!(token.as_str().len(), 43);
        assert!(token.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let back = Token::parse(token.as_str()).expect("a token");
        assert_eq!(back.hash(), token.hash());
    }

    #[test]
    fn only_the_hash_of_its_text_is_stored() {
        let token = Token::new([0; 32]);
        // By Python's hashlib, over 43 times the letter A.
        assert_eq!(token.hash().as_str(), "DwBzhbb51LfusnSGBa_hqYSgo7-j8BTQnip4TOnlzRo");
        assert!(!format!("{token:?} {:?}", token.hash()).contains("AAA"));
    }

    #[test]
    fn garbage_is_no_token() {
        let token = Token::new([1; 32]);
        for text in ["", "x", "%", &token.as_str()[1..], &format!("{}A", token.as_str()), &"é".repeat(43)] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }
}
