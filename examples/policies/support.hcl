# Support: finds out why a token was refused.

path "clanmeeting/verify" {
  capabilities = ["update"]
}
