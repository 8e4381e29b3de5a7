// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import { serveStatic } from '@hono/node-server/serve-static';
import { Hono } from 'hono';
import { csrf } from 'hono/csrf';
import { HTTPException } from 'hono/http-exception';
import { secureHeaders } from 'hono/secure-headers';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beginLogin, currentUser, endLogin, logOut } from './login.mjs';
import { embedPage, homePage, messages, statePage } from './pages.mjs';
import { setting } from './setting.mjs';
import { askVault } from './vault.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const domain = setting('MEETING_DOMAIN');
const meetingServer = `https://${domain}`;
const consumer = setting('CONSUMER_ID');
// Your application has a database.
const meetings = JSON.parse(readFileSync(setting('MEETINGS', here('meetings.json')), 'utf8'));

export const app = new Hono();

app.use(async (c, next) => {
  await next();
  console.log(c.req.method, c.req.path, c.res.status); // not the query: a login's has its code
});

const whereEmbedded = (c) => (c.req.path.endsWith('/embed') ? meetingServer : "'self'");
app.use(
  secureHeaders({
    referrerPolicy: 'no-referrer',
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'", whereEmbedded],
      frameSrc: [whereEmbedded],
      styleSrc: ["'self'"],
      imgSrc: ["'self'"],
      connectSrc: ["'self'"],
      formAction: ["'self'", meetingServer], // "Start" is a form, whose answer leads there
      frameAncestors: ["'none'"],
      baseUri: ["'none'"],
    },
    strictTransportSecurity: false, // it binds everything on this host, so whoever owns the host decides
  }),
);
app.use('/static/*', serveStatic({ root: here('.') }));

app.use(async (c, next) => {
  c.header('Cache-Control', 'no-store');
  await next();
});
// Lets a POST through if the browser says, by Sec-Fetch-Site, that a page of ours made it.
// Because of no-referrer the browser does not say which page: its Origin is "null".
app.use(csrf({ origin: setting('PUBLIC_URL') }));

app.get('/login', beginLogin);
app.get('/callback', endLogin);
app.post('/logout', logOut);

app.use(async (c, next) => {
  c.set('user', await currentUser(c));
  await next();
});

const isHost = (c, meeting) => meeting.hosts.includes(c.var.user?.id);
const isGuest = (c, meeting) => meeting.guests.includes(c.var.user?.id);

app.get('/', (c) => {
  const hosts = meetings.filter((meeting) => isHost(c, meeting));
  const guests = meetings.filter((meeting) => !isHost(c, meeting) && isGuest(c, meeting));
  return c.html(homePage(c.var.user, hosts, guests));
});

app.use('/meetings/:id/*', async (c, next) => {
  if (!c.var.user) return answer(c, { state: 'loggedOut' });
  const meeting = meetings.find(({ id }) => id === c.req.param('id'));
  if (!meeting || !(isHost(c, meeting) || isGuest(c, meeting))) return answer(c, { state: 'unknown' });
  c.set('meeting', { ...meeting, domain, consumer, host: isHost(c, meeting), guestURL: `${meetingServer}/${consumer}/${meeting.room}` });
  await next();
});

// The role is that of the user's own team. If the list of hosts is wrong, or isHost is, the
// role still opens no room of another team. A team's name has no dash, so that it can't be
// the name of an event's role.
const role = ({ user, meeting }) => (meeting.event ? `${user.team}-${meeting.event}` : user.team);
const ask = (verb, vars) => (/^\w+$/.test(vars.user.team ?? '') ? askVault(verb, role(vars), vars.meeting.room) : { state: 'refused' });

app.get('/meetings/:id', async (c) => answer(c, c.var.meeting.host ? await ask('check', c.var) : { state: 'guest' }));

app.get('/meetings/:id/embed', (c) => c.html(embedPage(c.var.user, c.var.meeting)));

/** The click. Nothing is signed before it. */
app.post('/meetings/:id/start', async (c) => {
  const { user, meeting } = c.var;
  if (!meeting.host) return answer(c, { state: 'notHost' });
  const result = await ask('creds', c.var);
  if (result.state !== 'ready') return answer(c, result);
  console.log(`${user.id} starts ${meeting.id} with the role ${role(c.var)}`);
  const { meeting_url, domain, consumer_id, room, token } = result.data;
  // The embedded meeting asks with fetch, and takes the token itself.
  if (c.req.header('Accept') === 'application/json') return c.json({ domain, consumer_id, room, token });
  return c.redirect(meeting_url, 303);
});

app.notFound((c) => answer(c, { state: 'unknown' }));

app.onError((error, c) => {
  if (error instanceof HTTPException) return answer(c, { state: 'elsewhere' }); // from csrf
  console.error(error.stack); // without the cause, which may have the provider's answer
  return answer(c, { state: ['/login', '/callback'].includes(c.req.path) ? 'noLogin' : 'fault' });
});

/** A page that says how things stand. */
function answer(c, result) {
  const message = messages[result.state](c.var, result);
  return c.html(statePage(c, result, message), message.status);
}
