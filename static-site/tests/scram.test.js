import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { opaqueString, startLogin } from '../scram.js';

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../lambdas/auth/vectors/${name}`, import.meta.url)));

test('passwords are prepared as in the functions', () => {
  for (const { input, output } of vectors('opaque_string.json')) {
    assert.equal(opaqueString(input), output, JSON.stringify(input));
  }
});

test('a lone surrogate is no password', () => {
  assert.equal(opaqueString('pass\ud83e word'), null);
});

for (const { clientFirst, serverFirst, clientFinal, serverFinal, password } of vectors('scram.json')) {
  test(`the exchange of ${clientFirst} is that of the vector`, async () => {
    const [, name, nonce] = /^n,,n=(.*),r=(.*)$/.exec(clientFirst);
    const email = name.replaceAll('=2C', ',').replaceAll('=3D', '=');

    const login = startLogin(email, opaqueString(password), nonce);
    assert.equal(login.clientFirst, clientFirst);
    const answer = await login.answer(serverFirst);
    assert.equal(answer.clientFinal, clientFinal);
    assert.ok(answer.isProvenBy(serverFinal));
  });
}

test('a server that does not know the verifier proves nothing', async () => {
  const { serverFirst } = vectors('scram.json')[0];
  const answer = await startLogin('user', 'pencil', 'rOprNGfwEbeRWgbNEkqO').answer(serverFirst);
  for (const serverFinal of ['v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=', 'v=', 'e=invalid-proof', '', undefined]) {
    assert.equal(answer.isProvenBy(serverFinal), false, serverFinal);
  }
});

test('every login has a nonce of its own', () => {
  assert.notEqual(startLogin('user', 'pencil').clientFirst, startLogin('user', 'pencil').clientFirst);
});

test('a challenge that is not an answer to this login is refused', async () => {
  const login = startLogin('user', 'pencil', 'mine');
  for (const serverFirst of [
    'r=mine,s=AAAA,i=4096',
    'r=yours123,s=AAAA,i=4096',
    'r=minemore,s=AAAA,i=4095',
    'r=minemore,s=AAAA,i=10000001',
    'r=minemore,s=AAAA,i=-4096',
    'r=minemore,s=AAAA,i=4e9',
    'r=minemore,s=,i=4096',
    'r=minemore,s=AAAA',
    'm=must,r=minemore,s=AAAA,i=4096',
    'r=minemore,s=AAAA,i=4096,m=later',
    '',
    undefined,
  ]) {
    await assert.rejects(login.answer(serverFirst), /^Error: The challenge/, String(serverFirst));
  }
});
