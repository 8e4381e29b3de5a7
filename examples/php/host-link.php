<?php

// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Prints the link that opens a room as its host. With --keep, prints a new one
// before the last expires.
//
//   php host-link.php [--keep] ROOM

declare(strict_types=1);

use ClanMeeting\HostLinks;
use ClanMeeting\Refused;
use ClanMeeting\Unavailable;

require __DIR__ . '/HostLinks.php';

function fail(string $message): never
{
    fwrite(STDERR, $message . "\n");
    exit(1);
}

function setting(string $name): string
{
    return getenv($name) ?: fail("error: set {$name}");
}

$keep = ($argv[1] ?? '') === '--keep';
$room = $argv[$keep ? 2 : 1] ?? fail('usage: php host-link.php [--keep] ROOM');
try {
    $links = new HostLinks(
        addr: setting('VAULT_ADDR'),
        roleId: setting('VAULT_ROLE_ID'),
        secretId: setting('VAULT_SECRET_ID'),
        credsPath: getenv('CLANMEETING_CREDS') ?: 'clanmeeting/creds/support',
        namespace: getenv('VAULT_NAMESPACE') ?: '',
    );
    do {
        $link = $links->get($room);
        echo $link->url, "\n";
        if ($keep) {
            usleep((int) ($link->ttl * 1e6 * 2 / 3));
        }
    } while ($keep);
} catch (Refused | Unavailable $e) {
    fail("error: {$e->getMessage()}");
}
