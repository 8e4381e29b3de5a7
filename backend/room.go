// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"regexp"
	"strings"
)

// A room is a valid, lower-case name of a meeting room, or everyRoom.
type room string

// everyRoom is the room claim of a token that opens every room of the consumer.
const everyRoom room = "*"

const roomSyntax = `1 to 255 of a-z, 0-9, "_" and "-"`

// The alphabet of Clan Meeting's SDK. Upper case is allowed here, and not
// lowered before, because lowering maps letters from outside the alphabet into
// it: the Kelvin sign becomes a k.
var roomPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// parseRoom reads a room as a request or a role names it.
func parseRoom(field, name string) (room, error) {
	if name == string(everyRoom) {
		return everyRoom, nil
	}
	if !roomPattern.MatchString(name) {
		return "", errNoRoomName(field)
	}
	return room(strings.ToLower(name)), nil
}

func errNoRoomName(field string) error {
	return invalid("%s must be one room name, %s, or \"*\" for every room", field, roomSyntax)
}
