<?php

// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// verify PUBLIC_KEY_FILE TOKEN CONSUMER_ID ROOM: as a meeting server would, with openssl_verify.
// sign PRIVATE_KEY_FILE CONSUMER_ID ROOM NBF EXP: the token of the vendor's snippet, with a
// context that is an object.

declare(strict_types=1);

function decode(string $part): string
{
    return base64_decode(strtr($part, '-_', '+/'), true);
}

function encode(string $text): string
{
    return rtrim(strtr(base64_encode($text), '+/', '-_'), '=');
}

function check(bool $ok, string $message): void
{
    if (!$ok) {
        fwrite(STDERR, $message . "\n");
        exit(1);
    }
}

function verify(string $keyFile, string $token, string $consumer, string $room): void
{
    [$header, $claims, $signature] = explode('.', $token);
    $given = openssl_verify("$header.$claims", decode($signature), file_get_contents($keyFile), OPENSSL_ALGO_SHA256);
    check($given === 1, 'wrong signature');
    $header = json_decode(decode($header), true);
    $claims = json_decode(decode($claims), true);
    check($header['alg'] === 'RS256' && $header['typ'] === 'JWT' && $header['kid'] === $consumer, 'wrong header');
    check($claims['aud'] === 'clanmeeting', 'wrong aud');
    check($claims['iss'] === 'production', 'wrong iss');
    check($claims['sub'] === $consumer, 'wrong sub');
    check($claims['room'] === $room, 'wrong room');
    check(is_int($claims['nbf']) && time() >= $claims['nbf'], 'not valid yet');
    check(is_int($claims['exp']) && time() < $claims['exp'], 'expired');
}

function sign(string $keyFile, string $consumer, string $room, string $nbf, string $exp): void
{
    $signed = encode(json_encode(['typ' => 'JWT', 'alg' => 'RS256', 'kid' => $consumer])) . '.' . encode(json_encode([
        'sub' => $consumer,
        'aud' => 'clanmeeting',
        'iss' => 'production',
        'room' => $room,
        'exp' => (int) $exp,
        'nbf' => (int) $nbf,
        'context' => new stdClass(),
    ]));
    openssl_sign($signed, $signature, file_get_contents($keyFile), OPENSSL_ALGO_SHA256);
    echo $signed, '.', encode($signature), "\n";
}

$argv[1](...array_slice($argv, 2));
