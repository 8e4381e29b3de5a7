// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Pages that wait, for Vault or for a time to come, look again by themselves. Looking signs
// nothing: it loads the page as a person would.

const AGAIN = 5_000; // milliseconds
const STARTS_FOR = 300_000; // milliseconds after the click; later, its user may be gone

function localTimes() {
  for (const time of document.querySelectorAll('time')) {
    const date = new Date(time.dateTime);
    time.textContent = date.toLocaleString(undefined, { dateStyle: 'long', timeStyle: 'short' });
  }
}

function lookLater() {
  const { state, opens } = document.querySelector('main').dataset;
  if (state !== 'early' && state !== 'away') return;
  const untilOpen = opens ? Math.max(new Date(opens) - Date.now(), 1_000) : AGAIN;
  setTimeout(look, Math.min(untilOpen, AGAIN));
}

async function look() {
  const old = document.querySelector('main');
  try {
    const text = await (await fetch(old.dataset.here)).text();
    const main = new DOMParser().parseFromString(text, 'text/html').querySelector('main');
    if (main.dataset.state !== old.dataset.state || main.dataset.opens !== old.dataset.opens) {
      const focused = old.contains(document.activeElement);
      Object.assign(old.dataset, main.dataset, { clicked: old.dataset.clicked });
      old.replaceChildren(...main.childNodes); // inside the old one, so that screen readers say it
      localTimes();
      if (focused) old.querySelector('button, .button')?.focus();
      if (old.dataset.state === 'ready' && old.dataset.clicked && performance.now() < STARTS_FOR) old.querySelector('form').requestSubmit();
    }
  } catch {
    // The application itself is away: look again.
  }
  lookLater();
}

const { clicked, here } = document.querySelector('main').dataset;
// This page answers a POST. Back and reload must not repeat that.
if (clicked) history.replaceState(null, '', here);
localTimes();
lookLater();
