# The application asks whether a meeting can be started, and reads a token for the click. It
# can neither read nor write a role. A new team or event needs two more lines here.

path "clanmeeting/check/sales" { capabilities = ["read"] }
path "clanmeeting/creds/sales" { capabilities = ["read"] }

path "clanmeeting/check/support" { capabilities = ["read"] }
path "clanmeeting/creds/support" { capabilities = ["read"] }

path "clanmeeting/check/sales-launch" { capabilities = ["read"] }
path "clanmeeting/creds/sales-launch" { capabilities = ["read"] }

path "clanmeeting/check/sales-review" { capabilities = ["read"] }
path "clanmeeting/creds/sales-review" { capabilities = ["read"] }
