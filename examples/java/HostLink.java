// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;

/**
 * Prints the link that opens a room as its host. With --keep, prints a new one before
 * the last expires.
 *
 * <pre>java -cp gson.jar HostLink.java [--keep] ROOM</pre>
 */
public final class HostLink {
    private static final System.Logger LOGGER = System.getLogger(HostLink.class.getName());

    /** Vault refused, and would refuse again: the room, the policy or the login is wrong. */
    public static final class Refused extends Exception {
        Refused(String message) {
            super(message);
        }
    }

    /** Vault is sealed, changing leaders, overloaded or out of reach. */
    public static final class Unavailable extends Exception {
        Unavailable(String message) {
            super(message);
        }
    }

    /** @param ttl seconds from now */
    public record Link(String url, long ttl) {}

    /** Host links from Vault. Use one object for the whole application. */
    public static final class HostLinks {
        private static final Duration REQUEST_TIMEOUT = Duration.ofSeconds(5);
        /** A failover of Vault takes 15 seconds. */
        private static final Duration RETRY_FOR = Duration.ofSeconds(25);

        /** Follows no redirects: they would hand the token or the secret ID to another host. */
        private final HttpClient http = HttpClient.newBuilder().connectTimeout(REQUEST_TIMEOUT).build();

        private final String base;
        private final String roleId;
        private final String secretId;
        private final String credsPath;
        private final String namespace;
        private String vaultToken;

        /**
         * @param credsPath the mount and the role, such as clanmeeting/creds/support
         * @param namespace for OpenBao, Vault Enterprise and HCP; null for none
         */
        public HostLinks(String addr, String roleId, String secretId, String credsPath, String namespace) throws Refused {
            if (!addr.startsWith("https://") && !addr.startsWith("http://")) {
                throw new Refused(addr + " is not the address of a Vault: it must begin with https:// or http://");
            }
            this.base = addr.replaceAll("/+$", "") + "/v1/";
            this.roleId = roleId;
            this.secretId = secretId;
            this.credsPath = credsPath;
            this.namespace = namespace;
        }

        /** A new link. Whoever opens it is the host of the room. */
        public Link get(String room) throws Refused, Unavailable, InterruptedException {
            long deadline = System.nanoTime() + RETRY_FOR.toNanos();
            for (long delay = 500; ; delay = Math.min(delay * 2, 4_000)) {
                try {
                    return read(room);
                } catch (Unavailable e) {
                    if (System.nanoTime() + delay * 1_000_000 - deadline > 0) {
                        throw e;
                    }
                    LOGGER.log(System.Logger.Level.WARNING, e.getMessage() + "; trying again");
                }
                Thread.sleep(ThreadLocalRandom.current().nextLong(delay / 2, delay * 3 / 2));
            }
        }

        private Link read(String room) throws Refused, Unavailable, InterruptedException {
            String path = credsPath + "?room=" + URLEncoder.encode(room, StandardCharsets.UTF_8);
            String token = login(null);
            HttpResponse<String> response = call(request(path).header("X-Vault-Token", token).GET());
            if (response.statusCode() == 403) {
                // The login may have expired. If a new login gets 403 too, the policy refuses.
                response = call(request(path).header("X-Vault-Token", login(token)).GET());
            }
            JsonObject data = answer(response, credsPath, "data");
            if (!data.has("meeting_url")) {
                throw new Refused("Vault's answer has no meeting_url: the engine's config needs a domain, and room * has no link");
            }
            return new Link(data.get("meeting_url").getAsString(), data.get("ttl").getAsLong());
        }

        /** The Vault token, or a new one if this one has expired. All threads share one login. */
        private synchronized String login(String expired) throws Refused, Unavailable, InterruptedException {
            if (Objects.equals(vaultToken, expired)) {
                JsonObject body = new JsonObject();
                body.addProperty("role_id", roleId);
                body.addProperty("secret_id", secretId);
                String path = "auth/approle/login";
                HttpRequest.Builder login = request(path)
                        .header("Content-Type", "application/json")
                        .POST(BodyPublishers.ofString(body.toString()));
                vaultToken = answer(call(login), path, "auth").get("client_token").getAsString();
            }
            return vaultToken;
        }

        private HttpRequest.Builder request(String path) {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(base + path)).timeout(REQUEST_TIMEOUT);
            return namespace == null || namespace.isEmpty() ? request : request.header("X-Vault-Namespace", namespace);
        }

        private HttpResponse<String> call(HttpRequest.Builder request) throws Unavailable, InterruptedException {
            try {
                return http.send(request.build(), BodyHandlers.ofString());
            } catch (IOException | IllegalArgumentException e) { // the latter if Content-Length is not a number
                throw new Unavailable("Vault can't be reached at " + base + ": " + e);
            }
        }

        /** One part of the answer to a request of the path. */
        private static JsonObject answer(HttpResponse<String> response, String path, String part) throws Refused, Unavailable {
            JsonObject body = parse(response.body());
            int status = response.statusCode();
            if (status == 200 && body.get(part) instanceof JsonObject found) {
                return found;
            }
            String message = "the answer to " + path + " (" + status + ") is not from Vault";
            if (body.get("errors") instanceof JsonArray errors) {
                message = "Vault answered " + status + " to " + path + ": " + joined(errors);
            }
            if (status < 400 || status == 429 || status >= 500) {
                throw new Unavailable(message);
            }
            throw new Refused(message);
        }

        /** A proxy in front of Vault may answer with HTML, which counts as an empty answer. */
        private static JsonObject parse(String body) {
            try {
                return JsonParser.parseString(body).getAsJsonObject();
            } catch (JsonParseException | IllegalStateException e) {
                return new JsonObject();
            }
        }

        private static String joined(JsonArray errors) {
            return StreamSupport.stream(errors.spliterator(), false)
                    .map(e -> e.isJsonPrimitive() ? e.getAsString() : e.toString())
                    .collect(Collectors.joining(", "))
                    .replaceAll("\\s+", " ")
                    .strip();
        }
    }

    private static void fail(String message) {
        System.err.println(message);
        System.exit(1);
    }

    private static String setting(String name) {
        String value = System.getenv(name);
        if (value == null) {
            fail("error: set " + name);
        }
        return value;
    }

    private static void run(String[] args) throws Refused, Unavailable, InterruptedException {
        boolean keep = args.length > 0 && args[0].equals("--keep");
        if (args.length != (keep ? 2 : 1)) {
            fail("usage: java -cp gson.jar HostLink.java [--keep] ROOM");
        }
        HostLinks links = new HostLinks(
                setting("VAULT_ADDR"),
                setting("VAULT_ROLE_ID"),
                setting("VAULT_SECRET_ID"),
                System.getenv().getOrDefault("CLANMEETING_CREDS", "clanmeeting/creds/support"),
                System.getenv("VAULT_NAMESPACE"));
        do {
            Link link = links.get(args[args.length - 1]);
            System.out.println(link.url());
            if (keep) {
                Thread.sleep(link.ttl() * 1000 * 2 / 3);
            }
        } while (keep);
    }

    public static void main(String[] args) throws InterruptedException {
        try {
            run(args);
        } catch (Refused | Unavailable e) {
            fail("error: " + e.getMessage());
        }
    }
}
