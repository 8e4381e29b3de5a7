#!/bin/sh
# Registers the plugin of this image, and enables the engine at clanmeeting/. You can run it
# again: it skips what is done already.
set -eu
plugin=vault-plugin-secrets-clanmeeting
file=${plugin}_$PLUGIN_VERSION
sha256=$(sha256sum "$PLUGIN_DIRECTORY/$file" | cut -d' ' -f1)
vault plugin register -version="$PLUGIN_VERSION" -command="$file" -sha256="$sha256" secret "$plugin"
if vault secrets list | grep -q '^clanmeeting/'; then
	echo "clanmeeting/ is enabled already"
else
	vault secrets enable -path=clanmeeting -plugin-version="$PLUGIN_VERSION" "$plugin"
fi
