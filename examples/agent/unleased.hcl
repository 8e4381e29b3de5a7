# Keeps a valid token in the file host-token, for a role without leases.
#
#   vault agent -config=unleased.hcl

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
  # The agent reads again after 85 to 95 % of this. Without this line it would read again after
  # about 4.5 minutes, even if the token expires earlier. The role's ttl is one minute.
  static_secret_render_interval = "40s"
}

template {
  contents             = "{{ with secret \"clanmeeting/creds/desk\" }}{{ .Data.token }}{{ end }}"
  destination          = "host-token"
  perms                = "0600"
  error_on_missing_key = true
}
