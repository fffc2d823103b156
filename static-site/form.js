// The form of a page and its states: `main[data-state]` is ready, working, refused, failed, offline, done or out.

const main = document.querySelector('main');
const form = main.querySelector('form');
const button = form.querySelector('[type=submit]');
const message = main.querySelector('.message');
const label = button.textContent;

const FAILURES = {
  busy: 'The service is busy. Try again in a moment.',
  clock: 'The clock of this device is wrong. Set it, then try again.',
  denied: 'The service does not allow this here.',
  expired: 'This visit has timed out. Reload the page, then try again.',
  rejected: 'The service did not accept this. Check it, then try again.',
  unproven: 'The service did not prove that it is the real one.',
};

/**
 * Calls `act` with complete values. It returns nothing when all is done, or refusals as `{ field, text }`, without a
 * field when about the whole. It may also show a state itself.
 */
export function onSubmit(working, act) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (main.dataset.state === 'working') return;
    hidePasswords();
    showRefusals([]);
    const missing = incomplete();
    if (missing.length) return refuse(missing);

    show('working', working);
    try {
      const refusals = await act(Object.fromEntries(new FormData(form)));
      if (refusals?.length) refuse(refusals);
      else if (main.dataset.state === 'working') done();
    } catch (failure) {
      fail(failure);
    }
  });
}

/** Shows a state, with a text for the live region. */
export function show(state, text = '') {
  main.dataset.state = state;
  form.ariaBusy = String(state === 'working');
  button.ariaDisabled = String(state === 'working');
  button.textContent = state === 'working' ? text : label;
  message.textContent = text;
}

/** Shows the done panel in place of the form. */
export function done() {
  show('done');
  form.reset();
  main.querySelector('.done h1').focus();
}

/** Takes a one-time token out of the address bar, for shoulders and histories. */
export function takeToken(parameter) {
  const token = new URLSearchParams(location.search).get(parameter) ?? history.state?.token;
  // The history entry keeps it for a reload.
  history.replaceState({ token }, '', location.pathname);
  return token;
}

function refuse(refusals) {
  show('refused', refusals.find(({ field }) => !field)?.text ?? '');
  showRefusals(refusals);
  form.querySelector('[aria-invalid=true]')?.focus();
}

function fail(failure) {
  if (failure.kind === 'offline') {
    const reason = navigator.onLine ? 'The service can’t be reached.' : 'You are offline.';
    show('offline', `${reason} Try again in a moment.`);
  } else {
    show('failed', FAILURES[failure.kind] ?? 'Something went wrong on our side. Try again in a moment.');
  }
}

function incomplete() {
  return [...form.elements]
    .filter((input) => input.willValidate && !input.validity.valid)
    .map((input) => ({ field: input.name, text: input.dataset.missing }));
}

function showRefusals(refusals) {
  for (const input of form.querySelectorAll('input')) {
    const texts = refusals.filter(({ field }) => field === input.name).map(({ text }) => text);
    input.ariaInvalid = texts.length ? 'true' : null;
    const refusal = document.getElementById(`${input.id}-refusal`);
    if (refusal) refusal.textContent = texts.join(' ');
  }
}

function hidePasswords() {
  for (const reveal of form.querySelectorAll('.reveal')) setReveal(reveal, false);
}

function setReveal(reveal, shown) {
  reveal.previousElementSibling.type = shown ? 'text' : 'password';
  reveal.ariaLabel = reveal.ariaLabel.replace(/^\w+/, shown ? 'Hide' : 'Show');
}

for (const reveal of form.querySelectorAll('.reveal')) {
  reveal.addEventListener('click', () => setReveal(reveal, reveal.ariaLabel.startsWith('Show')));
}

window.addEventListener('online', () => {
  if (main.dataset.state === 'offline') show('ready', 'You are connected again.');
});

if (window.top !== window.self) {
  // A meta element can't forbid framing, so a framed page takes no input.
  main.inert = true;
  show('failed', 'This page works only in a window of its own.');
}
