# An auditor: reads every setting. Finds a known room or token in the log of the audit device
# "file" by its HMAC. Can't get a token or change anything.

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

# Show what is in clear in the audit log: audit_non_hmac_request_keys and
# audit_non_hmac_response_keys of the mount, and log_raw of an audit device. (Listing the
# devices needs sudo. This path can do nothing else.)
path "sys/mounts/clanmeeting/tune" {
  capabilities = ["read"]
}

path "sys/audit" {
  capabilities = ["read", "sudo"]
}
