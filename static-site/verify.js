import { onSubmit, show, takeToken } from './form.js';
import { call } from './functions.js';

const token = takeToken('token');
if (!token) show('out');

onSubmit('Confirming…', async () => {
  const { verified } = await call('verifyUser', { token });
  if (!verified) return [{ text: 'This link has been used already, or it has expired.' }];
});
