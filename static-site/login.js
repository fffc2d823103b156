import { showAccount } from './account.js';
import { done, onSubmit, show } from './form.js';
import { call } from './functions.js';
import { opaqueString, startLogin } from './scram.js';
import { enter, member } from './session.js';
import { Failure } from './stage.js';

const WRONG = [{ text: 'Wrong email or password, or the address is not confirmed yet.' }];

if (member()) greet();

onSubmit('Logging in…', async (entered) => {
  // The stored form, which the service compares byte by byte.
  const email = entered.email.trim().replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  const password = opaqueString(entered.password);
  if (password === null) return WRONG;

  const { clientFirst, answer } = startLogin(email, password);
  const { serverFirst } = await call('login', { clientFirst });
  const { clientFinal, isProvenBy } = await answer(serverFirst);
  const { login, serverFinal, identityId, token } = await call('login', { clientFirst, clientFinal });
  if (!login) return WRONG;
  if (!isProvenBy(serverFinal)) throw new Failure('unproven');

  await enter({ email, identityId, token });
  greet();
});

function greet() {
  showAccount((reason) => {
    show('ready', reason);
    document.querySelector('#email').focus();
  });
  done();
}
