#!/bin/sh
# Replaces examples/agent/desk.sh, which does not print the token.
echo "$CLANMEETING_TOKEN"
exec tail -f /dev/null
