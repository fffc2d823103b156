//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), spread over two calls that share no state: what the second
//! must know of the first is in the server nonce, under a MAC.

use std::fmt;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::password::Password;
use crate::{Email, Seconds};

/// A message that is not SCRAM as the service speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM message of the expected form")]
pub struct Malformed;

/// The stage's secret, as the two keys that are derived from it.
#[derive(Clone)]
pub struct StageKey {
    salt: [u8; 32],
    challenge: [u8; 32],
}

impl StageKey {
    /// Reads 32 bytes in base64url; `None` when it is something else.
    pub fn parse(text: &str) -> Option<StageKey> {
        let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        let derivation = Hkdf::<Sha256>::new(None, <&[u8; 32]>::try_from(key.as_slice()).ok()?);
        let derive = |label: &[u8]| {
            let mut derived = [0; 32];
            derivation.expand(label, &mut derived).ok().map(|()| derived)
        };
        Some(StageKey { salt: derive(b"salt")?, challenge: derive(b"challenge")? })
    }

    /// The salt of an address, whether or not it has an account.
    fn salt_of(&self, email: &Email) -> [u8; 16] {
        let mac = mac(&self.salt, &[email.as_str().as_bytes()]);
        std::array::from_fn(|i| mac[i])
    }

    /// Over lengths too, so that no two exchanges give the same bytes.
    fn challenge_mac(&self, client_first: &ClientFirst, issued_and_random: &[u8]) -> [u8; 32] {
        let (email, bare) = (client_first.email.as_str().as_bytes(), client_first.bare.as_bytes());
        let lengths = [(email.len() as u64).to_be_bytes(), (bare.len() as u64).to_be_bytes()];
        mac(&self.challenge, &[&lengths[0], email, &lengths[1], bare, issued_and_random])
    }
}

impl fmt::Debug for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StageKey(..)")
    }
}

