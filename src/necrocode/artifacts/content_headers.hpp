// What the HTTP headers around an artifact's bytes mean: ranges, conditions, digests, and how to
// serve foreign bytes so that no browser runs them. Pure functions; no store, no server.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "necrocode/net/http.hpp"

namespace necrocode::artifacts {

struct ByteRange {
  enum class Kind { kWhole, kPart, kUnsatisfiable };
  Kind kind = Kind::kWhole;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// RFC 9110 section 14.2. What is not one well-formed byte range is as if it had not been sent.
ByteRange parse_range(std::string_view field, std::uint64_t size);
/// "bytes 0-9/100", or "bytes */100" for an unsatisfiable one.
std::string content_range(const ByteRange& range, std::uint64_t size);

/// True for type/subtype, with or without parameters, that can stand in a header.
bool is_media_type(std::string_view text);

/// Adds Content-Type, nosniff, a sandbox for pages, and for everything that a browser might run as
/// a page of this origin (HTML, SVG, XML, and all that is not known to be harmless) an attachment.
void add_safe_content_headers(net::Headers& headers, std::string_view media_type,
                              std::string_view name);

/// The digests a request announces for its body.
class AnnouncedDigest {
 public:
  /// From Content-Digest and Repr-Digest; algorithms other than sha-256 are ignored (RFC 9530).
  /// Throws HttpError 400 for a malformed sha-256, or when the two differ.
  explicit AnnouncedDigest(const net::Headers& headers);
  bool present() const { return !sha256_.empty(); }
  bool matches(std::string_view sha256) const { return sha256_.empty() || sha256_ == sha256; }

 private:
  std::string sha256_;
};

}  // namespace necrocode::artifacts
