#!/bin/sh
# Put your program here. This one prints only the length of the token, because its output
# is logged.
echo "started, with a token of ${#CLANMEETING_TOKEN} characters"
exec tail -f /dev/null
