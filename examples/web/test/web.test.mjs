// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Clicks through the application in a real browser, with a real Vault. make web-test runs it.

import { Hono } from 'hono';
import { EncryptJWT } from 'jose';
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { checkToken } from '../dev/meeting-server.mjs';
import { freePort, start, stop, until, World } from './world.mjs';

const file = (path) => fileURLToPath(new URL(path, import.meta.url));

const world = new World();
after(() => world.end());
await world.begin();

const heading = (page, name) => page.getByRole('heading', { name, exact: true }).waitFor();
const startButton = (page) => page.getByRole('button', { name: 'Start the meeting', exact: true });
const tokenOf = (page) => new URL(page.url()).searchParams.get('jwt');
const claimsOf = (page, room) => checkToken(tokenOf(page), { publicKey: world.env.PUBLIC_KEY, consumer: 'acme', room });

/** What a click sends, from the page itself. */
const post = (page, path) => page.evaluate(async (url) => {
  const response = await fetch(url, { method: 'POST', redirect: 'manual' });
  return { status: response.status, text: await response.text() };
}, path);

/** Gives the page a session as the application would make it. */
async function session(page, user, seconds = 600) {
  const value = await new EncryptJWT({ session: user })
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
    .setExpirationTime(now() + seconds)
    .encrypt(Buffer.from(world.env.SESSION_KEY, 'base64'));
  await page.context().addCookies([{ name: '__Host-session', value, url: world.url, secure: true }]);
}

const times = (from, until) => ({ valid_from: from, valid_until: until });
const now = () => Math.floor(Date.now() / 1000);

test('whoever is not logged in sees nothing', async () => {
  const page = await world.page();
  await page.goto(world.url);
  await heading(page, 'Your meetings');
  assert.equal(await page.getByRole('listitem').count(), 0);
  await world.look(page, 'home-logged-out');
  for (const path of ['/meetings/demo', '/meetings/demo/embed']) {
    assert.equal((await page.goto(world.url + path)).status(), 401);
    await heading(page, 'Please log in');
  }
  await world.look(page, 'logged-out');
});

test('a host logs in, starts the meeting, and nothing is signed before the click', async () => {
  const before = world.signed();
  const page = await world.page();
  await page.goto(world.url);
  await page.getByRole('link', { name: 'Log in' }).click();
  await heading(page, 'Log in');
  await world.look(page, 'vault-login');
  await page.getByLabel('Name').fill('ann');
  await page.getByLabel('Password').fill('wrong');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').waitFor();
  await world.fillIn(page, 'ann');

  await heading(page, 'Your meetings');
  await page.getByText('Ann Arden').waitFor();
  await world.look(page, 'home');
  await page.getByRole('link', { name: 'Demo for Meridian' }).click();
  await heading(page, 'You are the host');
  await world.look(page, 'host');
  await page.reload();
  assert.equal(world.signed(), before);

  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/acme/sales-demo-q7fw?jwt=*');
  await heading(page, 'You are the host');
  await world.look(page, 'stand-in-host');
  assert.equal(world.signed(), before + 1);
  const { exp, nbf } = claimsOf(page, 'sales-demo-q7fw');
  assert.ok(exp - nbf <= 330, 'five minutes, and the half minute before');
});

