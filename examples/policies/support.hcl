# Support: why a host was turned away.

path "clanmeeting/verify" {
  capabilities = ["update"]
}
