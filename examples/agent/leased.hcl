# Keeps the file host-token with a valid token, by the lease of a role with generate_lease.
#
#   vault agent -config=leased.hcl

auto_auth {
  method {
    type = "approle"
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false # lest a restart find none
    }
  }
}

template_config {
  # The agent reads again after this part of the lease, give or take 5 % of the lease.
  # What is left must be longer than Vault may be away: a failover takes 15 s.
  lease_renewal_threshold = 0.66
}

template {
  contents             = "{{ with secret \"clanmeeting/creds/desk-leased\" }}{{ .Data.token }}{{ end }}"
  destination          = "host-token"
  perms                = "0600"
  error_on_missing_key = true
}
