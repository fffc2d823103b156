import { onSubmit } from './form.js';
import { call } from './functions.js';

onSubmit('Sending…', async ({ email }) => {
  await call('lostPassword', { email });
  document.querySelector('.mailedTo').textContent = email;
});
