// Shows the mails of the stage as they arrive: `body[data-state]` is loading, empty, mails, locked or lost.

const POLL_EVERY = 2_000;

const body = document.body;
const list = document.querySelector('.mails ul');
const status = document.querySelector('.status');
const mail = document.querySelector('.mail');
const token = takeToken();

/** The list entry of each mail that is shown, by what tells mails apart. */
const entries = new Map();
let known;

poll();
document.addEventListener('visibilitychange', poll);
mail.querySelector('.back').addEventListener('click', showList);
for (const button of mail.querySelectorAll('[data-part]')) {
  button.addEventListener('click', () => showPart(button.dataset.part));
}

async function poll() {
  clearTimeout(poll.timer);
  if (document.hidden) return;
  if (!token) return lock();
  await refresh();
  clearTimeout(poll.timer);
  if (body.dataset.state === 'locked') return;
  poll.timer = setTimeout(poll, POLL_EVERY);
}

async function refresh() {
  try {
    const response = await fetch(`/mailbox?token=${encodeURIComponent(token)}`, {
      headers: { accept: 'application/json' },
      cache: 'no-store',
    });
    if (response.status === 401 || response.status === 403) return lock();
    if (!response.ok) throw new Error(`status ${response.status}`);
    update(await response.json());
  } catch {
    show('lost', 'The stage does not answer. Trying again…');
  }
}

function update(mails) {
  const fresh = new Map(mails.map((one) => [JSON.stringify(one), one]));
  for (const [key, entry] of entries) {
    if (fresh.has(key)) continue;
    entry.remove();
    entries.delete(key);
  }
  const arrived = [...fresh].filter(([key]) => !entries.has(key));
  // Entries are only ever added on top, so that focus and reading position stay where they are.
  for (const [key, one] of arrived.reverse()) {
    const entry = entryOf(one);
    entries.set(key, entry);
    list.prepend(entry);
  }
  for (const time of list.querySelectorAll('time')) time.textContent = relative(time.dateTime);

  const count = `${mails.length} ${mails.length === 1 ? 'mail' : 'mails'}`;
  const news = known && arrived.length ? `New mail: ${arrived.at(-1)[1].subject}` : undefined;
  if (news || known !== mails.length || body.dataset.state !== 'mails') show(mails.length ? 'mails' : 'empty', news ?? count);
  known = mails.length;
}

function entryOf(one) {
  const button = element('button', 'entry unread');
  const time = element('time', '');
  time.dateTime = one.receivedAt;
  button.type = 'button';
  button.append(element('span', 'to', one.to), time, element('span', 'subject', one.subject));
  button.addEventListener('click', () => open(one, button));
  const item = document.createElement('li');
  item.append(button);
  return item;
}

function open(one, button) {
  list.querySelector('[aria-current]')?.removeAttribute('aria-current');
  button.setAttribute('aria-current', 'true');
  button.classList.remove('unread');

  mail.querySelector('#subject').textContent = one.subject;
  mail.querySelector('.to').textContent = one.to;
  mail.querySelector('.from').textContent = one.from;
  const received = mail.querySelector('.received');
  received.dateTime = one.receivedAt;
  received.textContent = new Date(one.receivedAt).toLocaleString();
  mail.querySelector('.text').textContent = one.text;
  mail.querySelector('.parts').hidden = !one.html || !one.text;
  showPart(one.html ? 'html' : 'text');
  body.dataset.view = 'mail';
  // A new frame each time: Chromium shows nothing in one that was hidden, as it is behind the list on a phone, and then
  // gets other content.
  const frame = mail.querySelector('.html');
  const fresh = frame.cloneNode();
  fresh.srcdoc = withLinksInNewTabs(one.html);
  frame.replaceWith(fresh);
  mail.querySelector('#subject').focus();
}

function showList() {
  body.dataset.view = 'list';
  list.querySelector('[aria-current]')?.focus();
}

function showPart(part) {
  for (const button of mail.querySelectorAll('[data-part]')) {
    button.setAttribute('aria-pressed', String(button.dataset.part === part));
  }
  mail.dataset.shows = part;
}

function lock() {
  show('locked', '');
}

function show(state, text) {
  body.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

function withLinksInNewTabs(html) {
  const parsed = new DOMParser().parseFromString(html, 'text/html');
  const base = parsed.createElement('base');
  base.target = '_blank';
  parsed.head.prepend(base);
  return `<!doctype html>${parsed.documentElement.outerHTML}`;
}

/** The token of the address, taken out of it and kept for a reload. */
function takeToken() {
  const given = new URLSearchParams(location.search).get('token');
  if (given) sessionStorage.mailboxToken = given;
  history.replaceState(null, '', location.pathname);
  return sessionStorage.mailboxToken ?? '';
}

function relative(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 45) return 'just now';
  for (const [unit, size] of [['day', 86_400], ['hour', 3_600], ['minute', 60]]) {
    const count = Math.round(seconds / size);
    if (seconds >= size || unit === 'minute') {
      return new Intl.RelativeTimeFormat('en', { style: 'narrow' }).format(-Math.max(count, 1), unit);
    }
  }
}

function element(name, className, text = '') {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
