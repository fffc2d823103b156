// Choosing a new password: the live length, and texts for the reasons why one is refused.

const TEXTS = {
  tooShort: 'Use at least {{passwordMinLength}} characters.',
  tooLong: 'Use at most {{passwordMaxLength}} characters.',
  tooWeak: 'This is too easy to guess. Try a few unrelated words.',
  containsEmail: 'Leave your email address out of it.',
  notAllowed: 'This holds a character that a password can’t have, such as a tab.',
};

const input = document.querySelector('[autocomplete=new-password]');
const count = document.querySelector('.count');

/** Refusals for the reasons that a function gave; `others` are the page's own, as `{ reason: { field, text } }`. */
export function explain(reasons, others = {}) {
  return reasons.map((reason) => {
    const field = TEXTS[reason] && input.name;
    return others[reason] ?? { field, text: TEXTS[reason] ?? reason };
  });
}

function showLength() {
  const length = [...input.value].length;
  const enough = length >= Number(input.dataset.enough);
  count.value = enough ? `${length} ✓` : `${length} of ${input.dataset.enough}`;
  count.classList.toggle('enough', enough);
}

input.addEventListener('input', showLength);
input.form.addEventListener('reset', () => setTimeout(showLength));
showLength();
