# frozen_string_literal: true

# Copyright (c) The vault-plugin-secrets-clanmeeting authors
# SPDX-License-Identifier: MPL-2.0

# verify PUBLIC_KEY_FILE TOKEN CONSUMER_ID ROOM: as a meeting server would, with ruby-jwt.
# sign PRIVATE_KEY_FILE CONSUMER_ID ROOM NBF EXP: the token of the vendor's snippet, with
# the typ that it leaves out.

require 'jwt'
require 'openssl'

def verify(key_file, token, consumer, room)
  key = OpenSSL::PKey.read(File.read(key_file))
  claims, header = JWT.decode(token, key, true, algorithm: 'RS256', aud: 'clanmeeting', verify_aud: true,
                                                iss: 'production', verify_iss: true, sub: consumer, verify_sub: true,
                                                required_claims: %w[exp nbf aud iss sub])
  abort 'wrong header' unless header['typ'] == 'JWT' && header['kid'] == consumer
  abort 'aud is no string' unless claims['aud'].is_a?(String)
  abort 'wrong room' unless claims['room'] == room
end

def sign(key_file, consumer, room, nbf, exp)
  claims = { sub: consumer, aud: 'clanmeeting', iss: 'production', room: room, exp: exp.to_i, nbf: nbf.to_i, context: {} }
  puts JWT.encode(claims, OpenSSL::PKey.read(File.read(key_file)), 'RS256', { kid: consumer, typ: 'JWT' })
end

begin
  case ARGV.shift
  when 'verify' then verify(*ARGV)
  when 'sign' then sign(*ARGV)
  end
rescue JWT::DecodeError => e
  abort e.message
end
