# Copyright (c) The vault-plugin-secrets-clanmeeting authors
# SPDX-License-Identifier: MPL-2.0

"""verify PUBLIC_KEY_FILE TOKEN CONSUMER_ID ROOM: as a meeting server would, with PyJWT.
sign PRIVATE_KEY_FILE CONSUMER_ID ROOM NBF EXP: the token of the vendor's snippet, with
times in UTC."""

import sys

import jwt


def verify(key_file, token, consumer, room):
    with open(key_file, encoding="ascii") as file:
        key = file.read()
    claims = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience="clanmeeting",
        issuer="production",
        options={"require": ["exp", "nbf", "aud", "iss", "sub"]},
    )
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "JWT" or header.get("kid") != consumer:
        raise jwt.InvalidTokenError("wrong header")
    if not isinstance(claims["aud"], str):
        raise jwt.InvalidTokenError("aud is no string")
    if claims["sub"] != consumer:
        raise jwt.InvalidTokenError("wrong sub")
    if claims.get("room") != room:
        raise jwt.InvalidTokenError("wrong room")


def sign(key_file, consumer, room, nbf, exp):
    with open(key_file, encoding="ascii") as file:
        key = file.read()
    claims = {
        "sub": consumer,
        "aud": "clanmeeting",
        "iss": "production",
        "room": room,
        "exp": int(exp),
        "nbf": int(nbf),
        "context": {},
    }
    print(jwt.encode(claims, key, algorithm="RS256", headers={"kid": consumer}))


try:
    {"verify": verify, "sign": sign}[sys.argv[1]](*sys.argv[2:])
except jwt.InvalidTokenError as error:
    sys.exit(str(error))
