import { showAccount } from './account.js';
import { onSubmit, show } from './form.js';
import { call } from './functions.js';
import { explain } from './newPassword.js';
import { member } from './session.js';

const OWN_TEXTS = {
  wrongPassword: { field: 'oldPassword', text: 'This is not your present password.' },
  notYours: { text: 'This session does not belong to the account. Log out, then log in again.' },
};

if (member()) {
  document.querySelector('[name=email]').defaultValue = member().email;
  showAccount(sendToLogin);
} else {
  sendToLogin('Only you may change your password, so log in first.');
}

onSubmit('Changing your password…', async ({ oldPassword, newPassword }) => {
  const { email } = member() ?? {};
  if (!email) return sendToLogin('Your session has ended.');
  try {
    const { changed, reasons } = await call('changePassword', { email, oldPassword, newPassword });
    if (!changed) return explain(reasons, OWN_TEXTS);
  } catch (failure) {
    if (member()) throw failure;
    sendToLogin('Your session has ended.');
  }
});

function sendToLogin(reason) {
  document.querySelector('.why').textContent = reason;
  show('out');
  document.querySelector('.out h1').focus();
}
