// What may be called a branch, an object id or a remote; asked without a child.
#include <algorithm>

#include "necrocode/base/text.hpp"
#include "necrocode/git/repository.hpp"

namespace necrocode::git {
namespace {

constexpr std::size_t kBranchBytes = 240;  // the ref is a file, beside it `.lock`
constexpr std::size_t kUrlBytes = 4096;

/// Never the URL itself: what makes it bad may be a password.
[[noreturn]] void refuse(const std::string& why) {
  ErrorInfo info;
  info.service = "git";
  info.operation = "check-remote-url";
  throw SecurityError("the repository URL is refused: " + why, std::move(info));
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

/// A host name or address, or a user name: nothing that a shell, ssh or git could read as an
/// option.
bool is_plain_host(std::string_view host) {
  if (host.empty() || host.front() == '-') return false;
  if (host.front() == '[') {
    return host.size() > 2 && host.back() == ']' &&
           host.find_first_not_of("0123456789abcdefABCDEF:.", 1) == host.size() - 1;
  }
  return std::all_of(host.begin(), host.end(),
                     [](char c) { return is_ascii_alnum(c) || c == '.' || c == '-' || c == '_'; });
}

struct Authority {
  std::string_view user, host;
};

/// user@host:port. Throws for a password and for anything odd.
Authority read_authority(std::string_view text) {
  Authority authority;
  if (const std::size_t at = text.rfind('@'); at != std::string_view::npos) {
    authority.user = text.substr(0, at);
    if (authority.user.find(':') != std::string_view::npos) refuse("it holds credentials");
    if (!is_plain_host(authority.user)) refuse("the user name is malformed");
    text = text.substr(at + 1);
  }
  const std::size_t bracket = text.find(']');
  const std::size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  authority.host = text.substr(0, colon);
  if (colon != std::string_view::npos) {
    const auto port = parse_uint(text.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) refuse("the port is malformed");
  }
  if (!is_plain_host(authority.host)) refuse("the host is malformed");
  return authority;
}

bool is_loopback_host(std::string_view host) {
  return host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") &&
          host.find_first_not_of("0123456789.") == std::string_view::npos);
}

void check_scheme_url(std::string_view scheme, std::string_view rest) {
  if (scheme == "file") {
    if (!rest.starts_with("/")) refuse("a file URL begins with file:///");
    return;
  }
  const std::string_view path = rest.substr(std::min(rest.find('/'), rest.size()));
  const std::string_view host_part = rest.substr(0, rest.size() - path.size());
  if (scheme == "https" || scheme == "http") {
    // Also a user name alone: many services take a token there.
    if (host_part.find('@') != std::string_view::npos) refuse("it holds credentials");
    const Authority authority = read_authority(host_part);
    if (scheme == "http" && !is_loopback_host(authority.host))
      refuse("http is for this host only; use https");
  } else if (scheme == "ssh") {
    read_authority(host_part);
    if (path.starts_with("/-")) refuse("the path begins with '-'");
  } else {
    refuse("only https, ssh and file remotes are used");
  }
}

}  // namespace

bool is_object_id(std::string_view text) {
  return (text.size() == 40 || text.size() == 64) &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_branch_name(std::string_view text) {
  if (text.empty() || text.size() > kBranchBytes || text == "HEAD" || text == "@") return false;
  if (text.front() == '-' || text.back() == '.' || !is_utf8(text)) return false;
  if (text.find("..") != std::string_view::npos || text.find("@{") != std::string_view::npos)
    return false;
  if (std::any_of(text.begin(), text.end(), is_control)) return false;
  if (text.find_first_of(" ~^:?*[\\") != std::string_view::npos) return false;
  const std::vector<std::string_view> parts = split(text, '/');
  return std::all_of(parts.begin(), parts.end(), [](std::string_view part) {
    return !part.empty() && part.front() != '.' && !part.ends_with(".lock");
  });
}

void check_remote_url(const std::string& url) {
  if (url.empty()) refuse("it is empty");
  if (url.size() > kUrlBytes) refuse("it is too long");
  if (std::any_of(url.begin(), url.end(), is_control) || !is_utf8(url))
    refuse("it holds control characters");
  if (url.front() == '-') refuse("it begins with '-'");
  if (url.front() == '/') return;
  const std::string_view text = url;
  if (const std::size_t scheme = text.find("://"); scheme != std::string_view::npos) {
    return check_scheme_url(text.substr(0, scheme), text.substr(scheme + 3));
  }
  // git@host:path; "ext::sh -c …" and "-oProxyCommand=…:x" look alike.
  const std::size_t colon = text.find(':', text.starts_with("[") ? text.find(']') : 0);
  if (colon == std::string_view::npos) refuse("it is neither a URL nor an absolute path");
  if (text.substr(colon).starts_with("::")) refuse("only https, ssh and file remotes are used");
  const Authority authority = read_authority(text.substr(0, colon));
  if (authority.user.empty()) refuse("it is neither a URL nor an absolute path");
  const std::string_view path = text.substr(colon + 1);
  if (path.empty() || path.front() == '-') refuse("the path is malformed");
}

}  // namespace necrocode::git
