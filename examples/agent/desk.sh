#!/bin/sh
# Stands for the program that needs a token. It prints only how long the token is, because
# its output ends up in a log.
echo "started, with a token of ${#CLANMEETING_TOKEN} characters"
exec tail -f /dev/null
