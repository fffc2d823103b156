// The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677).

const GS2_HEADER = 'n,,';
const FEWEST_ITERATIONS = 4096;
const MOST_ITERATIONS = 10_000_000;

/** A password prepared by OpaqueString (RFC 8265), as on the other side, or null when it can't be one. */
export function opaqueString(password) {
  const prepared = password.replace(/\p{Zs}/gu, ' ').normalize('NFC');
  // A lone surrogate (Cs) has no UTF-8 form.
  return /^$|[\p{Cc}\p{Cs}]/u.test(prepared) ? null : prepared;
}

/** Begins an exchange, with a prepared password. */
export function startLogin(email, password, nonce = freshNonce()) {
  const clientFirstBare = `n=${saslName(email)},r=${nonce}`;
  return {
    clientFirst: GS2_HEADER + clientFirstBare,

    async answer(serverFirst) {
      const challenge = parseChallenge(serverFirst, nonce);
      const withoutProof = `c=${btoa(GS2_HEADER)},r=${challenge.nonce}`;
      const authMessage = utf8(`${clientFirstBare},${serverFirst},${withoutProof}`);

      const salted = await saltedPassword(password, challenge);
      const clientKey = await hmac(salted, utf8('Client Key'));
      const storedKey = new Uint8Array(await crypto.subtle.digest('SHA-256', clientKey));
      const clientSignature = await hmac(storedKey, authMessage);
      const serverSignature = await hmac(await hmac(salted, utf8('Server Key')), authMessage);

      const proof = clientKey.map((byte, i) => byte ^ clientSignature[i]);
      return {
        clientFinal: `${withoutProof},p=${toBase64(proof)}`,
        /** Whether the server knows the verifier: nothing that it says counts before. */
        isProvenBy: (serverFinal) => serverFinal === `v=${toBase64(serverSignature)}`,
      };
    },
  };
}

function parseChallenge(serverFirst, clientNonce) {
  // A mandatory extension (`m=`) does not match either.
  const [, nonce, salt, count] = /^r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+=*),i=([1-9]\d*)$/.exec(serverFirst) ?? [];
  const iterations = Number(count);
  if (!nonce) throw new Error('The challenge is malformed.');
  if (!nonce.startsWith(clientNonce) || nonce.length === clientNonce.length) {
    throw new Error('The challenge is not an answer to this login.');
  }
  if (!(iterations >= FEWEST_ITERATIONS && iterations <= MOST_ITERATIONS)) {
    throw new Error('The challenge asks for too little or too much work.');
  }
  return { nonce, salt: fromBase64(salt), iterations };
}

async function saltedPassword(password, { salt, iterations }) {
  const key = await crypto.subtle.importKey('raw', utf8(password), 'PBKDF2', false, ['deriveBits']);
  const bits = await crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-256', salt, iterations }, key, 256);
  return new Uint8Array(bits);
}

async function hmac(key, data) {
  const hmacKey = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign('HMAC', hmacKey, data));
}

const saslName = (name) => name.replaceAll('=', '=3D').replaceAll(',', '=2C');
const freshNonce = () => toBase64(crypto.getRandomValues(new Uint8Array(18)));
const utf8 = (text) => new TextEncoder().encode(text);
const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));
const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
