// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// verify PUBLIC_KEY_FILE TOKEN CONSUMER_ID ROOM: as a meeting server would, with jsonwebtoken.
// sign PRIVATE_KEY_FILE CONSUMER_ID ROOM NBF EXP: the token of the vendor's snippet, without
// the iat that jsonwebtoken adds by itself.
const fs = require('fs');
const jwt = require('jsonwebtoken');

function verify(keyFile, token, consumer, room) {
  const { header, payload } = jwt.verify(token, fs.readFileSync(keyFile), {
    algorithms: ['RS256'], audience: 'clanmeeting', issuer: 'production', subject: consumer, complete: true,
  });
  if (header.typ !== 'JWT' || header.kid !== consumer) throw new Error('wrong header');
  if (typeof payload.aud !== 'string') throw new Error('aud is no string');
  if (!Number.isInteger(payload.nbf) || !Number.isInteger(payload.exp)) throw new Error('nbf or exp is missing');
  if (payload.room !== room) throw new Error('wrong room');
}

function sign(keyFile, consumer, room, nbf, exp) {
  const claims = { sub: consumer, aud: 'clanmeeting', iss: 'production', room, exp: Number(exp), nbf: Number(nbf), context: {} };
  console.log(jwt.sign(claims, fs.readFileSync(keyFile), { keyid: consumer, algorithm: 'RS256', noTimestamp: true }));
}

const [command, ...args] = process.argv.slice(2);
try {
  ({ verify, sign })[command](...args);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
