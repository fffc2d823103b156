import { onSubmit } from './form.js';
import { call } from './functions.js';
import { explain } from './newPassword.js';

const OWN_TEXTS = {
  invalidEmail: { field: 'email', text: 'This address is not one that mail can reach.' },
};

onSubmit('Creating your account…', async ({ email, password }) => {
  const { created, reasons } = await call('createUser', { email, password });
  if (!created) return explain(reasons, OWN_TEXTS);
  document.querySelector('.mailedTo').textContent = email;
});
