#include "necrocode/base/digest.hpp"

#include <openssl/evp.h>

#include "necrocode/base/base64.hpp"
#include "necrocode/base/check.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  Context() {
    NECROCODE_CHECK(md != nullptr);
    reset();
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { EVP_MD_CTX_free(md); }
  void reset() { NECROCODE_CHECK(EVP_DigestInit_ex(md, EVP_sha256(), nullptr) == 1); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::update(std::string_view bytes) {
  NECROCODE_CHECK(EVP_DigestUpdate(context_->md, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  NECROCODE_CHECK(EVP_DigestFinal_ex(context_->md, digest, &size) == 1);
  context_->reset();
  return {reinterpret_cast<const char*>(digest), size};
}

std::string Sha256::finish_hex() {
  return to_hex(finish());
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish_hex();
}

std::string content_digest_header(std::string_view hex) {
  std::string raw;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    raw += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return "sha-256=:" + base64_encode(raw) + ":";
}

std::optional<std::string> sha256_from_digest_header(std::string_view field) {
  constexpr std::string_view kKey = "sha-256=:";
  std::optional<std::string> hex;
  // Base64 has no comma, so the members of the dictionary (RFC 8941 section 3.2) part at each one.
  for (const std::string_view part : split(field, ',')) {
    const std::string_view member = trim(part);
    if (!member.starts_with(kKey)) continue;
    const std::size_t end = member.find(':', kKey.size());
    if (end == std::string_view::npos) return std::nullopt;
    const auto raw = base64_decode(member.substr(kKey.size(), end - kKey.size()));
    if (!raw || raw->size() != 32) return std::nullopt;
    hex = to_hex(*raw);  // the last of a repeated key counts
  }
  return hex;
}

}  // namespace necrocode
