// SlotLease: a slot that is ours as long as this object lives. For programs of one's own; the
// runner renews the leases of all its runs on one thread (runner/lease_keeper.hpp).
#pragma once

#include <memory>
#include <stop_token>

#include "necrocode/pool/client.hpp"

namespace necrocode {

/// Move-only. Renews the lease every third of its time on a thread of its own, and releases the
/// slot on destruction. Used from one thread, but for lost().
///
///     SlotLease lease(pool, pool.allocate_slot(url, "me", 20, options), options.lease);
///     work_in(lease.slot().slot_path, lease.lost());
class SlotLease {
 public:
  /// `duration`: what the lease was asked for with; at least 1 s. `pool` lives longer.
  SlotLease(RepoPoolClient& pool, SlotAllocation slot, std::chrono::seconds duration);
  SlotLease(SlotLease&&) noexcept;
  SlotLease& operator=(SlotLease&&) noexcept;  ///< releases what it held
  /// Releases within 5 s at most; when the service cannot be reached, the lease ends by itself.
  ~SlotLease();

  const SlotAllocation& slot() const;
  /// Asked to stop when the lease is lost: the service says so, or could not be reached for the
  /// whole of it. Then the slot may be another's, and nothing in it may be touched any more.
  std::stop_token lost() const;
  /// Ends the lease now, once. Throws what RepoPoolClient::release_slot() does.
  void release(const CallContext& context = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode
