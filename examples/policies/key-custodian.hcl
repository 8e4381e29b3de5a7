# The key custodian: imports and replaces the key. Can't read the private key.

path "clanmeeting/config" {
  capabilities = ["create", "update", "read", "delete"]
}

path "clanmeeting/keys" {
  capabilities = ["list"]
}

path "clanmeeting/keys/*" {
  capabilities = ["update", "read", "delete", "list"]
}

# Before importing a key, the custodian checks that the audit log will not contain it in
# clear: audit_non_hmac_request_keys must not name private_key.
path "sys/mounts/clanmeeting/tune" {
  capabilities = ["read"]
}
