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

# Replacing a key ends scheduled tokens: roles say how far ahead those reach.
path "clanmeeting/roles" {
  capabilities = ["list"]
}

path "clanmeeting/roles/*" {
  capabilities = ["read"]
}

# Before importing a key, the custodian checks that the audit log will not contain it in
# clear: audit_non_hmac_request_keys must not name private_key, and no audit device may have
# log_raw=true. (Listing the devices needs sudo. This path can do nothing else.)
path "sys/mounts/clanmeeting/tune" {
  capabilities = ["read"]
}

path "sys/audit" {
  capabilities = ["read", "sudo"]
}
