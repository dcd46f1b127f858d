// CallSpool: where a call is kept that its service cannot take now. The clients know only this; the
// durable one is outbox/outbox.hpp, which needs a database.
#pragma once

#include <string>

#include "necrocode/base/call_context.hpp"

namespace necrocode::net {

struct ServiceCall;

/// Thread-safe. Calls about one `target` of one service (by its base URL) are delivered in the
/// order in which they were kept, each with the Idempotency-Key it was first sent with.
class CallSpool {
 public:
  virtual ~CallSpool() = default;
  /// On disk when it returns: method, path, JSON body and key of the call; its headers are not
  /// kept. Throws ResourceLimitError when the spool is full, StorageError.
  virtual void keep(const std::string& service, const std::string& base_url,
                    const ServiceCall& call) = 0;
  /// Whether a call about that target is kept.
  virtual bool holds(const std::string& base_url, const std::string& target) const = 0;
  /// Tries at once to deliver, and waits until nothing about that target is kept. False when the
  /// context ended first.
  virtual bool settle(const std::string& base_url, const std::string& target,
                      const CallContext& context) = 0;
};

}  // namespace necrocode::net
