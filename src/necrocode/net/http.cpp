#include "necrocode/net/http.hpp"

#include <arpa/inet.h>

#include <algorithm>

#include "necrocode/base/text.hpp"

namespace necrocode::net {
namespace {

// RFC 9110 section 5.6.2.
bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return is_ascii_alnum(c) || kMarks.find(c) != std::string_view::npos;
  });
}

// Only what may stand in a URL on the wire: visible ASCII. Backslash is left out because some
// parsers take it for a slash; two readers of one URL must never see two hosts.
bool is_url_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c > 0x20 && c < 0x7f && c != '\\'; });
}

bool is_ipv4(const std::string& host) {
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1;
}

bool is_ipv6(const std::string& host) {
  in6_addr address{};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool is_host_name(const std::string& host) {
  if (host.empty() || host.size() > 255 || host.front() == '.' || host.front() == '-') return false;
  for (const char c : host) {
    if (!is_ascii_alnum(c) && c != '-' && c != '.' && c != '_') return false;
  }
  // "127.1", "2130706433" and "0x7f.1" are addresses to some resolvers and names to others.
  const auto labels = split(host, '.');
  const std::string_view last =
      labels.back().empty() && labels.size() > 1 ? labels[labels.size() - 2] : labels.back();
  return last.empty() || !is_ascii_digit(last.front()) || is_ipv4(host);
}

struct Authority {
  std::string host;
  std::string_view port;  // after the colon; data() is null when there is no colon
};

std::optional<Authority> split_authority(std::string_view text) {
  Authority authority;
  std::size_t end = 0;
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    authority.host = ascii_lower(text.substr(1, end - 1));
    if (!is_ipv6(authority.host)) return std::nullopt;
    ++end;
  } else {
    end = std::min(text.find(':'), text.size());
    authority.host = ascii_lower(text.substr(0, end));
    if (!is_host_name(authority.host)) return std::nullopt;
  }
  if (end == text.size()) return authority;
  if (text[end] != ':') return std::nullopt;
  authority.port = text.substr(end + 1);
  return authority;
}

// A comma inside a tag does no harm: no piece of one has a quote at both ends.
template <class Matches>
bool any_element(std::string_view field, Matches matches) {
  const auto elements = split(field, ',');
  return std::any_of(elements.begin(), elements.end(),
                     [&](std::string_view element) { return matches(trim(element)); });
}

}  // namespace

std::optional<std::string_view> Headers::get(std::string_view name) const {
  for (const auto& [field, value] : fields_) {
    if (iequals(field, name)) return value;
  }
  return std::nullopt;
}

std::string Headers::get_or(std::string_view name, std::string_view otherwise) const {
  return std::string(get(name).value_or(otherwise));
}

std::size_t Headers::count(std::string_view name) const {
  return static_cast<std::size_t>(
      std::count_if(fields_.begin(), fields_.end(),
                    [&](const auto& field) { return iequals(field.first, name); }));
}

void Headers::set(std::string_view name, std::string value) {
  erase(name);
  add(name, std::move(value));
}

void Headers::add(std::string_view name, std::string value) {
  fields_.emplace_back(std::string(name), std::move(value));
}

void Headers::erase(std::string_view name) {
  std::erase_if(fields_, [&](const auto& field) { return iequals(field.first, name); });
}

bool is_valid_header(std::string_view name, std::string_view value) {
  return is_token(name) &&
         value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

bool etag_matches(std::string_view field, std::string_view etag) {
  return any_element(field, [&](std::string_view tag) {
    if (tag.starts_with("W/")) tag.remove_prefix(2);
    return tag == "*" || tag == etag;
  });
}

bool etag_matches_strongly(std::string_view field, std::string_view etag) {
  return any_element(field, [&](std::string_view tag) { return tag == "*" || tag == etag; });
}

std::optional<Url> Url::parse(std::string_view text) {
  Url url;
  const std::size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos || !is_url_text(text)) return std::nullopt;
  url.scheme = ascii_lower(text.substr(0, scheme_end));
  if (url.scheme != "http" && url.scheme != "https") return std::nullopt;

  text.remove_prefix(scheme_end + 3);
  text = text.substr(0, text.find('#'));
  const std::size_t path_begin = std::min(text.find_first_of("/?"), text.size());
  std::string_view authority_text = text.substr(0, path_begin);
  if (const auto at = authority_text.rfind('@'); at != std::string_view::npos) {
    url.user_info = authority_text.substr(0, at);
    if (url.user_info.find('@') != std::string::npos) return std::nullopt;
    authority_text.remove_prefix(at + 1);
  }
  const auto authority = split_authority(authority_text);
  if (!authority) return std::nullopt;
  url.host = authority->host;
  url.port = url.scheme == "https" ? 443 : 80;
  if (!authority->port.empty()) {
    const auto port = parse_uint(authority->port);
    if (!port || *port == 0 || *port > 65535) return std::nullopt;
    url.port = static_cast<int>(*port);
  }
  const std::string_view path = text.substr(path_begin);
  url.path = path.starts_with('/') ? std::string(path) : "/" + std::string(path);
  return url;
}

std::string Url::origin() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  std::string origin;
  origin.reserve(scheme.size() + host.size() + 12);  // "://", "[]" and ":65535"
  origin.append(scheme).append(ipv6 ? "://[" : "://").append(host);
  return origin.append(ipv6 ? "]:" : ":").append(std::to_string(port));
}

bool Url::is_loopback() const {
  in6_addr v6{};
  if (host.find(':') != std::string::npos && inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    return IN6_IS_ADDR_LOOPBACK(&v6);
  }
  return host == "localhost" || (is_ipv4(host) && host.starts_with("127."));
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 425:
      return "Too Early";
    case 428:
      return "Precondition Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    case 507:
      return "Insufficient Storage";
    default:
      return "Unknown";
  }
}

}  // namespace necrocode::net