test('back, and reload', async () => {
  const page = await world.loggedIn('ann', '/meetings/demo');
  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/**');
  const first = tokenOf(page);

  await page.reload();
  await heading(page, 'You are the host');
  assert.equal(tokenOf(page), first);

  await page.goBack();
  assert.equal(page.url(), `${world.url}/meetings/demo`);
  const signed = world.signed();
  await page.reload();
  await heading(page, 'You are the host');
  assert.equal(world.signed(), signed);

  // Tokens have whole seconds: that of the same second is the same.
  await until('a second has passed', () => now() > claimsOf({ url: () => `https://x?jwt=${first}` }, 'sales-demo-q7fw').nbf + 30);
  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/**');
  await heading(page, 'You are the host');
  assert.notEqual(tokenOf(page), first);
});

test('a guest gets the page, and no token', async () => {
  const signed = world.signed();
  for (const user of ['bob', 'cleo']) {
    const page = await world.loggedIn(user, '/meetings/demo');
    await heading(page, 'You are invited');
    assert.equal(await startButton(page).count(), 0);
    if (user === 'cleo') await world.look(page, 'guest');

    // As if they had been the host when the page was loaded.
    await page.evaluate(() => {
      const form = document.createElement('form');
      form.method = 'post';
      form.action = '/meetings/demo/start';
      document.body.append(form);
      form.submit();
    });
    await heading(page, 'You are not the host');
    if (user === 'cleo') await world.look(page, 'not-the-host');

    await page.getByRole('link', { name: 'Join as a guest' }).click();
    await heading(page, 'You are a guest');
    assert.equal(page.url(), 'https://meet.example.com/acme/sales-demo-q7fw');
    await page.goto(`${world.url}/meetings/demo/embed`);
    await page.getByRole('button', { name: 'Join here' }).click();
    await heading(page.frameLocator('iframe'), 'You are a guest');
  }
  assert.equal(world.signed(), signed);
});

test('a meeting to which nobody invited them is as if it were none', async () => {
  const page = await world.loggedIn('cleo');
  const texts = [];
  for (const id of ['ticket-4711', 'nothing']) {
    assert.equal((await page.goto(`${world.url}/meetings/${id}`)).status(), 404);
    texts.push(await page.getByRole('main').innerText());
  }
  assert.equal(texts[0], texts[1]);
  await world.look(page, 'unknown');
});

test('the meeting inside a page of ours, with the vendor’s package', async () => {
  const page = await world.loggedIn('ann', '/meetings/demo');
  const signed = world.signed();
  await page.getByRole('link', { name: 'or start it inside this page' }).click();
  await page.getByRole('button', { name: 'Start the meeting here' }).waitFor();
  await world.look(page, 'embed');
  assert.equal(world.signed(), signed);
  await page.getByRole('button', { name: 'Start the meeting here' }).click();
  await heading(page.frameLocator('iframe'), 'You are the host');
  const frame = page.frames()[1];
  claimsOf(frame, 'sales-demo-q7fw');
  assert.equal(world.signed(), signed + 1);

  await page.route('**/external_api.js', (route) => route.abort());
  await page.goto(`${world.url}/meetings/demo/embed`);
  await page.getByRole('button', { name: 'Start the meeting here' }).click();
  await page.getByText('The meeting server does not answer.').waitFor();

  await page.goto(`${world.url}/meetings/ticket-4712/embed`);
  await page.getByRole('button', { name: 'Start the meeting here' }).click();
  await heading(page, 'Your team can’t host this meeting');
});

test('one team can’t host the other’s meetings, by role', async () => {
  // The application is wrong about this meeting of the support team: its list says that ann
  // of sales is a host.
  const signed = world.signed();
  const page = await world.loggedIn('ann', '/meetings/ticket-4712');
  await heading(page, 'Your team can’t host this meeting');
  await world.look(page, 'other-team');
  assert.equal((await post(page, '/meetings/ticket-4712/start')).status, 403);
  assert.equal(world.signed(), signed);

  for (const team of [undefined, '', 'sales/../support', 'sales-launch', 'support?room=support-4712-t2gd&']) {
    await session(page, { id: 'ann', team });
    await page.goto(`${world.url}/meetings/ticket-4712`);
    await heading(page, 'Your team can’t host this meeting');
  }
  const bob = await world.loggedIn('bob', '/meetings/ticket-4712');
  await startButton(bob).click();
  await bob.waitForURL('https://meet.example.com/acme/support-4712-t2gd?jwt=*');
  await heading(bob, 'You are the host');
});

test('the application may do in Vault what it needs, and nothing else', async () => {
  const { VAULT_ROLE_ID: role_id, VAULT_SECRET_ID: secret_id } = world.env;
  const { auth } = await world.ask('POST', 'auth/approle/login', { role_id, secret_id }, '');
  const ask = (method, path, body) => world.ask(method, path, body, auth.client_token);
  assert.equal((await ask('GET', 'clanmeeting/creds/sales?room=sales-demo-q7fw')).status, 200);
  await world.ask('POST', 'clanmeeting/roles/board', { allowed_rooms: 'board' });
  for (const [method, path, status] of [
    ['GET', 'clanmeeting/creds/sales?room=support-4711-k7wq', 400],
    ['GET', 'clanmeeting/creds/support?room=sales-demo-q7fw', 400],
    ['GET', 'clanmeeting/creds/sales?room=event-launch-7h2k', 400],
    ['GET', 'clanmeeting/creds/sales?room=*', 400],
    ['GET', 'clanmeeting/creds/board?room=board', 403],
    ['POST', 'clanmeeting/roles/sales', 403],
    ['GET', 'clanmeeting/roles/sales', 403],
    ['GET', 'clanmeeting/config', 403],
    ['GET', 'clanmeeting/keys?list=true', 403],
    ['GET', 'identity/oidc/client/web', 403],
    ['GET', 'auth/token/lookup-self', 403],
  ]) {
    assert.equal((await ask(method, path, method === 'POST' ? {} : undefined)).status, status, path);
  }
});

