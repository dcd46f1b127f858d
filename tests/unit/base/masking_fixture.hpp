// What the masker's tests share.
#pragma once

#include <string>
#include <vector>

#include "necrocode/base/masking.hpp"

namespace necrocode::test {

inline Masker masker_for(const std::vector<std::string>& texts) {
  std::vector<Secret> secrets;
  for (const std::string& text : texts) secrets.emplace_back(text);
  std::vector<const Secret*> pointers;
  for (const Secret& secret : secrets) pointers.push_back(&secret);
  return Masker(pointers);
}

}  // namespace necrocode::test
