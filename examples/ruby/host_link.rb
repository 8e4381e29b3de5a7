# frozen_string_literal: true

# Copyright (c) The vault-plugin-secrets-clanmeeting authors
# SPDX-License-Identifier: MPL-2.0

# Prints the link that opens a room as its host. With --keep, prints a new one
# before the last expires.
#
#   ruby host_link.rb [--keep] ROOM

require 'json'
require 'net/http'
require 'openssl'

# Host links from Vault. Use one object for the whole application.
class HostLinks
  REQUEST_TIMEOUT = 5 # seconds
  RETRY_FOR = 25 # seconds; a failover of Vault takes 15

  # Vault refused, and would refuse again: the room, the policy or the login is wrong.
  class Refused < StandardError; end

  # Refused with 403, which a new login may change.
  class Forbidden < Refused; end

  # Vault is sealed, changing leaders, overloaded or out of reach.
  class Unavailable < StandardError; end

  Link = Struct.new(:url, :ttl) # ttl in seconds from now

  # creds_path is the mount and the role, such as clanmeeting/creds/support.
  # namespace is for OpenBao, Vault Enterprise and HCP.
  def initialize(addr:, role_id:, secret_id:, creds_path:, namespace: nil)
    unless addr.start_with?('https://', 'http://')
      raise Refused, "#{addr} is not the address of a Vault: it must begin with https:// or http://"
    end

    @base = URI("#{addr.sub(%r{/+\z}, '')}/v1/")
    @role_id = role_id
    @secret_id = secret_id
    @creds_path = creds_path
    @namespace = namespace
    @lock = Mutex.new
  end

  # A new link. Whoever opens it is the host of the room.
  def get(room)
    deadline = now + RETRY_FOR
    delay = 0.5
    begin
      read(room)
    rescue Unavailable => e
      raise if now + delay > deadline

      warn "#{e.message}; trying again"
      sleep delay * rand(0.5..1.5)
      delay = [delay * 2, 4].min
      retry
    end
  end

  private

  def read(room)
    token = login
    begin
      data = creds(room, token)
    rescue Forbidden
      # The login may have expired. If a new login gets this too, the policy refuses.
      data = creds(room, login(token))
    end
    unless data['meeting_url']
      raise Refused, "Vault's answer has no meeting_url: the engine's config needs a domain, and room * has no link"
    end

    Link.new(data['meeting_url'], data['ttl'])
  end

  # The Vault token, or a new one if this one has expired. All threads share one login.
  def login(expired = nil)
    @lock.synchronize do
      @vault_token = new_token if @vault_token == expired
      @vault_token
    end
  end

  def new_token
    request = Net::HTTP::Post.new(URI.join(@base, 'auth/approle/login'), 'Content-Type' => 'application/json')
    request.body = JSON.generate(role_id: @role_id, secret_id: @secret_id)
    call(request, 'auth')['client_token']
  end

  def creds(room, token)
    uri = URI.join(@base, @creds_path)
    uri.query = URI.encode_www_form(room: room)
    call(Net::HTTP::Get.new(uri, 'X-Vault-Token' => token), 'data')
  end

  def call(request, part)
    request['X-Vault-Namespace'] = @namespace unless @namespace.to_s.empty?
    response = Net::HTTP.start(@base.host, @base.port, use_ssl: @base.scheme == 'https', max_retries: 0,
                                                       open_timeout: REQUEST_TIMEOUT, read_timeout: REQUEST_TIMEOUT) do |http|
      http.request(request)
    end
    answer(response, request.uri.path, part)
  rescue SystemCallError, SocketError, IOError, Timeout::Error, OpenSSL::SSL::SSLError,
         Net::ProtocolError, Net::HTTPBadResponse, Net::HTTPHeaderSyntaxError => e
    raise Unavailable, "Vault can't be reached at #{@base}: #{e.message}"
  end

  # One part of the answer to a request of the path. Redirects are not followed:
  # they would hand the token or the secret ID to another host.
  def answer(response, path, part)
    body = parse(response.body)
    return body[part] if response.is_a?(Net::HTTPOK) && body[part].is_a?(Hash)

    message = "the answer to #{path} (#{response.code}) is not from Vault"
    if body['errors'].is_a?(Array)
      message = "Vault answered #{response.code} to #{path}: #{body['errors'].join(', ').split.join(' ')}"
    end
    case response
    when Net::HTTPForbidden then raise Forbidden, message
    when Net::HTTPTooManyRequests then raise Unavailable, message
    when Net::HTTPClientError then raise Refused, message
    else raise Unavailable, message
    end
  end

  # A proxy in front of Vault may answer with HTML.
  def parse(text)
    body = JSON.parse(text)
    body.is_a?(Hash) ? body : {}
  rescue JSON::ParserError, TypeError
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
  begin
    links = HostLinks.new(
      addr: setting.call('VAULT_ADDR'),
      role_id: setting.call('VAULT_ROLE_ID'),
      secret_id: setting.call('VAULT_SECRET_ID'),
      creds_path: ENV.fetch('CLANMEETING_CREDS', 'clanmeeting/creds/support'),
      namespace: ENV['VAULT_NAMESPACE']
    )
    loop do
      link = links.get(room)
      puts link.url
      break unless keep

      sleep link.ttl * 2.0 / 3
    end
  rescue HostLinks::Refused, HostLinks::Unavailable => e
    abort "error: #{e.message}"
  end
end
