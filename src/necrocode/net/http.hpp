// HTTP messages as both sides of net/ name them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace necrocode::net {

/// Header fields in order; names compare without case. A value type: reading from several threads
/// at once is safe, changing is not. Nothing is checked here; see is_valid_header(). Views end with
/// the next change.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> fields) : fields_(fields) {}
  /// The first field of that name.
  std::optional<std::string_view> get(std::string_view name) const;
  std::string get_or(std::string_view name, std::string_view otherwise) const;
  std::size_t count(std::string_view name) const;
  void set(std::string_view name, std::string value);  ///< replaces all of that name
  void add(std::string_view name, std::string value);
  void erase(std::string_view name);
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }
  std::size_t size() const { return fields_.size(); }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

/// True when a field can be sent: a token as name; no CR, LF, NUL in the value.
bool is_valid_header(std::string_view name, std::string_view value);

/// If-None-Match against a resource's entity tag: true when `field`, a list of tags or `*`, has it
/// by weak comparison (RFC 9110 sections 8.8.3.2 and 13.1.2).
bool etag_matches(std::string_view field, std::string_view etag);
/// If-Match: the same by strong comparison, where a weak tag matches none (section 13.1.1).
bool etag_matches_strongly(std::string_view field, std::string_view etag);

/// A parsed absolute URL with scheme http or https (RFC 3986), or nothing.
struct Url {
  std::string scheme;
  std::string host;  ///< lower-case, IPv6 without brackets
  int port = 0;      ///< the scheme's default filled in
  std::string path;  ///< with the query; at least "/"
  std::string user_info;
  static std::optional<Url> parse(std::string_view text);
  /// scheme://host:port, for comparing origins (RFC 6454).
  std::string origin() const;
  bool is_loopback() const;
};

std::string_view reason_phrase(int status);

}  // namespace necrocode::net
