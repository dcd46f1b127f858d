#include "necrocode/base/secret.hpp"

#include <openssl/crypto.h>

#include <utility>

namespace necrocode {

void wipe(std::string& text) noexcept {
  if (text.capacity() > 0) OPENSSL_cleanse(text.data(), text.capacity());
  text.clear();
}

Secret::Secret(std::string_view text) : text_(text) {}
// A short string lives inside the object, so a plain move would leave its bytes behind.
// NOLINTNEXTLINE(performance-move-constructor-init)
Secret::Secret(Secret&& other) noexcept : text_(other.text_) {
  other.wipe();
}
Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    text_ = other.text_;
    other.wipe();
  }
  return *this;
}
Secret::~Secret() {
  wipe();
}

bool Secret::equals(std::string_view other) const noexcept {
  return text_.size() == other.size() &&
         CRYPTO_memcmp(text_.data(), other.data(), other.size()) == 0;
}

void Secret::wipe() noexcept {
  necrocode::wipe(text_);
}

}  // namespace necrocode
