// What `verify --live` calls: every operation of every configured service, on things of its own
// that it takes away again as far as the services can.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "runtime.hpp"

namespace necrocode::app {

struct LiveCheck {
  std::string service;    ///< "task-registry" …
  std::string operation;  ///< the client's method
  bool ok = false;
  std::string detail;  ///< "ok", or why not
  std::chrono::duration<double, std::milli> duration{0};
};

/// Never throws for a service that fails; an operation that needs the result of one that failed is
/// told as not tried. Leaves a finished taskset `necrocode-verify-…` in the registry.
std::vector<LiveCheck> check_live(const Runtime& runtime, const git::Git& git);

}  // namespace necrocode::app
