<?php

// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

declare(strict_types=1);

namespace ClanMeeting;

/** Vault refused, and would refuse again: the room, the policy or the login is wrong. */
final class Refused extends \RuntimeException
{
}

/** Vault is sealed, changing leaders, overloaded or out of reach. */
final class Unavailable extends \RuntimeException
{
}

final class Link
{
    /** @param int $ttl seconds from now */
    public function __construct(public readonly string $url, public readonly int $ttl)
    {
    }
}

/**
 * Host links from Vault. A PHP application makes one object per request. A worker that stays
 * up keeps one object, which remembers its login.
 */
final class HostLinks
{
    private const REQUEST_TIMEOUT = 5; // seconds
    private const RETRY_FOR = 25; // seconds; a failover of Vault takes 15

    private readonly string $base;
    private ?string $vaultToken = null;

    /**
     * @param string $credsPath the mount and the role, such as clanmeeting/creds/support
     * @param string $namespace for OpenBao, Vault Enterprise and HCP; empty for none
     */
    public function __construct(
        string $addr,
        private readonly string $roleId,
        #[\SensitiveParameter] private readonly string $secretId,
        private readonly string $credsPath,
        private readonly string $namespace = '',
    ) {
        if (!preg_match('#^https?://#', $addr)) {
            throw new Refused("{$addr} is not the address of a Vault: it must begin with https:// or http://");
        }
        $this->base = rtrim($addr, '/') . '/v1/';
    }

    /** A new link. Whoever opens it is the host of the room. */
    public function get(string $room): Link
    {
        $deadline = self::now() + self::RETRY_FOR;
        for ($delay = 0.5;; $delay = min($delay * 2, 4)) {
            try {
                return $this->read($room);
            } catch (Unavailable $e) {
                if (self::now() + $delay > $deadline) {
                    throw $e;
                }
                error_log("{$e->getMessage()}; trying again");
            }
            usleep((int) ($delay * random_int(500_000, 1_500_000)));
        }
    }

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }

    private function read(string $room): Link
    {
        $path = "{$this->credsPath}?" . http_build_query(['room' => $room]);
        $this->vaultToken ??= $this->login();
        [$status, $body] = $this->call('GET', $path);
        if ($status === 403) {
            // The login may have expired. If a new login gets 403 too, the policy refuses.
            $this->vaultToken = $this->login();
            [$status, $body] = $this->call('GET', $path);
        }
        $data = $this->answer($status, $body, $this->credsPath, 'data');
        if (!isset($data['meeting_url'])) {
            throw new Refused("Vault's answer has no meeting_url: the engine's config needs a domain, and room * has no link");
        }
        return new Link($data['meeting_url'], $data['ttl']);
    }

    private function login(): string
    {
        $this->vaultToken = null;
        $path = 'auth/approle/login';
        [$status, $body] = $this->call('POST', $path, ['role_id' => $this->roleId, 'secret_id' => $this->secretId]);
        return $this->answer($status, $body, $path, 'auth')['client_token'];
    }

    /**
     * curl follows no redirects by default. They would hand the token or the secret ID to another
     * host.
     *
     * @return array{int, string} status and body
     */
    private function call(string $method, string $path, #[\SensitiveParameter] ?array $body = null): array
    {
        $headers = $this->vaultToken === null ? [] : ["X-Vault-Token: {$this->vaultToken}"];
        if ($this->namespace !== '') {
            $headers[] = "X-Vault-Namespace: {$this->namespace}";
        }
        $curl = curl_init($this->base . $path);
        if ($body !== null) {
            $headers[] = 'Content-Type: application/json';
            curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode($body, JSON_THROW_ON_ERROR));
        }
        curl_setopt_array($curl, [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => self::REQUEST_TIMEOUT,
            CURLOPT_HTTPHEADER => $headers,
        ]);
        $text = curl_exec($curl);
        if ($text === false) {
            throw new Unavailable("Vault can't be reached at {$this->base}: " . curl_error($curl));
        }
        return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $text];
    }

    /** One part of the answer to a request of the path. A proxy in front of Vault may answer with HTML. */
    private function answer(int $status, string $body, string $path, string $part): array
    {
        $answer = json_decode($body, true);
        if ($status === 200 && is_array($answer[$part] ?? null)) {
            return $answer[$part];
        }
        $errors = $answer['errors'] ?? null;
        $message = is_array($errors)
            ? "Vault answered {$status} to {$path}: " . trim(preg_replace('/\s+/', ' ', implode(', ', array_filter($errors, is_string(...)))))
            : "the answer to {$path} ({$status}) is not from Vault";
        throw $status < 400 || $status === 429 || $status >= 500 ? new Unavailable($message) : new Refused($message);
    }
}
