# The custodian of the key: brings it in, replaces it, and can't get it out.

path "clanmeeting/config" {
  capabilities = ["create", "update", "read", "delete"]
}

path "clanmeeting/keys" {
  capabilities = ["list"]
}

path "clanmeeting/keys/*" {
  capabilities = ["update", "read", "delete", "list"]
}

# To look, before a key comes in, that the audit log will not have it as it is: that there is
# no audit_non_hmac_request_keys with private_key in it.
path "sys/mounts/clanmeeting/tune" {
  capabilities = ["read"]
}
