// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// What the test needs around the application: a Vault with the plugin, the stand-ins, the
// application itself as its own process, and a browser.

import { serve } from '@hono/node-server';
import axe from 'axe-core';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import { createServer as listenOn } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { logins } from '../dev/login-page.mjs';
import { meetings } from '../dev/meeting-server.mjs';
import { setUp } from '../dev/setup.mjs';

const folder = (path) => fileURLToPath(new URL(path, import.meta.url));
const screenshots = folder('../../../.cache/web-screenshots/');
// On a slow machine everything takes longer. No test needs anything to be fast.
const PATIENCE = 60_000;

export async function freePort() {
  const server = listenOn().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Asks until the answer is true. */
export async function until(what, ask) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 100))) {
    if (await ask()) return;
  }
  assert.fail(`this did not happen: ${what}`);
}

/** A process of ours, and what it has printed. */
export function start(file, args, env) {
  const child = spawn(file, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const running = { child, output: '', ended: once(child, 'exit') };
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      running.output += data;
    });
  }
  return running;
}

export async function stop({ child, ended }) {
  child.kill();
  await ended;
}

export class World {
  #ends = [];
  /** Requests to the meeting server. */
  requests = [];

  async begin() {
    this.dir = mkdtempSync(join(tmpdir(), 'clanmeeting-web-test-'));
    this.#ends.push(() => rmSync(this.dir, { recursive: true }));
    await this.#beginVault();
    const [app, logs, meets] = [await freePort(), await freePort(), await freePort()];
    this.url = `https://localhost:${app}`;
    const now = Math.floor(Date.now() / 1000);
    this.env = setUp({
      vault: process.env.VAULT_BIN,
      addr: this.addr,
      token: 'root',
      dir: this.dir,
      publicURL: this.url,
      issuer: `https://localhost:${logs}`,
      launch: [now + 3_600, now + 7_200],
    });
    this.env.SESSION_KEY = Buffer.alloc(32, 'of the test').toString('base64');
    this.#serve(logins(this.addr), logs);
    this.#serve(meetings({ publicKey: this.env.PUBLIC_KEY, consumer: 'acme' }), meets, (request) => this.requests.push(request));

    this.app = await this.#runApp(this.env);

    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync',
        `--host-resolver-rules=MAP meet.example.com:443 127.0.0.1:${meets}`],
    });
    this.#ends.push(() => this.browser.close());
  }

  async end() {
    for (const end of this.#ends.reverse()) await end();
  }

  async #beginVault() {
    const port = await freePort();
    this.addr = `http://127.0.0.1:${port}`;
    this.vault = start(process.env.VAULT_BIN, ['server', '-dev', '-dev-no-store-token', '-dev-root-token-id=root',
      `-dev-plugin-dir=${process.env.PLUGIN_DIR}`, `-dev-listen-address=127.0.0.1:${port}`], { PATH: process.env.PATH, HOME: this.dir });
    this.#ends.push(() => stop(this.vault));
    await until('Vault is ready, with the plugin', async () => {
      assert.equal(this.vault.child.exitCode, null, this.vault.output);
      const catalog = await this.ask('GET', 'sys/plugins/catalog').catch(() => undefined);
      return JSON.stringify(catalog)?.includes('vault-plugin-secrets-clanmeeting') && this.vault.output.includes('Unseal Key: ');
    });
    this.unsealKey = /Unseal Key: (\S+)/.exec(this.vault.output)[1];
    await this.ask('POST', 'sys/mounts/clanmeeting', { type: 'vault-plugin-secrets-clanmeeting' });
    this.audit = join(this.dir, 'audit.log');
    await this.ask('POST', 'sys/audit/file', { type: 'file', options: { file_path: this.audit } });
  }

  #serve(site, port, onRequest) {
    const tls = { createServer, serverOptions: { cert: readFileSync(this.env.TLS_CERT), key: readFileSync(this.env.TLS_KEY) } };
    const server = serve({
      ...tls,
      hostname: '127.0.0.1',
      port,
      fetch(request, env) {
        onRequest?.(request);
        return site.fetch(request, env);
      },
    });
    this.#ends.push(() => {
      server.closeAllConnections();
      server.close();
    });
  }

  async #runApp(env) {
    const app = start(process.execPath, [folder('../main.mjs')], env);
    this.#ends.push(() => stop(app));
    await until('the application listens', () => app.output.includes('The application is at'));
    return app;
  }

  /** Runs the application once more, with other settings. */
  async otherApp(settings) {
    const port = await freePort();
    await this.#runApp({ ...this.env, PORT: port, ...settings });
    return `https://localhost:${port}`;
  }

  /** A page of another site, or of another port of this one. */
  async otherSite(site) {
    const port = await freePort();
    this.#serve(site, port);
    return `https://localhost:${port}`;
  }

  /** A request to Vault, by default as root. */
  async ask(method, path, body, token = 'root') {
    const options = { method, body: body && JSON.stringify(body), headers: { 'X-Vault-Token': token } };
    const response = await fetch(`${this.addr}/v1/${path}`, options);
    const text = await response.text();
    return { status: response.status, ...(text && JSON.parse(text)) };
  }

  async seal() {
    assert.equal((await this.ask('POST', 'sys/seal')).status, 204);
  }

  async unseal() {
    assert.equal((await this.ask('POST', 'sys/unseal', { key: this.unsealKey })).sealed, false);
    await until('Vault serves', async () => (await this.ask('GET', 'clanmeeting/config')).status === 200);
  }

  /** How many tokens Vault has signed so far. */
  signed() {
    const lines = readFileSync(this.audit, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const ofToken = ({ type, request, response }) =>
      type === 'response' && request.path.startsWith('clanmeeting/creds/') && response?.data?.token;
    return lines.filter(ofToken).length;
  }

  /** A page of a browser of its own. */
  async page(options) {
    const context = await this.browser.newContext({ ignoreHTTPSErrors: true, locale: 'en-GB', timezoneId: 'Asia/Kolkata', ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    page.on('pageerror', (error) => assert.fail(error));
    return page;
  }

  async loggedIn(user, path = '/') {
    const page = await this.page();
    await page.goto(this.url + path);
    await page.getByRole('link', { name: 'Log in' }).click();
    await this.fillIn(page, user);
    await page.waitForURL(this.url + path);
    return page;
  }

  async fillIn(page, user) {
    await page.getByLabel('Name').fill(user);
    await page.getByLabel('Password').fill(`${user}-password`);
    await page.getByRole('button', { name: 'Log in' }).click();
  }

  /** No token, login or key is in a text. */
  clean(what, text) {
    for (const secret of [/eyJ[\w-]{8}/, /\bhv[sb]\./, /PRIVATE KEY/, this.env.VAULT_SECRET_ID, this.env.OIDC_CLIENT_SECRET]) {
      const found = typeof secret === 'string' ? text.includes(secret) : secret.test(text);
      assert.ok(!found, `${what} has ${secret}: ${text}`);
    }
  }

  /** Takes pictures of the page, and looks for secrets and for what keeps people out. */
  async look(page, name) {
    this.clean(`the page ${name}`, await page.content());
    const stored = await page.evaluate(async () => JSON.stringify([
      { ...localStorage }, { ...sessionStorage }, document.cookie, history.state, window.name,
      await indexedDB.databases(), await caches.keys(),
    ]));
    assert.equal(stored, '[{},{},"",null,"",[],[]]');

    mkdirSync(screenshots, { recursive: true });
    await page.evaluate(axe.source);
    for (const colorScheme of ['light', 'dark']) {
      for (const [size, width] of [['narrow', 360], ['wide', 1000]]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 440 });
        await page.screenshot({ path: join(screenshots, `${name}-${size}-${colorScheme}.png`), fullPage: true });
        const { violations } = await page.evaluate(() => window.axe.run());
        assert.deepEqual(violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]), [], `${name}, ${size}, ${colorScheme}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${name} is ${wide} pixels wide in a window of ${width}`);
      }
    }
    await page.emulateMedia({ colorScheme: 'light' });
  }
}
