// SHA-256, incrementally.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace necrocode {

/// Not thread-safe; one a stream.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();
  void update(std::string_view bytes);
  /// The 32 raw bytes; the object starts anew.
  std::string finish();
  /// Lower-case hex of finish().
  std::string finish_hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256_hex(std::string_view bytes);
/// `sha-256=:BASE64:` (RFC 9530), for Content-Digest, from lower-case hex.
std::string content_digest_header(std::string_view sha256_hex);
/// The sha-256 among the digests of a Content-Digest or Repr-Digest field, as lower-case hex;
/// nothing when there is none or it is malformed.
std::optional<std::string> sha256_from_digest_header(std::string_view field);

}  // namespace necrocode