/// What is stored of a password. Its text is PostgreSQL's (`src/common/scram-common.c`):
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Derives the verifier of an account's password; with 600,000 iterations some 0.1 s of one core.
    pub fn derive(key: &StageKey, email: &Email, password: &Password, iterations: u64) -> Verifier {
        Verifier::from_parts(password, &key.salt_of(email), u32::try_from(iterations).unwrap_or(u32::MAX))
    }

    /// What an address without an account is challenged with: as a verifier of its own would, and no password fits it.
    pub fn decoy(key: &StageKey, email: &Email, iterations: u64) -> Verifier {
        Verifier {
            iterations: u32::try_from(iterations).unwrap_or(u32::MAX),
            salt: key.salt_of(email).to_vec(),
            stored_key: mac(&key.challenge, &[b"decoy"]),
            server_key: mac(&key.challenge, &[b"decoy server"]),
        }
    }

    fn from_parts(password: &Password, salt: &[u8], iterations: u32) -> Verifier {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, iterations, &mut salted).unwrap_or_default();
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(mac(&salted, &[b"Client Key"])).into(),
            server_key: mac(&salted, &[b"Server Key"]),
        }
    }

    /// Whether it is the verifier of this password; as slow as `derive`.
    pub fn fits(&self, password: &Password) -> bool {
        let given = Verifier::from_parts(password, &self.salt, self.iterations);
        given.stored_key.ct_eq(&self.stored_key).into()
    }

    pub(crate) fn parse(text: &str) -> Option<Verifier> {
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Verifier {
            iterations: iterations.parse().ok()?,
            salt: decode(salt)?,
            stored_key: decode(stored_key)?.try_into().ok()?,
            server_key: decode(server_key)?.try_into().ok()?,
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }

    fn server_first(&self, nonce: &str) -> String {
        format!("r={nonce},s={},i={}", BASE64_STANDARD.encode(&self.salt), self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// The first message of a login, `n,,n=<address>,r=<nonce>`.
///
/// Refused: channel binding (`p=`), an authorization identity, mandatory (`m=`) and other extensions, a nonce of fewer
/// than 16 or more than 128 characters, and an address in another form than the one that is stored.
#[derive(Clone)]
pub struct ClientFirst {
    email: Email,
    gs2_header: &'static str,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    pub fn parse(text: &str) -> Result<ClientFirst, Malformed> {
        let headers = ["n,,", "y,,"];
        let gs2_header = headers.into_iter().find(|header| text.starts_with(header)).ok_or(Malformed)?;
        let bare = &text[gs2_header.len()..];
        let (name, nonce) = bare.strip_prefix("n=").and_then(|rest| rest.split_once(",r=")).ok_or(Malformed)?;
        let is_nonce = (16..=128).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_graphic() && b != b',');

        let name = decode_saslname(name).ok_or(Malformed)?;
        let email = Email::parse(&name).ok().filter(|email| email.as_str() == name).ok_or(Malformed)?;
        let first = ClientFirst { email, gs2_header, bare: bare.to_owned(), nonce: nonce.to_owned() };
        is_nonce.then_some(first).ok_or(Malformed)
    }

    pub fn email(&self) -> &Email {
        &self.email
    }

    /// The answer to it, `r=<both nonces>,s=<salt>,i=<iterations>`.
    pub fn challenge(&self, key: &StageKey, verifier: &Verifier, now: Seconds, random: [u8; 16]) -> String {
        let mut server_nonce = [now.to_be_bytes().as_slice(), &random].concat();
        server_nonce.extend(key.challenge_mac(self, &server_nonce));
        verifier.server_first(&format!("{}{}", self.nonce, BASE64_URL_SAFE_NO_PAD.encode(server_nonce)))
    }
}

/// RFC 5802, 5.1: `,` and `=` are written `=2C` and `=3D`, and `=` stands for nothing else.
fn decode_saslname(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut decoded = pieces.next().filter(|piece| !piece.contains(','))?.to_owned();
    for piece in pieces {
        let (letter, rest) = match piece.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        if rest.contains(',') {
            return None;
        }
        decoded.push(letter);
        decoded.push_str(rest);
    }
    Some(decoded)
}

/// The second message of a login, `c=<gs2 header>,r=<both nonces>,p=<proof>`, as an answer to its first.
#[derive(Clone)]
pub struct ClientFinal {
    first: ClientFirst,
    without_proof: String,
    nonce: String,
    proof: [u8; 32],
}

/// A challenge that was issued here, to this address, for this first message.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    issued: Seconds,
    random: [u8; 16],
}

impl ClientFinal {
    pub fn parse(first: ClientFirst, text: &str) -> Result<ClientFinal, Malformed> {
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed)?;
        let (binding, nonce) =
            without_proof.strip_prefix("c=").and_then(|rest| rest.split_once(",r=")).ok_or(Malformed)?;
        let proof = BASE64_STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(Malformed)?;
        let answers = binding == BASE64_STANDARD.encode(first.gs2_header) && nonce.starts_with(&first.nonce);
        let parsed = ClientFinal { without_proof: without_proof.to_owned(), nonce: nonce.to_owned(), proof, first };
        answers.then_some(parsed).ok_or(Malformed)
    }

    pub fn email(&self) -> &Email {
        &self.first.email
    }

    /// The challenge that it answers, or `None` when that was not issued here or is older than `max_age`.
    pub fn challenge(&self, key: &StageKey, now: Seconds, max_age: Seconds) -> Option<Challenge> {
        let server_nonce = BASE64_URL_SAFE_NO_PAD.decode(&self.nonce[self.first.nonce.len()..]).ok()?;
        let (issued_and_random, mac) = server_nonce.split_at_checked(24)?;
        let (issued, random) = issued_and_random.split_at(8);
        let is_ours: bool = key.challenge_mac(&self.first, issued_and_random).ct_eq(mac).into();

        let challenge =
            Challenge { issued: Seconds::from_be_bytes(issued.try_into().ok()?), random: random.try_into().ok()? };
        // Issued a moment from now: the clocks of two machines differ.
        let is_fresh = now.saturating_sub(max_age) <= challenge.issued && challenge.issued <= now + max_age;
        (is_ours && is_fresh).then_some(challenge)
    }

    /// The server's own proof, `v=<signature>`, when the client's one fits the verifier.
    pub fn prove(&self, verifier: &Verifier) -> Option<String> {
        let server_first = verifier.server_first(&self.nonce);
        let auth_message = [&self.first.bare, ",", &server_first, ",", &self.without_proof].concat();
        let signature = mac(&verifier.stored_key, &[auth_message.as_bytes()]);
        let client_key: [u8; 32] = std::array::from_fn(|i| self.proof[i] ^ signature[i]);
        let fits: bool = Sha256::digest(client_key).as_slice().ct_eq(&verifier.stored_key).into();
        let server_signature = mac(&verifier.server_key, &[auth_message.as_bytes()]);
        fits.then(|| format!("v={}", BASE64_STANDARD.encode(server_signature)))
    }
}

