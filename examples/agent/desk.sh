#!/bin/sh
# Stands for the program that needs a token: says which it has, and stays.
echo "$CLANMEETING_TOKEN"
exec tail -f /dev/null
