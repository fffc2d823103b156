// Calls a function of the service: a Lambda invocation, signed with the caller's credentials.

import { AwsClient } from './aws4fetch.js';
import { credentials, discardCredentials } from './session.js';
import { Failure, read, send, stage, stageNow } from './stage.js';

// Asked for at once; a call asks again if this fails.
stage().catch(() => {});

/** The result of a function, such as createUser. */
export async function call(name, event) {
  try {
    return await invoke(name, event);
  } catch (failure) {
    // Nothing ran yet, so it is safe to ask again.
    if (failure.kind !== 'expired') throw failure;
    discardCredentials();
    return invoke(name, event);
  }
}

async function invoke(name, event) {
  const { endpoints, functions, region } = await stage();
  const path = `/2015-03-31/functions/${encodeURIComponent(functions[name])}/invocations`;
  const client = new AwsClient({ ...(await credentials()), service: 'lambda', region, retries: 0 });
  const request = await client.sign(new URL(path, endpoints.lambda), {
    body: JSON.stringify(event),
    headers: { 'content-type': 'application/json' },
    aws: { datetime: stageNow().toISOString().replace(/[:-]|\.\d+/g, '') },
  });
  const response = await send(request);
  const result = await read(response);
  const { errorType } = result;
  if (errorType || response.headers.has('x-amz-function-error')) {
    throw new Failure(errorType === 'BadRequest' ? 'rejected' : 'fault', errorType);
  }
  return result;
}