test('a window that opens while the page waits', async () => {
  const launch = 'clanmeeting/roles/sales-launch';
  const opens = now() + 7_200;
  await world.ask('POST', launch, times(opens, opens + 3_600));
  const page = await world.loggedIn('ann', '/meetings/launch');
  await heading(page, 'Not open yet');
  assert.equal(await page.locator('time').getAttribute('datetime'), new Date(opens * 1000).toISOString());
  // In the browser, because Node.js may know other formats.
  const local = await page.evaluate((at) => new Date(at).toLocaleString('en-GB', {
    dateStyle: 'long', timeStyle: 'short', timeZone: 'Asia/Kolkata',
  }), opens * 1000);
  assert.equal(await page.locator('time').innerText(), local);
  assert.equal(await page.getByRole('button', { name: /start/i }).count(), 0);
  await world.look(page, 'not-open-yet');
  // Whoever clicks all the same gets no token: this one is only valid from then on.
  const early = await post(page, '/meetings/launch/start');
  assert.equal(early.status, 409);
  world.clean('the answer', early.text);

  // The page notices each change by itself.
  await world.ask('POST', launch, times(opens - 60, opens));
  await page.locator(`time[datetime="${new Date((opens - 60) * 1000).toISOString()}"]`).waitFor();
  const earlier = now() + 3;
  await world.ask('POST', launch, times(earlier, earlier + 3_600));
  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/acme/event-launch-7h2k?jwt=*');
  await heading(page, 'You are the host');
  assert.ok(claimsOf(page, 'event-launch-7h2k').nbf >= earlier);
});

test('a meeting that is over', async () => {
  const page = await world.loggedIn('ann', '/meetings/review');
  await heading(page, 'This meeting is over');
  await world.look(page, 'over');
  assert.equal((await post(page, '/meetings/review/start')).status, 410);
});

test('Vault is sealed when the host clicks, and the meeting starts when it is back', async () => {
  const [page, other] = [await world.loggedIn('ann', '/meetings/demo'), await world.loggedIn('ann')];
  await heading(page, 'You are the host');
  await world.seal();
  try {
    await startButton(page).click();
    await heading(page, 'Meetings can’t be started right now');
    await world.look(page, 'away');
    assert.equal((await other.goto(`${world.url}/meetings/demo`)).status(), 503);
    await heading(other, 'Meetings can’t be started right now');
  } finally {
    await world.unseal();
  }
  await page.waitForURL('https://meet.example.com/**');
  await heading(page, 'You are the host');
  // Nobody clicked here, so the button comes back, and no more.
  await startButton(other).waitFor();
  await page.goBack();
  await startButton(page).waitFor();
});

test('the login does not work', async () => {
  const page = await world.page();
  const made = await page.goto(`${world.url}/callback?code=made-up&state=made-up`);
  assert.equal(made.status(), 503);
  await heading(page, 'The login did not work');
  assert.ok(!(await made.text()).includes('.mjs'), 'no stack trace');
  await world.look(page, 'no-login');

  const other = await world.otherApp({ OIDC_ISSUER: 'https://localhost:1' });
  assert.equal((await page.goto(`${other}/login`)).status(), 503);
  await heading(page, 'The login did not work');
});

test('nobody is logged in by a code that their browser has not asked for', async () => {
  const { auth } = await world.ask('POST', 'auth/userpass/login/bob', { password: 'bob-password' }, '');
  const request = new URLSearchParams({
    client_id: world.env.OIDC_CLIENT_ID, redirect_uri: `${world.url}/callback`, response_type: 'code', scope: 'openid profile',
  });
  const { code } = await world.ask('GET', `identity/oidc/provider/web/authorize?${request}`, undefined, auth.client_token);
  assert.ok(code);
  const page = await world.page();
  assert.equal((await page.goto(`${world.url}/callback?code=${code}`)).status(), 503);
  assert.deepEqual(await page.context().cookies(), []);
});

test('a mistake of ours', async () => {
  const meetings = join(world.dir, 'meetings.json');
  writeFileSync(meetings, '[{ "id": "without-hosts" }]');
  const url = await world.otherApp({ MEETINGS: meetings });
  const page = await world.page();
  const response = await page.goto(url);
  assert.equal(response.status(), 500);
  await heading(page, 'Something went wrong');
  assert.ok(!(await response.text()).includes('.mjs'), 'no stack trace');
  await world.look(page, 'fault');
});

