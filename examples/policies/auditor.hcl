# An auditor: reads every setting, and finds a known room or token in the audit log of the
# device "file" by its HMAC. Makes no token, and changes nothing.

path "clanmeeting/config" {
  capabilities = ["read"]
}

path "clanmeeting/keys" {
  capabilities = ["list"]
}

path "clanmeeting/keys/*" {
  capabilities = ["read", "list"]
}

path "clanmeeting/roles" {
  capabilities = ["list"]
}

path "clanmeeting/roles/*" {
  capabilities = ["read"]
}

path "sys/audit-hash/file" {
  capabilities = ["update"]
}

# What the audit log has as it is: audit_non_hmac_request_keys, and of the response.
path "sys/mounts/clanmeeting/tune" {
  capabilities = ["read"]
}
