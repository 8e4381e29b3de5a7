<?php

// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Prints the link that opens a room as its host; with --keep, a new one each time
// before the last expires.
//
//   php host-link.php [--keep] ROOM

declare(strict_types=1);

/** Vault said no, and would again: the room, the policy or the login is wrong. */
class Refused extends RuntimeException
{
}

/** Vault is sealed, changing leaders, overloaded or out of reach: worth another try. */
class Unavailable extends RuntimeException
{
}

/** A link, and when to read the next, in seconds of the monotonic clock. */
final class Link
{
    public function __construct(public readonly string $url, public readonly float $renewAt)
    {
    }
}

/**
 * Host links from Vault. A PHP application makes one per request; a worker that stays
 * up keeps one, which remembers its login and its links.
 */
final class HostLinks
{
    private const REQUEST_TIMEOUT = 10; // seconds
    private const NO_URL = "Vault's answer has no meeting_url: have domain written to the engine's config";
    private const RETRY_DELAYS = [0.5, 1, 2, 4, 8]; // seconds

    private ?string $vaultToken = null;

    /** @var array<string, Link> */
    private array $links = [];

    /** @param string $credsPath the mount and the role, such as clanmeeting/creds/support */
    public function __construct(
        private readonly string $addr,
        private readonly string $roleId,
        private readonly string $secretId,
        private readonly string $credsPath,
    ) {
    }

    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }

    /** A link for the room, read from Vault if there is none with a third of its life left. */
    public function get(string $room): Link
    {
        $link = $this->links[$room] ?? null;
        if ($link === null || self::now() >= $link->renewAt) {
            $link = $this->links[$room] = $this->retrying(fn () => $this->read($room));
        }
        return $link;
    }

    private function retrying(callable $attempt): Link
    {
        foreach (self::RETRY_DELAYS as $delay) {
            try {
                return $attempt();
            } catch (Unavailable $e) {
                error_log("{$e->getMessage()}; trying again");
            }
            usleep((int) ($delay * random_int(500_000, 1_000_000)));
        }
        return $attempt();
    }

    private function read(string $room): Link
    {
        $path = "{$this->credsPath}?" . http_build_query(['room' => $room]);
        if ($this->vaultToken === null) {
            $this->login();
        }
        [$status, $body] = $this->call('GET', $path);
        if ($status === 403) {
            // The login may have expired. With a new one, 403 is the policy's last word.
            $this->login();
            [$status, $body] = $this->call('GET', $path);
        }
        $data = $this->answer($status, $body)['data'];
        if (!isset($data['meeting_url'])) {
            throw new Refused(self::NO_URL);
        }
        // ttl counts from Vault's clock, so this machine's own need not be right.
        return new Link($data['meeting_url'], self::now() + $data['ttl'] * 2 / 3);
    }

    private function login(): void
    {
        [$status, $body] = $this->call('POST', 'auth/approle/login', [
            'role_id' => $this->roleId,
            'secret_id' => $this->secretId,
        ]);
        $this->vaultToken = $this->answer($status, $body)['auth']['client_token'];
    }

    /** @return array{int, string} status and body */
    private function call(string $method, string $path, ?array $body = null): array
    {
        $curl = curl_init("{$this->addr}/v1/{$path}");
        curl_setopt_array($curl, [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => self::REQUEST_TIMEOUT,
            CURLOPT_HTTPHEADER => $this->vaultToken === null ? [] : ["X-Vault-Token: {$this->vaultToken}"],
        ]);
        if ($body !== null) {
            curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode($body, JSON_THROW_ON_ERROR));
        }
        $text = curl_exec($curl);
        if ($text === false) {
            throw new Unavailable("Vault can't be reached: " . curl_error($curl));
        }
        return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $text];
    }

    /** The body's JSON, if the status is one of success. */
    private function answer(int $status, string $body): array
    {
        $answer = json_decode($body, true) ?? [];
        if ($status < 300) {
            return $answer;
        }
        $message = "Vault answered {$status}: " . implode(', ', $answer['errors'] ?? []);
        throw $status >= 500 || $status === 429 ? new Unavailable($message) : new Refused($message);
    }
}

function fail(string $message): never
{
    fwrite(STDERR, $message . "\n");
    exit(1);
}

function setting(string $name, ?string $default = null): string
{
    $value = getenv($name);
    return $value !== false ? $value : $default ?? fail("error: set {$name}");
}

function main(array $args): void
{
    $keep = ($args[0] ?? '') === '--keep';
    $room = $args[$keep ? 1 : 0] ?? fail('usage: php host-link.php [--keep] ROOM');
    $links = new HostLinks(
        addr: setting('VAULT_ADDR', 'https://127.0.0.1:8200'),
        roleId: setting('VAULT_ROLE_ID'),
        secretId: setting('VAULT_SECRET_ID'),
        credsPath: setting('CLANMEETING_CREDS', 'clanmeeting/creds/support'),
    );
    do {
        $link = $links->get($room);
        echo $link->url, "\n";
        if ($keep) {
            usleep((int) (max(0, $link->renewAt - HostLinks::now()) * 1e6));
        }
    } while ($keep);
}

if (realpath($_SERVER['SCRIPT_FILENAME']) === __FILE__) {
    try {
        main(array_slice($argv, 1));
    } catch (Refused | Unavailable $e) {
        fail("error: {$e->getMessage()}");
    }
}