test('a setting is missing', async () => {
  const app = start(process.execPath, [file('../main.mjs')], { ...world.env, VAULT_SECRET_ID: '' });
  assert.deepEqual(await app.ended, [1, null]);
  assert.equal(app.output, 'error: set VAULT_SECRET_ID; README.md says what it is\n');
});

test('the application’s own login has expired', async () => {
  const page = await world.loggedIn('ann', '/meetings/demo');
  const accessors = await world.ask('LIST', 'auth/token/accessors');
  for (const accessor of accessors.data.keys) {
    const { data } = await world.ask('POST', 'auth/token/lookup-accessor', { accessor });
    if (data.meta?.role_name === 'web') await world.ask('POST', 'auth/token/revoke-accessor', { accessor });
  }
  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/**');
  await heading(page, 'You are the host');
});

test('the host’s login has expired', async () => {
  const page = await world.loggedIn('ann', '/meetings/demo');
  await page.context().clearCookies();
  await startButton(page).click();
  await heading(page, 'Please log in');
  await page.getByRole('link', { name: 'Log in' }).click();
  await world.fillIn(page, 'ann');
  await page.waitForURL(`${world.url}/meetings/demo`);
  await startButton(page).waitFor();

  // The browser drops the cookie in time; the application does not rely on that.
  for (const [seconds, status] of [[60, 200], [-1, 401]]) {
    await session(page, { id: 'ann', team: 'sales' }, seconds);
    assert.equal((await page.goto(`${world.url}/meetings/demo`)).status(), status);
  }
});

test('log out', async () => {
  const page = await world.loggedIn('ann');
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByRole('link', { name: 'Log in' }).waitFor();
  assert.equal((await page.goto(`${world.url}/meetings/demo`)).status(), 401);
});

test('a forwarded link makes a host until its end, and nobody afterwards', async () => {
  const page = await world.loggedIn('ann', '/meetings/demo');
  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/**');
  const stranger = await world.page();
  await stranger.goto(page.url());
  await heading(stranger, 'You are the host');

  await world.ask('POST', 'clanmeeting/roles/sales', { ttl: 1, max_ttl: 1 });
  await page.goto(`${world.url}/meetings/demo`);
  await startButton(page).click();
  await page.waitForURL('https://meet.example.com/**');
  const link = page.url();
  await world.ask('POST', 'clanmeeting/roles/sales', { ttl: 300, max_ttl: 300 });
  const { exp } = JSON.parse(Buffer.from(tokenOf(page).split('.')[1], 'base64url'));
  await until('it has ended', () => Date.now() / 1000 >= exp);
  await stranger.goto(link);
  await heading(stranger, 'You can’t come in');
  await stranger.getByText('it has expired').waitFor();
});

test('a page elsewhere can’t make a host’s browser start a meeting', async () => {
  const page = await world.loggedIn('ann');
  // Another port is the same site: the browser sends the cookie along.
  const elsewhere = await world.otherSite(new Hono().get('/', (c) => c.html(`
    <form method="post" action="${world.url}/meetings/demo/start"><button>Win</button></form>`)));
  const signed = world.signed();
  await page.goto(elsewhere);
  await page.getByRole('button').click();
  await heading(page, 'Nothing was started');
  await world.look(page, 'elsewhere');
  assert.equal(world.signed(), signed);
});

test('by keyboard alone', async () => {
  const page = await world.page({ viewport: { width: 800, height: 600 } });
  await page.goto(world.url);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim().replace(/\s+/g, ' '));
  const tabTo = async (name) => {
    for (let i = 0; i < 20 && !(await focused()).startsWith(name); i++) await page.keyboard.press('Tab');
    assert.ok((await focused()).startsWith(name), `Tab does not reach ${name}`);
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, 'none', `${name} has the focus, and does not show it`);
  };
  await tabTo('Log in');
  await page.keyboard.press('Enter');
  await heading(page, 'Log in');
  await page.keyboard.type('ann');
  await page.keyboard.press('Tab');
  await page.keyboard.type('ann-password');
  await page.keyboard.press('Enter');
  await heading(page, 'Your meetings');
  await tabTo('Demo for Meridian');
  await world.look(page, 'keyboard-list');
  await page.keyboard.press('Enter');
  await heading(page, 'You are the host');
  await tabTo('Start the meeting');
  await world.look(page, 'keyboard-start');
  await page.keyboard.press('Enter');
  await page.waitForURL('https://meet.example.com/**');
  await heading(page, 'You are the host');
});

test('headers and cookies', async () => {
  const page = await world.loggedIn('ann');
  const cookies = await page.context().cookies(world.url);
  assert.deepEqual(cookies.map(({ name, httpOnly, secure, sameSite, path }) => [name, httpOnly, secure, sameSite, path]), [
    ['__Host-session', true, true, 'Lax', '/'],
  ]);
  const request = page.context().request;
  for (const path of ['/', '/login', '/callback', '/nothing', '/meetings/demo', '/meetings/demo/embed', '/meetings/demo/start']) {
    const options = { maxRedirects: 0, headers: { 'Sec-Fetch-Site': 'same-origin' } };
    const response = path.endsWith('start') ? await request.post(world.url + path, options) : await request.get(world.url + path, options);
    const headers = response.headers();
    assert.equal(headers['referrer-policy'], 'no-referrer', path);
    assert.equal(headers['cache-control'], 'no-store', path);
    assert.match(headers['content-security-policy'], /^default-src 'none'; /, path);
    assert.match(headers['content-security-policy'], /frame-ancestors 'none'/, path);
    // Chromium takes a cookie that says nothing as Lax; not every browser does.
    if (path === '/login') {
      assert.match(headers['set-cookie'], /^__Host-login=[^;]+; Max-Age=600; Path=\/; HttpOnly; Secure; SameSite=Lax$/);
    }
    if (path.endsWith('start')) assert.match(headers.location, /^https:\/\/meet\.example\.com\/acme\/sales-demo-q7fw\?jwt=/);
    world.clean(`what ${path} answers`, await response.text());
  }
});

test('the stand-in of the meeting server refuses what a meeting server refuses', () => {
  const newKey = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
  const [ours, others] = [newKey(), newKey()];
  const publicKey = ours.publicKey.export({ type: 'spki', format: 'pem' });
  const header = { alg: 'RS256', kid: 'acme', typ: 'JWT' };
  const claims = { aud: 'clanmeeting', context: {}, exp: now() + 300, iss: 'production', nbf: now() - 30, room: 'launch', sub: 'acme' };
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const check = ({ header: head = {}, claims: changed = {}, key = ours }) => {
    const signed = `${part({ ...header, ...head })}.${part({ ...claims, ...changed })}`;
    const signature = sign('RSA-SHA256', Buffer.from(signed), key.privateKey).toString('base64url');
    return checkToken(`${signed}.${signature}`, { publicKey, consumer: 'acme', room: 'launch' });
  };
  check({});
  check({ claims: { room: '*' } });
  for (const wrong of [
    { key: others },
    { header: { alg: 'RS512' } },
    { header: { typ: 'jwt' } },
    { header: { typ: undefined } },
    { header: { kid: 'other' } },
    { claims: { sub: 'other' } },
    { claims: { aud: ['clanmeeting'] } },
    { claims: { iss: 'Production' } },
    { claims: { context: [] } },
    { claims: { room: 'launch-2' } },
    { claims: { iat: now() } },
    { claims: { exp: now() } },
    { claims: { exp: `${now() + 300}` } },
    { claims: { nbf: now() + 60 } },
  ]) {
    assert.throws(() => check(wrong), Error, JSON.stringify(wrong));
  }
});

// Keep this after the others: it looks at what they have left.
test('no secret is in the log or in a referrer', () => {
  assert.match(world.app.output, /^ann starts demo with the role sales$/m);
  assert.match(world.app.output, /^GET \/callback 303$/m);
  world.clean('the log', world.app.output);
  assert.ok(!/[?&]code=/.test(world.app.output));
  assert.ok(world.requests.length > 10);
  for (const { headers, url } of world.requests) {
    const referrer = headers.get('referer') ?? '';
    // A real meeting server, too, says to itself where a request comes from.
    assert.ok(referrer === '' || referrer.startsWith('https://meet.example.com/'), `${url} came with ${referrer}`);
  }
});

// The last, because it sets up the same Vault anew.
test('npm run dev, and the click', async () => {
  const url = `https://localhost:${await freePort()}`;
  const env = { ...process.env, VAULT_ADDR: world.addr, VAULT_TOKEN: 'root', PORT: new URL(url).port };
  const dev = start(process.execPath, [file('../dev/start.mjs')], env);
  try {
    await until('it listens', () => dev.output.includes('The application is at'));
    const page = await world.page();
    await page.goto(`${url}/meetings/demo`);
    await page.getByRole('link', { name: 'Log in' }).click();
    await world.fillIn(page, 'ann');
    await startButton(page).click();
    await page.waitForURL(`${url}/acme/sales-demo-q7fw?jwt=*`);
    await heading(page, 'You are the host');
    await page.goto(`${url}/meetings/demo/embed`);
    await page.getByRole('button', { name: 'Start the meeting here' }).click();
    await heading(page.frameLocator('iframe'), 'You are the host');
  } finally {
    await stop(dev);
  }
});
