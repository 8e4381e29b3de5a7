// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// The vendor's snippet, for comparison: a service that has the key itself and signs
// with jsonwebtoken. Its argument is the key's file. It prints the port that it found free.
const fs = require('fs');
const http = require('http');
const jwt = require('jsonwebtoken');

const key = fs.readFileSync(process.argv[2]);

const server = http.createServer((req, res) => {
  const room = new URL(req.url, 'http://localhost').searchParams.get('room');
  const now = Math.floor(Date.now() / 1000);
  const claims = { aud: 'clanmeeting', iss: 'production', sub: 'acme', room, context: {}, nbf: now - 30, exp: now + 300 };
  const token = jwt.sign(claims, key, { algorithm: 'RS256', keyid: 'acme', noTimestamp: true });
  res.setHeader('Content-Type', 'application/json');
  res.end(JSON.stringify({ data: { token, room } }));
}).listen(0, '127.0.0.1', () => console.log(server.address().port));
