#pragma once

#include <cstdlib>
#include <string>

namespace necrocode::test {

/// A variable of this process's environment for the time of a test.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() {
    if (old_.empty()) ::unsetenv(name_);
    if (!old_.empty()) ::setenv(name_, old_.c_str(), 1);
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::string old_;
};

}  // namespace necrocode::test
