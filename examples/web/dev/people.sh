#!/bin/sh
# For trying: three people who log in to Vault with a password, and Vault as their identity
# provider for the application.
#
#   people.sh PUBLIC_URL ISSUER    (where the application is, and scheme://host:port of Vault)
set -eu
public_url=$1
issuer=$2

vault auth list | grep -q '^userpass/' || vault auth enable userpass
accessor=$(vault read -field=accessor sys/auth/userpass)

person() { # their login, name and team
	vault write "auth/userpass/users/$1" password="$1-password"
	# Metadata of an entity: whoever may not write identity/ can't change their own team.
	vault write identity/entity name="$1" metadata=name="$2" metadata=team="$3"
	vault write identity/entity-alias name="$1" mount_accessor="$accessor" \
		canonical_id="$(vault read -field=id "identity/entity/name/$1")"
}
person ann "Ann Arden" sales
person bob "Bob Brook" support
person cleo "Cleo Cole" ""

# What the provider tells the application about them.
vault write identity/oidc/scope/profile template='{
  "preferred_username": {{identity.entity.name}},
  "name": {{identity.entity.metadata.name}},
  "team": {{identity.entity.metadata.team}}
}'
vault write identity/oidc/client/web redirect_uris="$public_url/callback" assignments=allow_all id_token_ttl=10m
vault write identity/oidc/provider/web issuer="$issuer" scopes_supported=profile \
	allowed_client_ids="$(vault read -field=client_id identity/oidc/client/web)"
