# frozen_string_literal: true

# Copyright (c) The vault-plugin-secrets-clanmeeting authors
# SPDX-License-Identifier: MPL-2.0

# Prints the link that opens a room as its host; with --keep, a new one each time
# before the last expires.
#
#   ruby host_link.rb [--keep] ROOM

require 'json'
require 'net/http'
require 'openssl'

# Host links from Vault. One object serves a whole application.
class HostLinks
  REQUEST_TIMEOUT = 10 # seconds
  NO_URL = "Vault's answer has no meeting_url: have domain written to the engine's config"
  RETRY_DELAYS = [0.5, 1, 2, 4, 8].freeze # seconds

  # Vault said no, and would again: the room, the policy or the login is wrong.
  class Refused < StandardError; end

  # The same by 403, which a new login may change.
  class Forbidden < Refused; end

  # Vault is sealed, changing leaders, overloaded or out of reach: worth another try.
  class Unavailable < StandardError; end

  Link = Struct.new(:url, :renew_at) # renew_at by the monotonic clock

  # creds_path is the mount and the role, such as clanmeeting/creds/support.
  def initialize(addr:, role_id:, secret_id:, creds_path:)
    @base = URI("#{addr}/v1/")
    @role_id = role_id
    @secret_id = secret_id
    @creds_path = creds_path
    @links = {}
  end

  # A link for the room, read from Vault if there is none with a third of its life left.
  def get(room)
    link = @links[room]
    return link if link && now < link.renew_at

    @links[room] = retrying { read(room) }
  end

  private

  def retrying
    RETRY_DELAYS.each do |delay|
      return yield
    rescue Unavailable => e
      warn "#{e.message}; trying again"
      sleep delay * rand(0.5..1.0)
    end
    yield
  end

  def read(room)
    login unless @vault_token
    begin
      data = creds(room)
    rescue Forbidden
      # The login may have expired. With a new one, this is the policy's last word.
      login
      data = creds(room)
    end
    raise Refused, NO_URL unless data['meeting_url']

    # ttl counts from Vault's clock, so this machine's own need not be right.
    Link.new(data['meeting_url'], now + data['ttl'] * 2.0 / 3)
  end

  def login
    request = Net::HTTP::Post.new(URI.join(@base, 'auth/approle/login'))
    request.body = JSON.generate(role_id: @role_id, secret_id: @secret_id)
    @vault_token = call(request)['auth']['client_token']
  end

  def creds(room)
    uri = URI.join(@base, @creds_path)
    uri.query = URI.encode_www_form(room: room)
    call(Net::HTTP::Get.new(uri))['data']
  end

  def call(request)
    request['X-Vault-Token'] = @vault_token if @vault_token
    answer(Net::HTTP.start(@base.host, @base.port, use_ssl: @base.scheme == 'https',
                                                   open_timeout: REQUEST_TIMEOUT, read_timeout: REQUEST_TIMEOUT) do |http|
      http.request(request)
    end)
  rescue SystemCallError, SocketError, IOError, Timeout::Error, OpenSSL::SSL::SSLError => e
    raise Unavailable, "Vault can't be reached: #{e.message}"
  end

  def answer(response)
    body = parse(response.body)
    return body if response.is_a?(Net::HTTPSuccess)

    message = "Vault answered #{response.code}: #{body.fetch('errors', []).join(', ')}"
    case response
    when Net::HTTPServerError, Net::HTTPTooManyRequests then raise Unavailable, message
    when Net::HTTPForbidden then raise Forbidden, message
    else raise Refused, message
    end
  end

  # What stands between may answer in HTML.
  def parse(body)
    JSON.parse(body)
  rescue JSON::ParserError
    {}
  end

  def now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end

if $PROGRAM_NAME == __FILE__
  $stdout.sync = true
  keep = ARGV.delete('--keep')
  room = ARGV.first or abort 'usage: ruby host_link.rb [--keep] ROOM'
  setting = ->(name) { ENV.fetch(name) { abort "error: set #{name}" } }
  links = HostLinks.new(
    addr: ENV.fetch('VAULT_ADDR', 'https://127.0.0.1:8200'),
    role_id: setting.call('VAULT_ROLE_ID'),
    secret_id: setting.call('VAULT_SECRET_ID'),
    creds_path: ENV.fetch('CLANMEETING_CREDS', 'clanmeeting/creds/support')
  )
  begin
    loop do
      link = links.get(room)
      puts link.url
      break unless keep

      sleep [0, link.renew_at - Process.clock_gettime(Process::CLOCK_MONOTONIC)].max
    end
  rescue HostLinks::Refused, HostLinks::Unavailable => e
    abort "error: #{e.message}"
  end
end
