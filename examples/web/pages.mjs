// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// The markup. html`…` escapes what is put into it.

import { html } from 'hono/html';

/** What the application can have to say: an HTTP status, and words for a person. */
export const messages = {
  ready: () => ({ status: 200, title: 'You are the host', text: 'Guests can join once you have started the meeting.' }),
  guest: () => ({ status: 200, title: 'You are invited', text: 'You can join once a host has started the meeting.' }),
  early: (_, { opens }) => ({
    status: 409,
    title: 'Not open yet',
    text: html`You can start this meeting from ${time(opens)}. The button will appear here by itself.`,
  }),
  ended: () => ({
    status: 410,
    title: 'This meeting is over',
    text: 'Its time has passed, and it can’t be started again.',
  }),
  refused: ({ user }) => ({
    status: 403,
    title: 'Your team can’t host this meeting',
    text: user.team
      ? html`You are listed as a host, but the team “${user.team}” may not host this room. Ask the person who planned the meeting.`
      : 'You are listed as a host, but you are in no team that hosts meetings. Ask the person who planned the meeting.',
  }),
  away: () => ({
    status: 503,
    title: 'Meetings can’t be started right now',
    text: 'The service that lets hosts in does not answer. Try again in a moment. This page also tries again by itself.',
  }),
  notHost: ({ meeting }) => ({
    status: 403,
    title: 'You are not the host',
    text: html`Only ${meeting.hosts.join(' and ')} can start this meeting. You can join it as a guest.`,
  }),
  loggedOut: () => ({
    status: 401,
    title: 'Please log in',
    text: 'You are not logged in, or your login has expired. After the login you come back to this page.',
  }),
  unknown: () => ({
    status: 404,
    title: 'Nothing here',
    text: 'There is no such meeting, or you are not invited to it.',
  }),
  elsewhere: () => ({
    status: 403,
    title: 'Nothing was started',
    text: 'The request came from another site. To start a meeting, use its own page.',
  }),
  noLogin: () => ({
    status: 503,
    title: 'The login did not work',
    text: 'The service that logs people in does not answer, or the login took too long. Try again in a moment.',
  }),
  fault: () => ({
    status: 500,
    title: 'Something went wrong',
    text: 'The mistake is ours, and it is in our log. Try again in a moment.',
  }),
};

/** Everything but the list and the embedded meeting: how things stand, and what to do now. */
export function statePage(c, { state, opens }, { title, text }) {
  const { user, meeting } = c.var;
  const here = c.req.path.replace(/\/start$/, '');
  return layout(user, meeting ? `${title} · ${meeting.title}` : title, html`
    <main aria-live="polite" data-state="${state}" data-here="${here}" data-opens="${opens?.toISOString()}"
      data-clicked="${c.req.method === 'POST' ? 'yes' : ''}">
      ${meeting ? html`<p class="above">${meeting.when}</p><h1>${meeting.title}</h1>` : html`<h1>${title}</h1>`}
      <section class="card ${state}">
        ${meeting ? html`<h2>${title}</h2>` : ''}
        <p>${text}</p>
        ${actions({ state, meeting, here })}
      </section>
      ${meeting?.host && ['ready', 'early', 'away'].includes(state) ? html`
      <p class="aside">For your guests: <a href="${meeting.guestURL}">${meeting.guestURL.replace('https://', '')}</a></p>` : ''}
      ${state === 'loggedOut' || state === 'noLogin' ? '' : html`<p class="aside"><a href="/">All your meetings</a></p>`}
    </main>`);
}

function actions({ state, meeting, here }) {
  switch (state) {
    case 'ready':
    case 'away':
      return html`
        <form class="actions" method="post" action="/meetings/${meeting.id}/start">
          <button>${state === 'away' ? 'Try again' : 'Start the meeting'}</button>
          ${state === 'ready' ? html`<a href="/meetings/${meeting.id}/embed">or start it inside this page</a>` : ''}
        </form>`;
    case 'guest':
    case 'notHost':
      return html`
        <p class="actions">
          <a class="button" href="${meeting.guestURL}">Join as a guest</a>
          <a href="/meetings/${meeting.id}/embed">or join inside this page</a>
        </p>`;
    case 'loggedOut':
    case 'noLogin':
      return html`<p class="actions"><a class="button" href="/login?to=${encodeURIComponent(here)}">Log in</a></p>`;
    default:
      return '';
  }
}

export function homePage(user, hosts, guests) {
  return layout(user, 'Your meetings', html`
    <main>
      <h1>Your meetings</h1>
      ${user ? '' : html`
      <section class="card">
        <p>Log in to see the meetings that you host, and those that you are invited to.</p>
        <p class="actions"><a class="button" href="/login">Log in</a></p>
      </section>`}
      ${list('You host', hosts)}
      ${list('You are invited', guests)}
      ${user && !hosts.length && !guests.length ? html`<p>You have no meetings.</p>` : ''}
    </main>`);
}

function list(title, meetings) {
  if (!meetings.length) return '';
  return html`
      <h2>${title}</h2>
      <ul class="meetings">
        ${meetings.map(({ id, title, when }) => html`
        <li><a href="/meetings/${id}"><span>${title}</span><small>${when}</small></a></li>`)}
      </ul>`;
}

/** embed.jsx does the rest. There is no token in this page. */
export function embedPage(user, meeting) {
  return layout(user, meeting.title, html`
    <main>
      <p class="above">${meeting.when}</p>
      <h1>${meeting.title}</h1>
      <div id="embed" data-id="${meeting.id}" data-host="${meeting.host ? 'yes' : ''}" data-name="${user.name ?? user.id}"
        data-domain="${meeting.domain}" data-consumer="${meeting.consumer}" data-room="${meeting.room}"></div>
      <div id="my-meeting"></div>
      <p class="aside"><a href="/meetings/${meeting.id}">Back to the meeting’s page</a></p>
    </main>
    <script src="/static/embed.js"></script>`);
}

/** In UTC; page.js turns it into the user's own time. */
function time(date) {
  const text = date.toLocaleString('en', { dateStyle: 'long', timeStyle: 'short', timeZone: 'UTC' });
  return html`<time datetime="${date.toISOString()}">${text} UTC</time>`;
}

function layout(user, title, content) {
  return html`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>${title}</title>
    <link rel="icon" href="/static/icon.svg">
    <link rel="stylesheet" href="/static/style.css">
    <script src="/static/page.js" defer></script>
  </head>
  <body>
    <header>
      <a class="brand" href="/">Meetings</a>
      ${user ? html`
      <form method="post" action="/logout">
        <span>${user.name ?? user.id}</span>
        <button class="plain">Log out</button>
      </form>` : ''}
    </header>
    ${content}
  </body>
</html>
`;
}
