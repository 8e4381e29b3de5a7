# Keeps a valid token in the file host-token, for a role with generate_lease.
#
#   vault agent -config=leased.hcl

auto_auth {
  method {
    type = "approle"
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false # a restarted agent needs it again
    }
  }
}

template_config {
  # The agent reads again after this part of the lease, plus or minus 5 % of the lease.
  # The rest of the lease must outlast any Vault outage: a failover takes 15 s.
  lease_renewal_threshold = 0.66
}

template {
  contents             = "{{ with secret \"clanmeeting/creds/desk-leased\" }}{{ .Data.token }}{{ end }}"
  destination          = "host-token"
  perms                = "0600"
  error_on_missing_key = true
}
