# From a key to a host token, which it leaves in a file.
title "The security team stores the key, made for this demo, and writes a role"
show 'vault write clanmeeting/config consumer_id=acme private_key=@cm-api-key.pem domain=meet.example.com'
show 'vault read clanmeeting/config'
show "vault write clanmeeting/roles/support allowed_rooms='support-*' ttl=5m max_ttl=15m"

title "An app gets a policy: it may read tokens of that role, and nothing else"
cat >app.hcl <<END
path "clanmeeting/creds/support" {
  capabilities = ["read"]
}
END
echo && cat app.hcl
show 'vault policy write support-app app.hcl'
show 'vault token create -policy=support-app -field=token'
echo "$out" >app-token
vault read -field=public_key clanmeeting/config >public.pem

title "The app reads a token for a room"
VAULT_TOKEN=$(cat app-token)
show 'vault read clanmeeting/creds/support room=support-4711'
show 'vault read -field=token clanmeeting/creds/support room=support-4711'
echo "$out" >token