/// The challenges of an account that were answered and are not yet too old to be answered again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedChallenges(Vec<String>);

impl UsedChallenges {
    pub(crate) fn stored(text: &str) -> UsedChallenges {
        UsedChallenges(text.split(' ').map(str::to_owned).collect())
    }

    /// `None` when there are none.
    pub(crate) fn to_text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join(" "))
    }

    pub(crate) fn contains(&self, challenge: &Challenge) -> bool {
        self.0.contains(&challenge.id())
    }

    /// With one more, and without those that have become too old to matter.
    pub(crate) fn with(&self, challenge: &Challenge, now: Seconds, max_age: Seconds) -> UsedChallenges {
        let issued = |id: &str| id.split_once('.').and_then(|(issued, _)| issued.parse::<Seconds>().ok());
        let still = self.0.iter().filter(|id| issued(id).is_some_and(|issued| issued + max_age >= now));
        UsedChallenges(still.cloned().chain([challenge.id()]).collect())
    }
}

impl Challenge {
    fn id(&self) -> String {
        format!("{}.{}", self.issued, BASE64_URL_SAFE_NO_PAD.encode(self.random))
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC pads a key with zeros to the block of the hash (RFC 2104, 2).
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Vector {
        password: String,
        salt: String,
        iterations: u32,
        client_first: String,
        server_first: String,
        client_final: String,
        server_final: String,
    }

    /// The first vector is that of RFC 7677, 3, whose user is no address: it is rebuilt by hand.
    fn first_of(vector: &Vector) -> ClientFirst {
        ClientFirst::parse(&vector.client_first).unwrap_or_else(|_| {
            let bare = vector.client_first.strip_prefix("n,,").expect("a gs2 header");
            let (_, nonce) = bare.split_once(",r=").expect("a nonce");
            let email = Email::parse("user@example.com").expect("an address");
            ClientFirst { email, gs2_header: "n,,", bare: bare.to_owned(), nonce: nonce.to_owned() }
        })
    }

    fn vectors() -> Vec<Vector> {
        serde_json::from_str(include_str!("../vectors/scram.json")).expect("a list of vectors")
    }

    fn verifier_of(vector: &Vector) -> Verifier {
        let password = Password::prepare(&vector.password).expect("a password");
        Verifier::from_parts(&password, &BASE64_STANDARD.decode(&vector.salt).expect("base64"), vector.iterations)
    }

    #[test]
    fn the_vectors_of_rfc_7677_and_ours_are_proven() {
        for vector in vectors() {
            let verifier = verifier_of(&vector);
            let last = ClientFinal::parse(first_of(&vector), &vector.client_final).expect("a message");
            assert_eq!(verifier.server_first(&last.nonce), vector.server_first);
            assert_eq!(last.prove(&verifier), Some(vector.server_final));
        }
    }

    #[test]
    fn the_verifier_is_postgresqls_text() {
        // The verifier of RFC 7677's user as PostgreSQL stores it (`pg_authid.rolpassword`), computed apart from us.
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let verifier = verifier_of(&vectors()[0]);
        assert_eq!(verifier.to_text(), text);
        assert_eq!(Verifier::parse(text), Some(verifier));
        for bad in ["", "md5abc", "SCRAM-SHA-256$x:AA==$AA==:AA==", &text[..text.len() - 4], &text.replace('$', ":")] {
            assert_eq!(Verifier::parse(bad), None, "{bad}");
        }
    }

    const NOW: Seconds = 1_800_000_000;
    const NONCE: &str = "0123456789abcdefghij";

    fn key() -> StageKey {
        StageKey::parse(&BASE64_URL_SAFE_NO_PAD.encode([7; 32])).expect("a key")
    }

    fn first(email: &str) -> ClientFirst {
        ClientFirst::parse(&format!("n,,n={email},r={NONCE}")).expect("a message")
    }

    /// What an honest browser would send, and its verifier.
    fn exchange() -> (Verifier, String) {
        let first = first("ada@example.com");
        let password = Password::prepare("violet tram scarf monsoon").expect("a password");
        let verifier = Verifier::derive(&key(), first.email(), &password, 600_000);
        let server_first = first.challenge(&key(), &verifier, NOW, [9; 16]);
        let nonce = server_first[2..].split(',').next().expect("a nonce");

        let mut salted = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), &verifier.salt, 600_000, &mut salted).expect("derived");
        let client_key = mac(&salted, &[b"Client Key"]);
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", first.bare);
        let signature = mac(&Sha256::digest(client_key).into(), &[message.as_bytes()]);
        let proof: [u8; 32] = std::array::from_fn(|i| client_key[i] ^ signature[i]);
        (verifier, format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)))
    }

    #[test]
    fn an_honest_answer_is_proven_and_another_is_not() {
        let (verifier, client_final) = exchange();
        let last = ClientFinal::parse(first("ada@example.com"), &client_final).expect("a message");
        assert!(last.challenge(&key(), NOW, 60).is_some());
        assert!(last.prove(&verifier).is_some_and(|v| v.starts_with("v=")));

        let mut wrong = last.clone();
        wrong.proof[31] ^= 1;
        assert_eq!(wrong.prove(&verifier), None);
        assert_eq!(last.prove(&Verifier::decoy(&key(), last.email(), 600_000)), None);
    }

    #[test]
    fn a_challenge_is_good_for_its_time_its_address_and_its_first_message_only() {
        let (_, client_final) = exchange();
        let challenge = |first: ClientFirst, now| {
            ClientFinal::parse(first, &client_final).expect("a message").challenge(&key(), now, 60)
        };
        assert!(challenge(first("ada@example.com"), NOW + 60).is_some());
        assert!(challenge(first("ada@example.com"), NOW + 61).is_none());
        assert!(challenge(first("bob@example.com"), NOW).is_none());
        let shorter = ClientFirst::parse("n,,n=ada@example.com,r=0123456789abcdefghi").expect("a message");
        assert!(challenge(shorter, NOW).is_none());
    }

    #[test]
    fn a_challenge_of_another_stage_or_altered_is_not_ours() {
        let (_, client_final) = exchange();
        let last = ClientFinal::parse(first("ada@example.com"), &client_final).expect("a message");
        let other = StageKey::parse(&BASE64_URL_SAFE_NO_PAD.encode([8; 32])).expect("a key");
        assert!(last.challenge(&other, NOW, 60).is_none());

        let altered =
            ClientFinal { nonce: format!("{NONCE}{}", BASE64_URL_SAFE_NO_PAD.encode([0; 56])), ..last.clone() };
        assert!(altered.challenge(&key(), NOW, 60).is_none());
        for nonce in ["", "x", "!!!!"] {
            let short = ClientFinal { nonce: format!("{NONCE}{nonce}"), ..last.clone() };
            assert!(short.challenge(&key(), NOW, 60).is_none());
        }
    }

    #[test]
    fn known_and_unknown_addresses_are_challenged_alike() {
        let first = first("ada@example.com");
        let password = Password::prepare("violet tram scarf monsoon").expect("a password");
        let known = Verifier::derive(&key(), first.email(), &password, 600_000);
        let unknown = Verifier::decoy(&key(), first.email(), 600_000);
        let challenge = |verifier| first.challenge(&key(), verifier, NOW, [9; 16]);
        assert_eq!(challenge(&known), challenge(&unknown));
    }

    #[test]
    fn the_salt_depends_on_address_and_stage() {
        let email = |text| Email::parse(text).expect("an address");
        let other = StageKey::parse(&BASE64_URL_SAFE_NO_PAD.encode([8; 32])).expect("a key");
        let salts = [
            key().salt_of(&email("a@example.com")),
            key().salt_of(&email("b@example.com")),
            other.salt_of(&email("a@example.com")),
        ];
        assert!(salts[0] != salts[1] && salts[0] != salts[2]);
        assert_eq!(salts[0], key().salt_of(&email("A@Example.com")));
    }

    #[test]
    fn what_the_service_does_not_speak_is_refused() {
        for text in [
            "",
            "n,,",
            "p=tls-unique,,n=ada@example.com,r=0123456789abcdefghij",
            "n,a=eve@example.com,n=ada@example.com,r=0123456789abcdefghij",
            "n,,m=ext,n=ada@example.com,r=0123456789abcdefghij",
            "n,,n=ada@example.com,r=0123456789abcdefghij,x=1",
            "n,,n=ada@example.com,r=short",
            "n,,n=ada@example.com,r=",
            "n,,n=ada@example.com",
            "n,,n=Ada@example.com,r=0123456789abcdefghij",
            "n,, n=ada@example.com,r=0123456789abcdefghij",
            "n,,n=ada,r=0123456789abcdefghij",
            "n,,n=a=2cb@example.com,r=0123456789abcdefghij",
            "n,,n=a=b@example.com,r=0123456789abcdefghij",
            "n,,n=ada@example.com,r=0123456789 abcdefghij",
            "n,,n=ada@example.com,r=0123456789ébcdefghij",
            "x,,n=ada@example.com,r=0123456789abcdefghij",
        ] {
            assert!(ClientFirst::parse(text).is_err(), "{text}");
        }
        let too_long = format!("n,,n=ada@example.com,r={}", "r".repeat(129));
        assert!(ClientFirst::parse(&too_long).is_err());
        assert!(ClientFirst::parse(&format!("y,,n=ada@example.com,r={NONCE}")).is_ok());
    }

    #[test]
    fn a_name_is_decoded() {
        assert_eq!(first("a=3Db@example.com").email().as_str(), "a=b@example.com");
        assert_eq!(decode_saslname("a=2Cb=3D").as_deref(), Some("a,b="));
        for bad in ["a=", "a=2", "a=2c", "=3", "a=é", "a,b", "a=3D,"] {
            assert_eq!(decode_saslname(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_final_message_must_answer_its_first() {
        let (_, good) = exchange();
        let bad = [
            String::new(),
            good.replace("c=biws", "c=eSws"),
            good.replace("c=biws", "c="),
            good.replace(NONCE, "another"),
            good.replace(",p=", ",p=AA"),
            good.replace(",p=", ",q="),
            good[..good.len() - 3].to_owned(),
            format!("{good},x=1"),
        ];
        for text in bad {
            assert!(ClientFinal::parse(first("ada@example.com"), &text).is_err(), "{text}");
        }
        // "c=" is the gs2 header that was sent, here "y,,".
        let y = ClientFirst::parse(&format!("y,,n=ada@example.com,r={NONCE}")).expect("a message");
        assert!(ClientFinal::parse(y, &good.replace("c=biws", "c=eSws")).is_ok());
    }

    #[test]
    fn used_challenges_are_known_until_they_are_too_old_to_be_answered() {
        let challenge = |issued| Challenge { issued, random: [issued as u8; 16] };
        let used = UsedChallenges::default().with(&challenge(NOW), NOW, 60).with(&challenge(NOW + 1), NOW + 50, 60);
        assert!(used.contains(&challenge(NOW)) && used.contains(&challenge(NOW + 1)));
        let text = used.to_text().expect("some");
        assert_eq!(UsedChallenges::stored(&text), used);
        let later = used.with(&challenge(NOW + 61), NOW + 61, 60);
        assert!(!later.contains(&challenge(NOW)) && later.contains(&challenge(NOW + 1)));
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?}", key(), verifier_of(&vectors()[0]));
        assert_eq!(shown, "StageKey(..) Verifier(..)");
    }
}
