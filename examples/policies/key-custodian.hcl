# The custodian of the key: brings it in and replaces it. Can't get it out.

path "clanmeeting/config" {
  capabilities = ["create", "update", "read", "delete"]
}

path "clanmeeting/keys" {
  capabilities = ["list"]
}

path "clanmeeting/keys/*" {
  capabilities = ["update", "read", "delete", "list"]
}

# Before a key comes in, the custodian checks that the audit log will not have it in clear:
# that audit_non_hmac_request_keys does not name private_key.
path "sys/mounts/clanmeeting/tune" {
  capabilities = ["read"]
}
