// The stage of this page: its settings, its clock, and requests to it.

/** A failed request; a page has a text for its kind: offline, busy, clock, denied, expired, rejected, unproven, fault. */
export class Failure extends Error {
  constructor(kind, cause) {
    super(`${kind}: ${cause}`);
    this.kind = kind;
  }
}

let settings;
let clockOffset = 0;

/** The settings that `cargo up` wrote. */
export function stage() {
  settings ??= fetchSettings().catch((failure) => {
    settings = undefined;
    throw failure;
  });
  return settings;
}

/** The time by the stage's clock, which judges signatures. */
export const stageNow = () => new Date(Date.now() + clockOffset);

/** A time of the stage by this device's clock. */
export const deviceTime = (seconds) => seconds * 1000 - clockOffset;

export async function send(request) {
  try {
    return await fetch(request, { signal: AbortSignal.timeout(30_000) });
  } catch (error) {
    throw new Failure('offline', error.message);
  }
}

/** The JSON of a response, or the failure that an AWS error stands for. */
export async function read(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  // Lambda names the error in a header, Cognito in the body.
  const error = `${response.headers.get('x-amzn-errortype') ?? body.__type} ${body.message ?? body.Message}`;
  throw new Failure(kindOf(response.status, error), error);
}

function kindOf(status, error) {
  if (status === 429 || /TooManyRequests|Throttl/.test(error)) return 'busy';
  if (/TooSkewed|signature (expired|not yet)/i.test(error)) return 'clock';
  if (/ExpiredToken|UnrecognizedClient|InvalidClientTokenId|security token/.test(error)) return 'expired';
  return status === 403 || /AccessDenied|NotAuthorized/.test(error) ? 'denied' : 'fault';
}

async function fetchSettings() {
  const response = await send(new Request('config.json', { cache: 'no-store' }));
  const settings = await read(response);
  const served = Date.parse(response.headers.get('date'));
  // The header counts whole seconds.
  if (Math.abs(served - Date.now()) > 30_000) clockOffset = served - Date.now();
  return settings;
}
