// KeyFilter: keeps a service's key from coming back to a program that must not have it: in an error
// that quotes it, a header or an answer. Looks for the keys and their usual encodings only; all
// other bytes go on unchanged.
#pragma once

#include <bitset>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/secret.hpp"

namespace necrocode::llm {

/// Immutable and thread-safe.
class HiddenKeys {
 public:
  /// Those shorter than limits::kSecretBytesMin are no secrets: ordinary text may hold them.
  explicit HiddenKeys(const std::vector<const Secret*>& keys);
  ~HiddenKeys();
  HiddenKeys(const HiddenKeys&) = delete;
  HiddenKeys& operator=(const HiddenKeys&) = delete;

  /// `text` with "***" for each key.
  std::string hide(std::string_view text) const;

 private:
  friend class KeyFilter;
  struct Match {
    std::size_t size = 0;   ///< of the longest form that stands there; 0: none
    bool may_grow = false;  ///< the text ends within a longer one
  };
  Match match(std::string_view text) const;

  std::vector<std::string> forms_;
  std::bitset<256> first_;  // characters
};

/// The same of a text that comes in pieces. Holds back only what may be the beginning of a key. Not
/// thread-safe.
class KeyFilter {
 public:
  explicit KeyFilter(std::shared_ptr<const HiddenKeys> keys) : keys_(std::move(keys)) {}
  /// What can go on.
  std::string take(std::string_view bytes);
  /// The rest.
  std::string finish();

 private:
  std::string advance(bool final);

  std::shared_ptr<const HiddenKeys> keys_;
  std::string held_;
};

}  // namespace necrocode::llm
