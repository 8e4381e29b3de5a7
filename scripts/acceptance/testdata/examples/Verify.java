// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.time.Instant;
import java.util.Base64;

/**
 * verify PUBLIC_KEY_FILE TOKEN CONSUMER_ID ROOM: as a meeting server would, with java.security.
 *
 * <p>sign PRIVATE_KEY_FILE CONSUMER_ID ROOM NBF EXP: the token of the vendor's snippet, with
 * the typ that it leaves out and an aud that is a string.
 */
public final class Verify {

    private static byte[] pem(String file) throws Exception {
        String text = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----", "");
        return Base64.getMimeDecoder().decode(text);
    }

    private static JsonObject object(String part) {
        byte[] json = Base64.getUrlDecoder().decode(part);
        return JsonParser.parseString(new String(json, StandardCharsets.UTF_8)).getAsJsonObject();
    }

    private static void check(boolean ok, String message) {
        if (!ok) {
            System.err.println(message);
            System.exit(1);
        }
    }

    private static boolean is(JsonObject object, String name, String value) {
        return object.get(name).isJsonPrimitive() && object.get(name).getAsString().equals(value);
    }

    private static void verify(String keyFile, String token, String consumer, String room) throws Exception {
        String[] parts = token.split("\\.");
        Signature signature = Signature.getInstance("SHA256withRSA");
        signature.initVerify(KeyFactory.getInstance("RSA").generatePublic(new X509EncodedKeySpec(pem(keyFile))));
        signature.update((parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII));
        byte[] given = Base64.getUrlDecoder().decode(parts[2]);
        check(given.length == 256 && signature.verify(given), "wrong signature");
        JsonObject header = object(parts[0]);
        check(is(header, "alg", "RS256") && is(header, "typ", "JWT") && is(header, "kid", consumer), "wrong header");
        JsonObject claims = object(parts[1]);
        check(is(claims, "aud", "clanmeeting"), "wrong aud");
        check(is(claims, "iss", "production"), "wrong iss");
        check(is(claims, "sub", consumer), "wrong sub");
        check(is(claims, "room", room), "wrong room");
        long now = Instant.now().getEpochSecond();
        check(now >= claims.get("nbf").getAsLong(), "not valid yet");
        check(now < claims.get("exp").getAsLong(), "expired");
    }

    private static String encode(byte[] raw) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(raw);
    }

    private static void sign(String keyFile, String consumer, String room, String nbf, String exp) throws Exception {
        JsonObject header = new JsonObject();
        header.addProperty("kid", consumer);
        header.addProperty("alg", "RS256");
        header.addProperty("typ", "JWT");
        JsonObject claims = new JsonObject();
        claims.addProperty("sub", consumer);
        claims.addProperty("aud", "clanmeeting");
        claims.addProperty("iss", "production");
        claims.addProperty("room", room);
        claims.addProperty("exp", Long.parseLong(exp));
        claims.addProperty("nbf", Long.parseLong(nbf));
        claims.add("context", new JsonObject());
        String signed = encode(header.toString().getBytes(StandardCharsets.UTF_8))
                + "." + encode(claims.toString().getBytes(StandardCharsets.UTF_8));
        Signature signature = Signature.getInstance("SHA256withRSA");
        signature.initSign(KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(pem(keyFile))));
        signature.update(signed.getBytes(StandardCharsets.US_ASCII));
        System.out.println(signed + "." + encode(signature.sign()));
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("verify")) {
            verify(args[1], args[2], args[3], args[4]);
        } else {
            sign(args[1], args[2], args[3], args[4], args[5]);
        }
    }
}
