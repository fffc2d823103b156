import { onSubmit, show, takeToken } from './form.js';
import { call } from './functions.js';
import { explain } from './newPassword.js';

const OWN_TEXTS = {
  linkExpired: { text: 'This link has been used already, or it has expired.' },
};

const resetToken = takeToken('resetToken');
if (!resetToken) show('out');

onSubmit('Setting your password…', async ({ password }) => {
  const { changed, reasons } = await call('resetPassword', { resetToken, password });
  if (!changed) return explain(reasons, OWN_TEXTS);
});
