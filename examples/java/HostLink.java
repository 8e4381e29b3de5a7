// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
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
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;

/**
 * Prints the link that opens a room as its host; with --keep, a new one each time before
 * the last expires.
 *
 * <pre>java -cp gson.jar HostLink.java [--keep] ROOM</pre>
 */
public final class HostLink {

    /** Vault said no, and would again: the room, the policy or the login is wrong. */
    public static final class Refused extends Exception {
        Refused(String message) {
            super(message);
        }
    }

    /** Vault is sealed, changing leaders, overloaded or out of reach: worth another try. */
    public static final class Unavailable extends Exception {
        Unavailable(String message) {
            super(message);
        }
    }

    /** A link, and when to read the next, as System.nanoTime(). */
    public record Link(String url, long renewAt) {}

    /** Host links from Vault. One object serves a whole application. */
    public static final class HostLinks {
        private static final Duration REQUEST_TIMEOUT = Duration.ofSeconds(10);
        private static final String NO_URL =
                "Vault's answer has no meeting_url: have domain written to the engine's config";
        private static final long[] RETRY_DELAYS = {500, 1_000, 2_000, 4_000, 8_000}; // milliseconds

        private final HttpClient http = HttpClient.newBuilder().connectTimeout(REQUEST_TIMEOUT).build();
        private final Map<String, Link> links = new ConcurrentHashMap<>();
        private final String addr;
        private final String roleId;
        private final String secretId;
        private final String credsPath;
        private volatile String vaultToken;

        /** @param credsPath the mount and the role, such as clanmeeting/creds/support */
        public HostLinks(String addr, String roleId, String secretId, String credsPath) {
            this.addr = addr;
            this.roleId = roleId;
            this.secretId = secretId;
            this.credsPath = credsPath;
        }

        /** A link for the room, read from Vault if there is none with a third of its life left. */
        public Link get(String room) throws Refused, Unavailable, InterruptedException {
            Link link = links.get(room);
            if (link == null || System.nanoTime() - link.renewAt() >= 0) {
                link = readRetrying(room);
                links.put(room, link);
            }
            return link;
        }

        private Link readRetrying(String room) throws Refused, Unavailable, InterruptedException {
            for (long delay : RETRY_DELAYS) {
                try {
                    return read(room);
                } catch (Unavailable e) {
                    System.err.println(e.getMessage() + "; trying again");
                }
                Thread.sleep(ThreadLocalRandom.current().nextLong(delay / 2, delay));
            }
            return read(room);
        }

        private Link read(String room) throws Refused, Unavailable, InterruptedException {
            String path = credsPath + "?room=" + URLEncoder.encode(room, StandardCharsets.UTF_8);
            if (vaultToken == null) {
                login();
            }
            HttpResponse<String> response = call(request(path).GET());
            if (response.statusCode() == 403) {
                // The login may have expired. With a new one, 403 is the policy's last word.
                login();
                response = call(request(path).GET());
            }
            JsonObject data = answer(response).getAsJsonObject("data");
            if (!data.has("meeting_url")) {
                throw new Refused(NO_URL);
            }
            // ttl counts from Vault's clock, so this machine's own need not be right.
            Duration ttl = Duration.ofSeconds(data.get("ttl").getAsLong());
            return new Link(data.get("meeting_url").getAsString(), System.nanoTime() + ttl.toNanos() * 2 / 3);
        }

        private void login() throws Refused, Unavailable, InterruptedException {
            JsonObject body = new JsonObject();
            body.addProperty("role_id", roleId);
            body.addProperty("secret_id", secretId);
            HttpResponse<String> response =
                    call(request("auth/approle/login").POST(BodyPublishers.ofString(body.toString())));
            vaultToken = answer(response).getAsJsonObject("auth").get("client_token").getAsString();
        }

        private HttpRequest.Builder request(String path) {
            HttpRequest.Builder request =
                    HttpRequest.newBuilder(URI.create(addr + "/v1/" + path)).timeout(REQUEST_TIMEOUT);
            return vaultToken == null ? request : request.header("X-Vault-Token", vaultToken);
        }

        private HttpResponse<String> call(HttpRequest.Builder request) throws Unavailable, InterruptedException {
            try {
                return http.send(request.build(), BodyHandlers.ofString());
            } catch (IOException e) {
                throw new Unavailable("Vault can't be reached: " + e);
            }
        }

        private static JsonObject answer(HttpResponse<String> response) throws Refused, Unavailable {
            JsonObject body = parse(response.body());
            int status = response.statusCode();
            if (status < 300) {
                return body;
            }
            String message = "Vault answered " + status + ": " + errors(body);
            if (status >= 500 || status == 429) {
                throw new Unavailable(message);
            }
            throw new Refused(message);
        }

        /** What stands between may answer in HTML: that is an empty object. */
        private static JsonObject parse(String body) {
            try {
                return JsonParser.parseString(body).getAsJsonObject();
            } catch (JsonParseException | IllegalStateException e) {
                return new JsonObject();
            }
        }

        private static String errors(JsonObject body) {
            JsonArray errors = body.has("errors") ? body.getAsJsonArray("errors") : new JsonArray();
            return StreamSupport.stream(errors.spliterator(), false)
                    .map(JsonElement::getAsString)
                    .collect(Collectors.joining(", "));
        }
    }

    private static void fail(String message) {
        System.err.println(message);
        System.exit(1);
    }

    private static String setting(String name, String fallback) {
        String value = System.getenv().getOrDefault(name, fallback);
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
                setting("VAULT_ADDR", "https://127.0.0.1:8200"),
                setting("VAULT_ROLE_ID", null),
                setting("VAULT_SECRET_ID", null),
                setting("CLANMEETING_CREDS", "clanmeeting/creds/support"));
        do {
            Link link = links.get(args[args.length - 1]);
            System.out.println(link.url());
            if (keep) {
                Thread.sleep(Math.max(0, (link.renewAt() - System.nanoTime()) / 1_000_000 + 1));
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
