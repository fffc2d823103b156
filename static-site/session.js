// Who uses the page, guest or member, with AWS credentials, kept as long as the tab is open.

import { Failure, deviceTime, read, send, stage } from './stage.js';

const LOGINS_KEY = 'cognito-identity.amazonaws.com';
const REFRESH_AHEAD = 5 * 60_000;

let people = restore();
let pending;

/** The member who is logged in, or null. */
export function member() {
  if (people.member?.endsAt <= Date.now()) leave();
  return people.member ?? null;
}

/** Begins a session with what login answered. */
export async function enter({ email, identityId, token }) {
  const { identityPoolId } = await stage();
  replace({ identityPoolId, member: { email, identityId, token, endsAt: expiryOf(token) } });
}

/** Ends the session. */
export function leave() {
  replace({ identityPoolId: people.identityPoolId });
}

/** Credentials of the member, else of a guest, good for some minutes at least. */
export async function credentials() {
  const { identityPoolId } = await stage();
  // A tab may outlive the stage that it was opened on.
  if (people.identityPoolId !== identityPoolId) replace({ identityPoolId });
  const person = member() ?? (people.guest ??= {});
  if (person.credentials?.expiresAt > Date.now() + REFRESH_AHEAD) return person.credentials;
  pending ??= renew(person, identityPoolId).finally(() => (pending = undefined));
  return pending;
}

/** Forgets credentials that the stage refused. */
export function discardCredentials() {
  if (people.member) people.member.credentials = undefined;
  people.guest = undefined;
}

async function renew(person, IdentityPoolId) {
  const { identityId, token } = person;
  try {
    person.identityId ??= (await cognito('GetId', { IdentityPoolId })).IdentityId;
    const { Credentials } = await cognito('GetCredentialsForIdentity', {
      IdentityId: person.identityId,
      Logins: token && { [LOGINS_KEY]: token },
    });
    person.credentials = {
      accessKeyId: Credentials.AccessKeyId,
      secretAccessKey: Credentials.SecretKey,
      sessionToken: Credentials.SessionToken,
      expiresAt: deviceTime(Credentials.Expiration),
    };
  } catch (failure) {
    // Token or identity is no longer good: start afresh, as a guest.
    if (!identityId || !/NotAuthorized|ResourceNotFound/.test(failure.message)) throw failure;
    leave();
    throw new Failure('expired', failure.message);
  }
  save();
  return person.credentials;
}

async function cognito(operation, input) {
  const { endpoints } = await stage();
  const request = new Request(new URL('/', endpoints.cognitoIdentity), {
    method: 'POST',
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': `AWSCognitoIdentityService.${operation}`,
    },
    body: JSON.stringify(input),
  });
  return read(await send(request));
}

function expiryOf(token) {
  const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
  return deviceTime(JSON.parse(atob(payload)).exp);
}

function replace(others) {
  people = others;
  pending = undefined;
  save();
}

// Where nothing can be stored, a session lasts as long as the page.
function save() {
  try {
    sessionStorage.portcullis = JSON.stringify(people);
  } catch {}
}

function restore() {
  try {
    return JSON.parse(sessionStorage.portcullis);
  } catch {
    return {};
  }
}
