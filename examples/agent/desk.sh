#!/bin/sh
# Stands for the program that needs a token. Says that it has one, but not which: what it
# prints ends up in a log.
echo "started, with a token of ${#CLANMEETING_TOKEN} characters"
exec tail -f /dev/null
