// Shows the member's session until it ends.

import { leave, member } from './session.js';

/** Fills in who is logged in; `ended` is told why once the session is over. */
export function showAccount(ended) {
  const { email, endsAt } = member();
  document.querySelector('.who').textContent = email;
  const ends = document.querySelector('.ends');
  ends.dateTime = new Date(endsAt).toISOString();

  const watch = new AbortController();
  const timer = setInterval(update, 15_000);
  document.addEventListener('visibilitychange', update, watch);
  document.querySelector('.logout').addEventListener('click', () => end('You are logged out.'), watch);
  update();

  function update() {
    if (member()) ends.textContent = `${timeOfDay(endsAt)}, in ${duration(endsAt - Date.now())}`;
    else end('Your session has ended.');
  }

  function end(reason) {
    clearInterval(timer);
    watch.abort();
    leave();
    ended(reason);
  }
}

const timeOfDay = (time) => new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

function duration(milliseconds) {
  const minutes = Math.ceil(milliseconds / 60_000);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// The back button brings back a page with the session it had.
window.addEventListener('pageshow', ({ persisted }) => persisted && location.reload());
